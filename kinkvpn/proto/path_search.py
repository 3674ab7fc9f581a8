"""How large a packet the path to a peer carries, found by trying (RFC 8899, RFC 4821): for where ICMP does not get
through, and no ICMP that anybody could forge is needed.

What tries a size is a STATUS on the ESP port, the way that ESP goes, filled up to it by a notify that says nothing
(docs/extensions.md) and sent with DF; its REPLY proves the size. Three transmissions that are not answered say that the
size does not go through, or that the peer is not there: a STATUS that may be fragmented tells the one from the other.

Packets drive it. As long as no large ones leave, nothing is tried; while they do, the size in use is tried again every
few seconds, and a larger one now and then. RFC 8899's states are: BASE while ``octets`` is None, SEARCHING while a
larger size is under way, SEARCH_COMPLETE otherwise. Its ERROR state is left to ICMP and to liveness: a path that does
not carry BASE_PLPMTU is met by no protocol that has Kerberos tickets in its messages.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from esp.mtu import outer_octets
from kinkvpn.proto.events import ConfirmPath, Count, Path, Tally, Tell
from kinkvpn.proto.outcome import Cause, Failed
from kinkvpn.proto.status import StatusCommand, Trial

if TYPE_CHECKING:
    from collections.abc import Callable

    from kinkvpn.proto.acquaintance import Ourselves
    from kinkvpn.proto.contact import Contact
    from kinkvpn.proto.events import Effect
    from kinkvpn.proto.initiator import Initiator
    from kinkvpn.proto.settings import PeerSettings

# Specification. RFC 8899 §5.1.2: BASE_PLPMTU, 1,200 octets of IPv4; IPv6 carries 1,280 everywhere (RFC 8200 §5).
BASE = {4: 1200, 6: 1280}
# RFC 8899 §5.1.1: PMTU_RAISE_TIMER, seconds until larger sizes are tried again.
RAISE_SECONDS = 600.0
# IP header, UDP header and non-ESP marker (RFC 3948 §2.2) in front of the message.
_IN_FRONT = {4: 32, 6: 52}

_BLOCK = 8  # of the enctypes that have one, octets (RFC 3961 §6.3)

# Ours. Sizes worth a trial, octets of IP: tunnels in tunnels, WireGuard and GRE on Ethernet, PPPoE, Ethernet, and those
# of jumbo frames (RFC 8899 §5.3.2 leaves the choice). Between two of them there is little to be had.
SIZES = (1280, 1360, 1400, 1420, 1440, 1460, 1480, 1492, 1500, 2000, 4000, 8000, 9000)
# Ours. A path that has become narrower, without a word, is noticed after so many seconds of traffic and the patience
# below; a trial costs both hosts a millisecond.
CONFIRM_SECONDS = 5.0
# Ours. Three transmissions, after 0, 0.5 and 1.5 seconds (RFC 8899 §5.1.2: MAX_PROBES is 3), and a second for the last.
PATIENCE = 2.5
# Ours. After a STATUS that may be fragmented has not been answered either: whether the peer lives is not asked here.
REST_SECONDS = 60.0


class PathSearch:
    """The path to one peer; at most one trial at a time.

    Args:
        settings: the peer's.
        contact: where it is.
        ourselves: how large a packet may leave at all.
        begin: sends a command of ours.
    """

    def __init__(
        self,
        settings: PeerSettings,
        contact: Contact,
        ourselves: Ourselves,
        begin: Callable[[StatusCommand], list[Effect]],
    ) -> None:
        self.settings = settings
        self._contact = contact
        self._ourselves = ourselves
        self._begin = begin
        self._command: StatusCommand | None = None
        self._forget("")

    def _forget(self, address: str) -> None:
        self._address = address
        self.octets: int | None = None  # that have been seen to go through; None while nothing has been tried
        self._ceiling = 0
        self._tried = 0  # by the trial under way
        self._lost: float = inf  # the least that does not go through, as far as is known
        self._next_at = self._raise_at = -inf
        self._command = None

    def used(self, now: float) -> list[Effect]:
        """A large packet has left for the peer."""
        where = self._contact.whereabouts
        if not self.settings.tries_path or not where.known:
            return []
        if where.esp.address != self._address:
            self._forget(where.esp.address)
        if self._command is not None or now < self._next_at:
            return []
        self._next_at = now + CONFIRM_SECONDS
        self._ceiling = ceiling = self._widest() & ~3  # messages are of whole words (RFC 4430 §4)
        if ceiling <= self._base:
            return []
        if self.octets is None or self.octets > ceiling:
            self._lost = inf
            return self._try(ceiling)
        if self.octets < ceiling and now >= self._raise_at:
            self._lost = inf
            return self._search(now)
        return self._try(self.octets) if self.octets > self._base else []

    def narrowed(self, address: str, octets: int, now: float) -> list[Effect]:
        """ICMP or the kernel says that the path to ``address`` carries no more than ``octets``, and is believed."""
        if address != self._address:
            return []
        octets &= ~3
        if self._command is not None and octets < self._tried:
            self._command = None  # whatever comes of it is of a path that has been
        self.octets = octets if self.octets is None else min(octets, self.octets)
        self._lost, self._raise_at = octets + 4, now + RAISE_SECONDS
        return []

    def owns(self, command: StatusCommand) -> bool:
        """Whether ``command`` tries, or has tried, a path."""
        return command.trial is not None

    def concluded(self, command: StatusCommand, exchange: Initiator, now: float) -> list[Effect]:
        """A trial has come to its end."""
        if command is not self._command or self._contact.whereabouts.esp.address != self._address:
            return []
        self._command = None
        answered = exchange.peer_epoch is not None
        silent = isinstance(exchange.outcome, Failed) and exchange.outcome.cause is Cause.SILENCE
        if not answered and not silent:
            self._next_at = now + REST_SECONDS  # no ticket, no trial
            return []
        if not self._tried:
            return self._asked(answered, now)
        if not command.shortest:
            # Kerberos has the message longer than that: no trial of this size is to be had.
            self._next_at, self._raise_at = now + RAISE_SECONDS, now + RAISE_SECONDS
            return []
        return self._went(command.shortest + _IN_FRONT[self._version], now) if answered else self._stayed(now)

    def _went(self, octets: int, now: float) -> list[Effect]:
        """``octets`` go through."""
        again = self.octets is not None and self._tried <= self.octets
        found = self._found(octets)
        return found if again else [*found, *self._search(now)]

    def _found(self, octets: int, *, warning: bool = False) -> list[Effect]:
        news = octets != self.octets
        self.octets = octets
        fields = (("peer", self.settings.name), ("address", self._address), ("octets", octets))
        told = [Tell("path_found", fields, warning=warning)] if news else []
        return [*told, ConfirmPath(self._address, octets)]

    def _stayed(self, now: float) -> list[Effect]:
        """The size that was tried does not go through."""
        self._lost = min(self._lost, self._tried)
        if self.octets is not None and self._tried > self.octets:
            return self._search(now)
        return self._try(0)

    def _asked(self, answered: bool, now: float) -> list[Effect]:
        """Whether the peer is there: else its silence says nothing of sizes."""
        if not answered:
            self._next_at = now + REST_SECONDS
            return []
        hole = [] if self.octets is None else [Count(Tally.PATH_BLACK_HOLES)]
        return [*hole, *self._found(self._base, warning=bool(hole)), *self._search(now)]

    def _search(self, now: float) -> list[Effect]:
        """Try a larger size than the one in use: first the largest, then those halfway between what went and what did
        not. Nothing where they have come together.
        """
        assert self.octets is not None
        # A cipher with blocks may fill a message to a few octets less than was asked for: as good as all of it.
        most = min(self._ceiling, self._lost - 1)
        left = [each for each in (*SIZES, self._ceiling) if self.octets + _BLOCK <= each <= most]
        if not left:
            self._raise_at = now + RAISE_SECONDS
            return []
        left.sort()
        return self._try(left[-1] if self._lost == inf else left[len(left) // 2])

    def _try(self, octets: int) -> list[Effect]:
        """Try ``octets``; 0 asks, in fragments if need be, whether the peer answers such a message at all."""
        path = Path(self._contact.whereabouts.esp, marked=True)
        self._tried = octets
        trial = Trial(path, (octets or self._base) - _IN_FRONT[self._version], whole=bool(octets))
        self._command = StatusCommand(PATIENCE, trial)
        return [Count(Tally.PATHS_PROBED), *self._begin(self._command)]

    def _widest(self) -> int:
        """Octets of the largest IP packet that leaves for the peer: as wide as the interface is, and no wider than what
        the device has room for.
        """
        widest = self._ourselves.path_mtu(self._address)
        inner = self._ourselves.inner_mtu
        if inner is None:
            return widest
        sizes = (
            outer_octets(suite, policy.mode, policy.encapsulation, self._version, inner, policy.protocol)
            for policy in self.settings.policies
            for suite in policy.suites
        )
        return min(widest, max(sizes, default=widest))

    @property
    def _version(self) -> int:
        return 6 if ":" in self._address else 4

    @property
    def _base(self) -> int:
        return BASE[self._version]
