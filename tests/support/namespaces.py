"""Real network namespaces for tests marked ``root``: made, entered from a thread, removed."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import threading
import time
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, TypeVar

from pyroute2 import netns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ADDRESS_SECONDS = 10.0
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000  # linux/if_tun.h

Result = TypeVar("Result")

_numbers = count()


@contextmanager
def namespace() -> Iterator[str]:
    """The name of a new network namespace with its loopback up; everything in it goes when the block ends."""
    name = f"kinktest-{os.getpid()}-{next(_numbers)}"
    run("ip", "netns", "add", name)
    try:
        run("ip", "-n", name, "link", "set", "lo", "up")
        yield name
    finally:
        run("ip", "netns", "del", name)


def within(name: str, make: Callable[[], Result]) -> Result:
    """What ``make`` returns when it runs inside namespace ``name``, or that of a path.

    Sockets and devices that it opens belong there for ever.

    A namespace belongs to a thread, so a fresh one enters it and ends; the caller stays where it is.
    """
    results: list[Result] = []
    errors: list[BaseException] = []

    def enter() -> None:
        try:
            netns.setns(name, flags=0)
            results.append(make())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    for error in errors:
        raise error
    return results[0]


def open_tap(name: str) -> int:
    """The descriptor of a new TAP device in the namespace of this thread (tun(4)); it lives as long as that."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    return device


def run(*command: str) -> str:
    """Its standard output; a failure carries its standard error."""
    # A sanitizer that this process was given by hand would stop at ip's own strncpy.
    plain = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=plain)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def wait_for_address(name: str, address: str) -> None:
    """Until the namespace takes packets to ``address``, which has been added and is on a device that is up.

    IPv6 makes the route that does it later, in a workqueue, with nodad too (net/ipv6/addrconf.c, addrconf_dad_work);
    what comes before is lost, and a datagram stays so.
    """
    deadline = time.monotonic() + ADDRESS_SECONDS
    family = "-6" if ":" in address else "-4"
    while f"local {address} " not in run("ip", "-n", name, family, "route", "show", "table", "local"):
        if time.monotonic() > deadline:
            raise RuntimeError(f"{name} has not got {address}")
        time.sleep(0.001)
