"""The compiled twin of :class:`esp.engine.Engine`: what it does for nearly every packet is done by lanes, in C.

The reference engine stays what decides. It installs, expires, holds and asks; a lane carries what needs no decision,
and leaves all else to it, as if it had not looked: packets without an SA, too large ones, SYNs, fragments where ports
matter, and SAs that ask for what lanes do not have.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

from esp.engine import Engine
from esp.events import CounterExhausted
from esp.fit import Inside
from esp.native import _core
from esp.native.sa import REASONS, NativeInboundSa, NativeOutboundSa
from esp.native.sad import NativeSad
from esp.native.silences import NativeSilences
from esp.policy import Action, Direction
from esp.spd import SelectorMatcher
from esp.statistics import sa_statistics
from esp.tunnel import UNUSED_NAMES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from esp.datagram import Incoming, Outgoing
    from esp.inbound import InboundSa
    from esp.outbound import OutboundSa
    from esp.policy import Policy
    from esp.sa import Endpoint, SaParameters
    from esp.sad import Sad
    from esp.statistics import SaStatistics, Totals

# As enum action has them.
_ACTIONS = {Action.PROTECT: 0, Action.BYPASS: 1, Action.DISCARD: 2}
# What a caller may ask for.
LIBRARIES = {"openssl": _core.OPENSSL, "ipsec-mb": _core.IPSEC_MB}


class NativeEngine(Engine):
    """As any engine; while no loop runs its lanes, it is the caller's thread that does.

    Args:
        random, inside: as for any engine.
        library: ``"auto"`` has each suite done by the faster of those there are, ``"openssl"`` or ``"ipsec-mb"`` by
            that one.
        lanes: how many threads will carry packets.
    """

    _sad: NativeSad
    _silences: NativeSilences

    def __init__(
        self,
        *,
        random: Callable[[int], bytes],
        inside: Inside | None = None,
        library: str = "auto",
        lanes: int = 1,
    ) -> None:
        inside = inside or Inside()
        self.lanes = _core.Core(lanes, clamp=inside.mtu if inside.clamp_mss else 0)
        self._only = None if library == "auto" else LIBRARIES[library]
        self._rules: dict[str, list[_core.Rule]] = {}  # by policy
        self._gone: list[_core.Policy] = []  # which lanes know of as long as they know no other list
        self._unpublished = False  # policies have changed, and lanes do not know
        self._keeps_back = False  # and are not to know yet
        self.running = False  # threads have the lanes: whoever calls does the rest as the reference engine does
        super().__init__(random=random, inside=inside)

    def _make_sad(self, random: Callable[[int], bytes]) -> Sad:
        return NativeSad(random, self.lanes, self.library_for)

    def _make_silences(self) -> NativeSilences:
        return NativeSilences()

    def library_for(self, sa: SaParameters) -> int | None:
        """The number of the library that seals and opens for ``sa``; None where there is none."""
        if self._only is None:
            return _core.preferred(sa.suite)
        return self._only if _core.offered(sa.suite, self._only) else None

    # --- what keying installs ---

    def add_policy(self, policy: Policy) -> None:
        """As of any engine."""
        super().add_policy(policy)
        self._sad.places[policy.name] = _core.Policy(self.lanes, _ACTIONS[policy.action])
        self._rules[policy.name] = self._rules_of(policy)
        self._have_changed()

    def remove_policy(self, name: str) -> None:
        """As of any engine."""
        super().remove_policy(name)
        del self._rules[name]
        self._gone.append(self._sad.places.pop(name))
        self._have_changed()

    def _have_changed(self) -> None:
        self._unpublished = True
        if self.running and not self._keeps_back:
            self.publish()

    @contextmanager
    def unpublished(self) -> Iterator[None]:
        """Lanes know what policies are left at the end of it, and of none of the lists in between."""
        self._keeps_back = True
        try:
            yield
        finally:
            self._keeps_back = False
            if self.running:
                self.publish()

    def _rules_of(self, policy: Policy) -> list[_core.Rule]:
        """Made once: all of them are published each time that one comes or goes."""
        place = self._sad.places[policy.name]
        selectors = policy.selectors if Direction.OUTBOUND in policy.directions else ()
        matchers = [(selector.version, SelectorMatcher(selector, Direction.OUTBOUND)) for selector in selectors]
        return [(place, version, matcher.intervals, matcher.names_opaque) for version, matcher in matchers]

    def publish(self) -> None:
        """Have lanes know the policies, if they have changed."""
        if not self._unpublished:
            return
        self._unpublished = False
        ordered = sorted(self._rules, key=lambda name: self._spd[name].rank)
        rules = list(chain.from_iterable(map(self._rules.__getitem__, ordered)))
        # Once some policy has asked for ports, fragments are followed for good, as in any engine.
        self.lanes.set_policies(rules, self._fragments is not None)
        self._gone.clear()

    # --- packets ---

    def protect(self, packets: Sequence[bytes], now: float) -> list[Outgoing]:
        """As of any engine; while loops run the lanes, for what they have left."""
        if self.running:
            return super().protect(packets, now)
        self.publish()
        sealed: list[Outgoing] = []
        batch, at = list(packets), 0
        while (stop := self.lanes.protect(batch, at, now, sealed)) is not None:
            at, attention, number = stop
            if attention:
                self._look_at_outbound(self._sad.numbered.get(number), attention, now)
            else:
                sealed += super().protect(batch[at : at + 1], now)
                at += 1
        return sealed

    def _look_at_outbound(self, sa: NativeInboundSa | NativeOutboundSa | None, attention: int, now: float) -> None:
        """What a lane has noticed of ``sa``, which may have gone since."""
        if not isinstance(sa, NativeOutboundSa):
            return
        sa.core.clear(attention & ~_core.EXHAUSTED)  # that one is told once
        if attention & _core.EXHAUSTED:
            self._events.put(CounterExhausted(sa.parameters.policy, sa.parameters.spi))
        if attention & _core.LARGE:
            self._tell_large(sa, now)
        if attention & _core.SILENCE:
            self._silences.wait(sa.silence)
        if attention & _core.ALARM:
            self._expire(sa, now)

    def unprotect(self, datagrams: Sequence[Incoming], now: float) -> list[bytes]:
        """Likewise."""
        if self.running:
            return super().unprotect(datagrams, now)
        packets: list[bytes] = []
        batch, at = list(datagrams), 0
        while (stop := self.lanes.unprotect(batch, at, now, packets)) is not None:
            at, attention, number = stop
            if not attention:
                packets += super().unprotect(batch[at : at + 1], now)
                at += 1
                continue
            sa = self._sad.numbered.get(number)
            if isinstance(sa, NativeInboundSa):
                if attention & _core.CLAMP:
                    packets[-1] = self._clamped(packets[-1], sa)
                self._look_at_inbound(sa, attention, batch[at - 1].source, now)
        return packets

    def look_at(self, number: int, attention: int, source: Endpoint, now: float) -> None:
        """What a loop has noticed of an SA, by its number.

        Args:
            number: of the SA, which may have gone since.
            attention: what it is, :data:`esp.native._core.ALARM` and its like.
            source: where the packet came from, if one did.
            now: seconds.
        """
        sa = self._sad.numbered.get(number)
        if isinstance(sa, NativeInboundSa):
            self._look_at_inbound(sa, attention, source, now)
        elif sa is not None:
            self._look_at_outbound(sa, attention, now)
        elif attention & _core.SILENCE:
            self._silences.wait_for_all()

    def look_at_all(self, now: float) -> None:
        """What loops have noticed of SAs and had no room to tell."""
        for number, sa in list(self._sad.numbered.items()):
            attention = sa.core.attention & ~_core.MOVED
            if attention:
                self.look_at(number, attention, sa.remote, now)

    def clamped(self, packet: bytes, number: int) -> bytes:
        """What a loop has opened and left to us, from the SA of that number.

        A SYN has the MSS that goes through the other way, which no lane may have known.
        """
        sa = self._sad.numbered.get(number)
        return self._clamped(packet, sa) if isinstance(sa, NativeInboundSa) else packet

    def _look_at_inbound(self, sa: NativeInboundSa, attention: int, source: Endpoint, now: float) -> None:
        sa.core.clear(attention)
        if attention & _core.MOVED:
            self._follow(sa, source)
        if attention & _core.ALARM:
            self._expire(sa, now)

    # --- time, and what became of it all ---

    def expire(self, now: float) -> float | None:
        """As of any engine."""
        due = super().expire(now)
        self.lanes.reclaim()
        return due

    def totals(self) -> Totals:
        """As of any engine; with what lanes have counted."""
        for position, packets in self.lanes.take_drops().items():
            self._accounts.count(REASONS[position], packets)
        for pair, packets in self.lanes.take_unused_ecn().items():
            self._sad.unused_ecn[UNUSED_NAMES[pair]] += packets
        self._accounts.add(*self.lanes.take_traffic())
        return super().totals()

    def _statistics_of(self, sa: InboundSa | OutboundSa) -> SaStatistics:
        if isinstance(sa, NativeInboundSa | NativeOutboundSa):
            for position, packets in sa.core.take_drops().items():
                sa.drops[REASONS[position]] += packets
        made = sa_statistics(sa)
        why = self._sad.why_foreign(sa)
        return replace(made, engine_reason=why) if why else made
