"""Where a peer is: as configured, until it was authentically heard elsewhere. No effects, no packets, no decisions
about SAs.

Addresses change: a host moves, a NAT forgets a mapping and makes another. What moves a peer here is authentic and
newer than what was heard before: a command under a fresh authenticator, the answer to a command of ours, or an ESP
packet beyond the replay window's top (the engine says so). A datagram that was late or kept back moves nothing.
"""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from math import inf
from typing import TYPE_CHECKING

from esp.sa import Encapsulation, Endpoint
from kinkvpn.proto.events import InstallInbound, InstallOutbound, Path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kinkvpn.proto.events import Effect

# RFC 3948 §4: a NAT keeps a mapping for UDP that long at least. Only the ESP port's is kept alive by us (§2.3); what
# was heard through another one is a dead end after it.
MAPPING_SECONDS = 20.0
# Ours. The authenticator of a late command is older than the newest one that was seen, unless the peer's clock was set
# back meanwhile. After twice the skew that Kerberos allows no older one is accepted any more, whatever clock made it.
ORDER_KEPT = 600.0
# Ours. The newest place and the one before: where a peer was two moves ago nobody answers.
MAX_LEARNT = 2
# Ours. Transmissions to the likeliest place before the others have a turn: half a second and one more are given to a
# datagram that was lost on a path that works.
FIRST_CHOICE = 2


class KinkOver(Enum):
    """How KINK reaches a peer: named by the registered ports, whatever numbers are configured."""

    AUTO = "auto"  # 910, and 4500 where that stays silent or a NAT is known
    KINK_PORT = "910"  # RFC 4430 §9
    ESP_PORT = "4500"  # behind the non-ESP marker (RFC 3948 §2.2)


class Whereabouts:
    """Where one peer can be reached.

    Args:
        kink, esp: as configured; an empty address where none is, for a peer that has to be heard first.
        over: how KINK goes there.
    """

    def __init__(self, kink: Endpoint, esp: Endpoint, over: KinkOver = KinkOver.AUTO) -> None:
        self.esp = esp
        self.behind_nat = False  # whether this host is, as that peer sees it
        self._kink = kink
        self._configured_esp = esp
        self.over = over
        self._learnt: tuple[Path, ...] = ()  # the newest first
        self._heard_at = -inf
        self._newest: tuple[int, int] = (0, 0)
        self._newest_at = -inf

    def go_over(self, over: KinkOver) -> None:
        """That way from now on; where the peer was heard by another is forgotten."""
        self.over = over
        if over is not KinkOver.AUTO:
            self._learnt = tuple(path for path in self._learnt if path.marked is (over is KinkOver.ESP_PORT))

    @property
    def known(self) -> bool:
        """Whether there is anywhere to send to."""
        return bool(self.esp.address)

    @property
    def elsewhere(self) -> bool:
        """Whether ESP goes to another place than the configured one."""
        return self.esp != self._configured_esp

    def paths(self, now: float) -> tuple[Path, ...]:
        """Where a command may reach the peer, the likeliest first; none while it is not known where it is."""
        found: dict[tuple[Endpoint, bool], Path] = {}
        for path in (*self._learnt, *self._conjectured()):
            found.setdefault((path.remote, path.marked), path)
        return tuple(sorted(found.values(), key=lambda path: self._doubtful(path, now)))

    def _conjectured(self) -> Iterator[Path]:
        if not self.known:
            return
        if self.over is not KinkOver.ESP_PORT and self._kink.address:
            yield Path(self._kink)
        if self.over is not KinkOver.KINK_PORT:
            yield Path(self.esp, marked=True)
            if self._configured_esp.address:
                yield Path(self._configured_esp, marked=True)

    def _doubtful(self, path: Path, now: float) -> bool:
        """Whether a NAT is in the way of it, on one side or the other, and nobody keeps its mapping alive."""
        if path.marked or self.over is not KinkOver.AUTO:
            return False
        return self.behind_nat or (path.remote != self._kink and now >= self._heard_at + MAPPING_SECONDS)

    def path(self, transmission: int, now: float) -> Path:
        """Where the transmission of that number (from 1) goes: the likeliest place twice, then all of them in turn."""
        paths = self.paths(now)
        return paths[max(transmission - FIRST_CHOICE, 0) % len(paths)]

    def place(self, effects: list[Effect]) -> list[Effect]:
        """``effects`` with the SAs among them where the peer is now, and not where it was configured to be."""
        return [
            self._there(effect) if isinstance(effect, InstallInbound | InstallOutbound) else effect
            for effect in effects
        ]

    def _there(self, install: InstallInbound | InstallOutbound) -> Effect:
        udp = install.sa.encapsulation is Encapsulation.UDP
        remote = self.esp if udp else Endpoint(self.esp.address, 0)
        # Almost always it is there already, and four new objects a CREATE would say the same.
        return install if install.sa.remote == remote else replace(install, sa=replace(install.sa, remote=remote))

    # ------------------------------------------------------------ what was heard, authentic all of it

    def heard(self, path: Path, authenticator: tuple[int, int], now: float) -> bool:
        """A command or an ACK came by ``path``; whether that moved the peer's ESP.

        Args:
            path: where it came from.
            authenticator: its ctime and cusec (RFC 4120 §5.5.1), by which commands are put in order.
            now: seconds.
        """
        if authenticator <= self._newest and now < self._newest_at + ORDER_KEPT:
            return False
        self._newest, self._newest_at = authenticator, now
        return self._found(path, now)

    def answered(self, path: Path, since: float, now: float) -> bool:
        """The first REPLY to a command of ours came by ``path``; whether that moved the peer's ESP.

        Args:
            path: where it came from.
            since: first transmission of the command. Whatever was heard later may be newer than the REPLY.
            now: seconds.
        """
        return since >= self._heard_at and self._found(path, now)

    def esp_moved(self, endpoint: Endpoint, now: float) -> None:
        """The newest ESP packet came from ``endpoint``: KINK can go there as well, unless that was raw ESP (port 0)."""
        self._heard_at = now
        if not endpoint.port:
            if endpoint.address != self.esp.address:
                self.esp = Endpoint(endpoint.address, self._configured_esp.port)
            return
        self.esp = endpoint
        if self.over is not KinkOver.KINK_PORT:
            self._learn(Path(endpoint, marked=True))

    def _found(self, path: Path, now: float) -> bool:
        before = self.esp
        if path.marked:
            self.esp = path.remote
        elif path.remote.address != self.esp.address:
            # What its ESP port looks like from here its first ESP packet will tell; until then, as configured.
            self.esp = Endpoint(path.remote.address, self._configured_esp.port)
        self._heard_at = now
        self._learn(path)
        return self.esp != before

    def _learn(self, path: Path) -> None:
        others = [one for one in self._learnt if (one.remote, one.marked) != (path.remote, path.marked)]
        self._learnt = (path, *others)[:MAX_LEARNT]
