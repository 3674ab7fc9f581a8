"""What is measured: something that carries packets between two ends, and how it is started."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from bench.laboratory import end
from bench.underlay import INNER
from kinkvpn.demo.lab import POLL_SECONDS, START_SECONDS
from kinkvpn.demo.namespace import LabFailed, Namespace

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from bench.underlay import Ends

LOG_LINES: Final = 8
# What the sockets of everybody ask for; published figures gain 29 % by it.
SOCKET_OCTETS: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class Setting:
    """What all contestants are told alike.

    Args:
        suite: as kinkvpn names it.
        outer: IP version outside.
    """

    suite: str = "aes128-gcm16"
    outer: int = 4

    def __str__(self) -> str:
        return f"{self.suite}, IPv{self.outer} outside"


@dataclass(frozen=True, slots=True)
class Tunnel:
    """Two ends that reach each other at their inner addresses.

    Args:
        ends: where load is made and taken.
        suite: what protects it.
        daemons: pid of each end's; empty where the kernel does it all.
        description: program, version, engine.
    """

    ends: Ends
    suite: str
    daemons: tuple[int, ...]
    description: str

    def wait_through(self) -> None:
        """Until a packet of either IP version comes back. Raises LabFailed after START_SECONDS."""
        deadline = time.monotonic() + START_SECONDS
        for version, (_, far) in INNER.items():
            while not self._answers(version, far):
                if time.monotonic() > deadline:
                    raise LabFailed(f"IPv{version} does not get through")
                time.sleep(POLL_SECONDS)

    def _answers(self, version: int, address: str) -> bool:
        try:
            self.ends[0].run(["ping", f"-{version}", "-n", "-c", "1", "-W", "1", address])
        except LabFailed:
            return False
        return True


class Contestant(Protocol):
    """One column of the comparison."""

    @property
    def name(self) -> str: ...

    def obstacle(self) -> str | None:
        """Why it cannot be measured on this machine; None if it can."""
        ...

    def takes(self, setting: Setting) -> bool:
        """Whether it has anything to show there."""
        ...

    def tunnel(self, setting: Setting, directory: Path) -> AbstractContextManager[Tunnel]:
        """Running, though perhaps not yet through.

        Args:
            directory: exists and is its own; the caller removes it.

        Raises:
            LabFailed, RealmFailed: it does not start; the end of its log.
        """
        ...


@contextmanager
def running(
    namespace: Namespace, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A daemon inside ``namespace``, killed at the end of the block; a failure of the block gets the end of its log."""
    with log.open("w") as opened:
        daemon = namespace.spawn(command, stdout=opened, stderr=opened, environment=environment)
    try:
        yield daemon
    except LabFailed as failure:
        lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        raise LabFailed(f"{failure}", host=namespace.name, log=(*failure.log, *lines)) from failure
    finally:
        end(daemon)
