"""The demo's laboratory in tests: a changed configuration, daemons up and asked directly, what is left on a host."""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from support import namespaces

from kinkvpn.demo.lab import START_SECONDS, DaemonOptions, Host, Lab, policies
from kinkvpn.service import api

if TYPE_CHECKING:
    from collections.abc import Callable

    from kinkvpn.demo.namespace import Namespace

Result = TypeVar("Result")

SETTLE_SECONDS = 10.0  # what takes a round trip or two, on a busy machine


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
    except api.NotRunning:
        return False
    return True


def wait(lab: Lab, host: Host, holds: Callable[[], bool], otherwise: str, seconds: float = SETTLE_SECONDS) -> None:
    """Returns once ``holds()``; raises LabFailed with ``otherwise`` and the host's log after ``seconds``."""
    lab.wait_until(holds, seconds, host, otherwise)


def status(host: Host, timeout: float = 5.0) -> dict[str, Any]:
    """The daemon's status, without a process for the question: unix sockets know no network namespaces."""
    with api.connect(control_socket(host), timeout) as daemon:
        return api.request(daemon, "status")


def within(namespace: Namespace, make: Callable[[], Result]) -> Result:
    """What ``make`` returns when it runs inside: a socket belongs there for ever."""
    return namespaces.within(f"/proc/{namespace.pid}/ns/net", make)


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


def network_state(host: Host) -> str:
    """Devices, addresses and routes of the host, without counters."""
    commands = (["ip", "-o", "link"], ["ip", "-o", "address"], ["ip", "-4", "route"], ["ip", "-6", "route"])
    return "".join(host.namespace.run(command) for command in commands)


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
