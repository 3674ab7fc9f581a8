"""The SAs an engine runs, those that lanes run and those that the reference engine does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from esp.inbound import InboundSa
from esp.native import _core
from esp.native.sa import NativeInboundSa, NativeOutboundSa, why_not
from esp.sad import Sad

if TYPE_CHECKING:
    from collections.abc import Callable

    from esp.outbound import OutboundSa
    from esp.sa import SaParameters


class NativeSad(Sad):
    """As any SAD; lanes find there what they run.

    Args:
        lanes: which have it.
        library: what seals and opens for a suite, by number; None where none of those that may does.
    """

    def __init__(
        self, random: Callable[[int], bytes], lanes: _core.Core, library: Callable[[SaParameters], int | None]
    ) -> None:
        super().__init__(random)
        self._lanes = lanes
        self._library = library
        self.places: dict[str, _core.Policy] = {}  # by policy
        self.numbered: dict[int, NativeInboundSa | NativeOutboundSa] = {}
        self._foreign: dict[int, _core.Inbound] = {}  # by SPI

    def why_foreign(self, sa: InboundSa | OutboundSa) -> str:
        """Why the reference engine runs ``sa``; empty where lanes do."""
        if isinstance(sa, NativeInboundSa | NativeOutboundSa):
            return ""
        inbound = isinstance(sa, InboundSa)
        return why_not(sa.parameters, inbound=inbound) or f"no library that may has {sa.parameters.suite.name}"

    def _make_inbound(self, parameters: SaParameters, now: float) -> InboundSa:
        library = self._library(parameters)
        if library is None or why_not(parameters, inbound=True):
            return super()._make_inbound(parameters, now)
        return NativeInboundSa(parameters, now, self.unused_ecn, self._lanes, library)

    def _make_outbound(self, parameters: SaParameters, now: float) -> OutboundSa:
        library = self._library(parameters)
        if library is None or why_not(parameters, inbound=False):
            return super()._make_outbound(parameters, now)
        sa = NativeOutboundSa(parameters, now, self._random, self._lanes, library)
        self.numbered[sa.number] = sa
        return sa

    def _open(self, sa: InboundSa) -> None:
        spi = sa.parameters.spi
        before, foreign = self.inbound.get(spi), self._foreign.pop(spi, None)
        super()._open(sa)
        if isinstance(sa, NativeInboundSa):
            self.numbered[sa.number] = sa
            sa.core.serve(self.places[sa.parameters.policy])
            self._lanes.add_inbound(sa.core)
        else:
            known = self._foreign[spi] = _core.Inbound(self._lanes, 0, spi, foreign=True)
            self._lanes.add_inbound(known)
        if isinstance(before, NativeInboundSa):
            del self.numbered[before.number]
        del before, foreign  # lanes know of them no more: the new one is in their place

    def _close(self, sa: InboundSa) -> None:
        super()._close(sa)
        if isinstance(sa, NativeInboundSa):
            del self.numbered[sa.number]
            self._lanes.remove_inbound(sa.core)
        else:
            self._lanes.remove_inbound(self._foreign.pop(sa.parameters.spi))

    def _forget(self, gone: OutboundSa) -> None:
        super()._forget(gone)
        if isinstance(gone, NativeOutboundSa):
            del self.numbered[gone.number]

    def _carry(self, policy: str, sa: OutboundSa | None) -> None:
        super()._carry(policy, sa)
        place = self.places.get(policy)
        if place is not None:
            for lane in range(self._lanes.count):
                place.carry(lane, self._carrier_of(policy, lane))

    def _carrier_of(self, policy: str, lane: int) -> _core.Outbound | None:
        """What ``lane`` seals by: the newest of its own, or else of those that are everybody's (RFC 9611 §4).

        None leaves its packets to Python, which seals by the newest of all, whoever's it is.
        """
        sas = self._outbound.get(policy, [])
        own = [sa for sa in sas if isinstance(sa, NativeOutboundSa) and sa.lane == lane]
        everybodys = [sa for sa in sas if not isinstance(sa, NativeOutboundSa) or sa.lane is None]
        carrier = next(reversed(own or everybodys), None)
        return carrier.core if isinstance(carrier, NativeOutboundSa) else None
