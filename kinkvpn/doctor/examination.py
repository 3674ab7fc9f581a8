"""One look after another, each with its deadline: nobody waits for a KDC, a resolver or a peer that does not answer."""

from __future__ import annotations

import shlex
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import trio

from kinkvpn.config import DEFAULT_PATH
from kinkvpn.config.files import read_files
from kinkvpn.doctor.finding import Finding, Setting, Severity, warning
from kinkvpn.errors import KinkvpnError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from kinkvpn.config import Configuration, PeerConfiguration
    from kinkvpn.kerberos.tickets import TicketSource


@dataclass(slots=True)
class Patient:
    """Who is looked at.

    Args:
        configuration: as it was read; None where there is none, or none that is valid.
        peers: those of it that are asked about.
        file: that it was read from.
        gateway: whose name somebody has given instead of a configuration.
        status: what the running daemon says of itself; None where none runs.
        daemon_hidden: a daemon runs, and we may not ask it.
        events: what the running daemon has kept of its log; none where none runs.
        daemon_fails: one runs that we may ask, and that does not answer, or nothing of use, in words.
        daemon_pid: of that one.
        probe: has the running daemon ask the peer of that name for its STATUS, and returns the seconds that took;
            blocks, and raises KinkvpnError with the reason if there was no answer.
        tickets: our credentials at work, once the look at them has found them good.
        clock_is_right: as the KDC has it.
    """

    configuration: Configuration | None
    peers: tuple[PeerConfiguration, ...] = ()
    file: Path = DEFAULT_PATH
    gateway: str = ""
    status: Mapping[str, Any] | None = None
    daemon_hidden: bool = False
    daemon_fails: str = ""
    daemon_pid: int = 0
    tickets: TicketSource | None = None
    clock_is_right: bool = False
    probe: Callable[[str], float] | None = None
    events: Callable[[], Iterable[Mapping[str, Any]]] = tuple

    @property
    def daemon_runs(self) -> bool:
        """Whether ports and device are its."""
        return self.status is not None or self.daemon_hidden or bool(self.daemon_fails)

    def kinkvpn(self, *words: str) -> str:
        """Our own command, about the same configuration, as it is typed."""
        named = () if self.file == DEFAULT_PATH else ("-c", str(self.file))
        return shlex.join(["kinkvpn", *words, *named])

    def in_full(self) -> str:
        """This look again, by somebody who may see everything."""
        return f"sudo {self.kinkvpn('doctor', *filter(None, [self.gateway]))}"

    @property
    def from_file(self) -> bool:
        """Whether there is a configuration that somebody has written, as for ``kinkvpn up`` on a host of theirs."""
        return self.configuration is not None and not self.gateway

    def setting(self, section: str, line: str) -> Setting | None:
        """A line for that table, in whichever of the files it is; for a new one of the first, where there is none."""
        if not self.from_file:
            return None
        root = read_files(self.file)
        place = root.table(section).location if section in root else str(self.file)
        return Setting(place, f"[{section}]", line)

    def setting_of(self, peer: PeerConfiguration, line: str) -> Setting | None:
        """A line for the table of ``peer``, in whichever of the files that is."""
        if self.configuration is None or not self.from_file:
            return None
        table = read_files(self.file).tables("peer")[self.configuration.peers.index(peer)]
        return Setting(table.location, "[[peer]]", line)


Report: TypeAlias = Callable[[Finding], None]


@dataclass(frozen=True, slots=True)
class Look:
    """One subject.

    Args:
        subject: for a person who waits: "the KDC".
        at: looks, and reports what it finds as it finds it.
        seconds: that it may take.
        needs: subjects that must be free of errors, or there is no point in it.
    """

    subject: str
    at: Callable[[Patient, Report], Awaitable[None]]
    seconds: float = 10.0
    needs: tuple[str, ...] = ()


def in_thread(find: Callable[[Patient], Iterator[Finding]]) -> Callable[[Patient, Report], Awaitable[None]]:
    """A look that blocks. At its deadline it is left alone: libkrb5 and resolvers cannot be interrupted."""

    async def look(patient: Patient, report: Report) -> None:
        token = trio.lowlevel.current_trio_token()

        def run() -> None:
            for finding in find(patient):
                trio.from_thread.run_sync(partial(report, finding), trio_token=token)

        await trio.to_thread.run_sync(run, abandon_on_cancel=True)

    return look


@dataclass(slots=True)
class Examination:
    """All looks at a patient, one after the other.

    Args:
        patient: who.
        begin: told each subject before it is looked at.
    """

    patient: Patient
    begin: Callable[[str], None] = lambda subject: None
    findings: list[Finding] = field(default_factory=list)

    async def run(self, looks: Sequence[Look]) -> list[Finding]:
        """What all of them have found, in their order."""
        failed: set[str] = set()
        for look in looks:
            if failed.isdisjoint(look.needs) and await self._look(look):
                failed.add(look.subject)
        return self.findings

    async def _look(self, look: Look) -> bool:
        """Whether there was an error."""
        self.begin(look.subject)
        found: list[Finding] = []
        with trio.move_on_after(look.seconds) as patience:
            try:
                await look.at(self.patient, found.append)
            except (KinkvpnError, OSError) as failure:  # one thing that cannot be looked at hides no other
                found.append(warning("failed", f"{look.subject}: could not be looked at: {failure}"))
        if patience.cancelled_caught:
            late = f"{look.subject}: no answer within {look.seconds:g} s, so part of it was not looked at"
            found.append(warning("late", late, "what was asked hangs: a resolver, a KDC, a disk"))
        self.findings += found
        return any(finding.severity is Severity.ERROR for finding in found)
