"""The demo's laboratory in tests: a changed configuration, daemons up and asked directly, what is left on a host."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from support import namespaces

from kinkvpn.api.client import Client, peer_path
from kinkvpn.api.control import NotRunning
from kinkvpn.demo.lab import START_SECONDS, DaemonOptions, Host, Lab, kinkvpn, policies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kinkvpn.demo.namespace import Namespace

Result = TypeVar("Result")

SETTLE_SECONDS = 30.0  # what takes a round trip or two, on a busy machine


def amend(host: Host, section: str, **values: object) -> None:
    """Sets keys in the first ``section`` of the host's configuration, such as ``host`` or ``[peer]``."""
    text = host.configuration.read_text()
    head, body = re.split(rf"^\[{re.escape(section)}\]\n", text, maxsplit=1, flags=re.MULTILINE)
    body, separator, rest = body.partition("\n\n")
    kept = [line for line in body.splitlines() if line.partition(" =")[0] not in values]
    lines = [*kept, *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    host.configuration.write_text(f"{head}[{section}]\n" + "\n".join(lines) + (separator or "\n") + rest)


def configure(lab: Lab, options: DaemonOptions | None = None) -> tuple[Host, Host]:
    """Both hosts told the same, as the laboratory tells it; ready to be amended and started."""
    a, b = lab.hosts
    a.configure(b, options or DaemonOptions())
    b.configure(a, options or DaemonOptions())
    return a, b


def one_by_one(host: Host) -> None:
    """Has its datagrams leave one by one: of a run, which is one to whoever captures, nothing could be counted."""
    text = host.configuration.read_text()
    host.configuration.write_text(text + '\n[offload]\nudp_segment = "off"\n')


def without_keytab(host: Host, ccache: Path) -> None:
    """Has the host live on a credential cache alone."""
    text = host.configuration.read_text()
    host.configuration.write_text(re.sub(r"^keytab = .*$", f'ccache = "FILE:{ccache}"', text, flags=re.MULTILINE))


def kinit(lab: Lab, host: Host, ccache: Path, *arguments: str, stdin: str = "") -> None:
    """kinit(1) on the host."""
    command = [*host.namespace.prefix, "kinit", "-c", f"FILE:{ccache}", *arguments]
    done = subprocess.run(
        command, input=stdin, env=lab.realm.environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr


def control_socket(host: Host) -> Path:
    """Where the host's daemon is asked."""
    return host.configuration.parent / "control"


def start(lab: Lab, *hosts: Host) -> None:
    """Daemons of ``hosts``, all if none is named; returns when they answer."""
    for host in hosts or lab.hosts:
        host.start()
    for host in hosts or lab.hosts:
        wait(lab, host, lambda host=host: answers(host), "does not answer", START_SECONDS)


def answers(host: Host) -> bool:
    """Whether the daemon does; raises LabFailed once it has ended."""
    host.check_alive()
    try:
        status(host)
    except NotRunning:
        return False
    return True


def wait(lab: Lab, host: Host, holds: Callable[[], bool], otherwise: str, seconds: float = SETTLE_SECONDS) -> None:
    """Returns once ``holds()``; raises LabFailed with ``otherwise`` and the host's log after ``seconds``."""
    lab.wait_until(holds, seconds, host, otherwise)


def ask(host: Host, name: str, peer: str = "") -> dict[str, Any]:
    """A command to the daemon, without a process for the question: unix sockets know no network namespaces."""
    with Client(control_socket(host)) as daemon:
        return daemon.post(f"{peer_path(peer) if peer else '/v1'}/{name}")


def status(host: Host) -> dict[str, Any]:
    """The daemon's status."""
    with Client(control_socket(host)) as daemon:
        return daemon.status()


def within(namespace: Namespace, make: Callable[[], Result]) -> Result:
    """What ``make`` returns when it runs inside: a socket belongs there for ever."""
    return namespaces.within(f"/proc/{namespace.pid}/ns/net", make)


def command(host: Host, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line on the host, to its end."""
    process = host.namespace.spawn(
        [*kinkvpn(), *arguments, "-c", str(host.configuration)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    output, errors = process.communicate(timeout=60)
    return subprocess.CompletedProcess(arguments, process.returncode, output, errors)


def policy(host: Host, name: str) -> dict[str, Any]:
    """One policy's part of the status."""
    return next(policy for policy in policies(status(host)) if policy["name"] == name)


def spis(host: Host) -> dict[str, tuple[str, str]]:
    """SPIs in and out of every established policy, by its local subnet's IP version."""
    return {
        "6" if ":" in one["local"] else "4": (one["spi_in"], one["spi_out"])
        for one in policies(status(host))
        if one["state"] == "established"
    }


def crosswise(a: Host, b: Host, versions: str = "46") -> bool:
    """Exactly one pair for each policy of those IP versions on both sides, and they are each other's."""
    here, there = spis(a), spis(b)
    return (
        sorted(here) == sorted(there) == sorted(versions)
        and all(here[version] == there[version][::-1] for version in here)
        and all(one["pairs"] <= 1 for host in (a, b) for one in policies(status(host)))
    )


def events(host: Host, name: str) -> list[str]:
    """Lines of the host's log that tell of this event."""
    return [line for line in host.log.read_text().splitlines() if re.match(rf"\S+ \w+ +{name}( |$)", line)]


# Those of a block that is done in a moment would say little.
FEWEST_PINGS = 22


@contextmanager
def pinging(source: Host, target: Host) -> Iterator[list[int]]:
    """Ping ten times a second while the block runs, and on until FEWEST_PINGS are answered; afterwards the list has the
    number of packets lost.
    """
    lost: list[int] = []
    command = ["ping", "-n", "-i", "0.1", "-w", "120", target.site.inner_address(4)]
    process = source.namespace.spawn(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    output = ""
    try:
        yield lost
        while f"icmp_seq={FEWEST_PINGS} " not in output and (line := process.stdout.readline()):
            output += line
    finally:
        process.send_signal(signal.SIGINT)
        output += process.communicate()[0]
    sent = int(re.findall(r"(\d+) packets transmitted", output)[0])
    answered = set(map(int, re.findall(r"bytes from .* icmp_seq=(\d+)", output)))
    newest = max(answered)
    # The signal may find the newest one on its way: ping calls that lost, and it is not.
    assert newest >= sent - 1 >= FEWEST_PINGS - 1
    lost.append(newest - len(answered))


def network_state(host: Host) -> str:
    """Devices, addresses, routes and routing rules of the host, without counters."""
    shown = ("-o link", "-o address", "-4 route show table all", "-6 route show table all", "-4 rule", "-6 rule")
    return "".join(host.namespace.run(["ip", *each.split()]) for each in shown)


def descendants() -> set[int]:
    """Every process that this one, or one of its children, has started and that is still there."""
    parents: dict[int, int] = {}
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with suppress(OSError):
                fields = (process / "stat").read_text().rpartition(")")[2].split()
                parents[int(process.name)] = int(fields[1])
    found, grown = {os.getpid()}, True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        found, grown = found | more, bool(more)
    return found - {os.getpid()}
