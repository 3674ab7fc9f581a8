"""The SAs an engine runs, and where to find them (RFC 4301 §4.4.2)."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from heapq import heapify, heappop, heappush
from itertools import chain
from math import inf
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.constant_time import bytes_eq

from esp.errors import EspError, InvalidSa, UnknownSa
from esp.inbound import AggregatedInboundSa, InboundSa, make_inbound
from esp.outbound import make_outbound
from esp.sa import SPI_MIN
from esp.statistics import Carried
from esp.wire import ESP_HEADER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from esp.outbound import OutboundSa
    from esp.sa import SaParameters

# Ours. With half of all SPIs taken, 64 draws fail once in 2^64 times: what fails then is the source of randomness.
_SPI_DRAWS = 64
# Ours. Deadlines of SAs that have gone are swept out when there are more of them than of living ones, and these many.
_FEW_DEADLINES = 64
# Ours. An ICMP error about a packet further back than this has been under way for longer than a path lives.
LATELY_PACKETS = 65_536


def _deadline(sa: InboundSa | OutboundSa) -> tuple[float, str, int, bool]:
    return sa.deadline(), sa.parameters.policy, sa.parameters.spi, isinstance(sa, InboundSa)


class Sad:
    """Inbound SAs by SPI; outbound SAs by policy, the newest of which carries its traffic."""

    def __init__(self, random: Callable[[int], bytes]) -> None:
        self._random = random
        self.inbound: dict[int, InboundSa] = {}
        self._inbound_of: defaultdict[str, dict[int, None]] = defaultdict(dict)  # their SPIs by policy, the newest last
        self.carriers: dict[str, OutboundSa] = {}
        self.paced: dict[str, OutboundSa] = {}  # those of them that send by the clock
        self.reassembling: dict[int, AggregatedInboundSa] = {}  # by SPI
        self.unused_ecn: defaultdict[str, int] = defaultdict(int)  # of every inbound SA there was
        self._outbound: dict[str, list[OutboundSa]] = {}  # oldest first, never empty
        self._speaking: dict[int, list[OutboundSa]] = {}  # the same by SPI, which several peers may have chosen
        self._reserved: set[int] = set()
        self._gone: defaultdict[str, Carried] = defaultdict(Carried)  # what SAs that are here no more carried
        # A heap of deadlines and who has them. An SA that goes leaves its own behind, for ``due`` to pass over.
        self._deadlines: list[tuple[float, str, int, bool]] = []
        self._swept = _FEW_DEADLINES

    def all(self) -> Iterable[InboundSa | OutboundSa]:
        """Every SA, as a list that stays as it is."""
        return [*self.inbound.values(), *chain.from_iterable(self._outbound.values())]

    def carried(self) -> dict[str, Carried]:
        """What the SAs of each policy have carried, since the policy was added; a copy."""
        totals = {policy: replace(gone) for policy, gone in self._gone.items()}
        for sa in self.all():
            totals.setdefault(sa.parameters.policy, Carried()).add(sa)
        return totals

    def carried_for(self, policy: str) -> Carried:
        """The same of one of them; a copy."""
        total = replace(self._gone.get(policy, Carried()))
        for sa in self.of_policy(policy):
            total.add(sa)
        return total

    def narrow(self, address: str, octets: int) -> None:
        """What goes to the outer ``address`` is to be IP packets of no more than ``octets``."""
        for sa in self.outbound():
            if sa.remote.address == address:
                sa.narrow(octets)

    def pacing(self, policy: str) -> int:
        """How many packets of ``policy`` wait for their turn at a constant rate."""
        carrier = self.carriers.get(policy)
        return 0 if carrier is None or carrier.rate is None else len(carrier.rate)

    def of_policy(self, policy: str) -> list[InboundSa | OutboundSa]:
        """The SAs of ``policy``, both ways, of each way the newest last."""
        inbound = (self.inbound[spi] for spi in self._inbound_of.get(policy, ()))
        return [*inbound, *self._outbound.get(policy, ())]

    def speaking(self, spi: int) -> Sequence[OutboundSa]:
        """The outbound SAs with this SPI: whoever says that he saw a packet of ours is asked what was on it."""
        return self._speaking.get(spi, ())

    def outbound(self) -> list[OutboundSa]:
        """Every outbound SA."""
        return list(chain.from_iterable(self._outbound.values()))

    def sent_lately(self, address: str, quoted: bytes) -> bool:
        """Whether a packet that begins with ``quoted`` has gone to the outer ``address`` not long ago."""
        if len(quoted) < ESP_HEADER.size:
            return False
        spi, sequence = ESP_HEADER.unpack_from(quoted)
        return any(
            sa.remote.address == address and 0 <= (sa.sequence - sequence) % 2**32 < min(sa.packets, LATELY_PACKETS)
            for sa in self.speaking(spi)
        )

    def due(self, now: float) -> Iterator[InboundSa | OutboundSa]:
        """SAs that have reached a limit by the clock, each once for each limit; the caller asks them which."""
        while self._deadlines and self._deadlines[0][0] <= now:
            _, policy, spi, inbound = heappop(self._deadlines)
            sa = self._find(policy, spi, inbound=inbound)
            if sa is not None and sa.deadline() <= now:
                yield sa
            # Its soft limit has passed, perhaps by packets long ago, and the hard one is to come.
            if sa is not None and self._find(policy, spi, inbound=inbound) is sa:
                self._watch(sa)

    def next_deadline(self) -> float:
        """When ``due`` may have something; infinity when it never will."""
        return self._deadlines[0][0] if self._deadlines else inf

    def _find(self, policy: str, spi: int, *, inbound: bool) -> InboundSa | OutboundSa | None:
        if inbound:
            return self.inbound.get(spi)
        return next((sa for sa in self._outbound.get(policy, ()) if sa.parameters.spi == spi), None)

    def _watch(self, sa: InboundSa | OutboundSa) -> None:
        if sa.deadline() < inf:
            heappush(self._deadlines, _deadline(sa))
        if len(self._deadlines) > self._swept:
            self._deadlines = [_deadline(sa) for sa in self.all() if sa.deadline() < inf]
            heapify(self._deadlines)
            self._swept = 2 * len(self._deadlines) + _FEW_DEADLINES

    def allocate_spi(self) -> int:
        """An SPI that no inbound SA has (RFC 4303 §2.1), kept until it is installed or released."""
        for _ in range(_SPI_DRAWS):
            spi = int.from_bytes(self._random(4))
            if spi >= SPI_MIN and spi not in self.inbound and spi not in self._reserved:
                self._reserved.add(spi)
                return spi
        raise EspError(f"{_SPI_DRAWS} draws gave no free SPI")

    def release_spi(self, spi: int) -> None:
        """Give back an SPI that will not be installed; one that is not kept is none of ours."""
        self._reserved.discard(spi)

    def add_inbound(self, parameters: SaParameters, now: float) -> InboundSa:
        """Install, in place of what has this SPI (RFC 4430 §3.2: the second of a three-way handshake's two keys).

        The window of an SA with the very same keys stays: without it every packet of the past could be replayed. Not
        that of one with the other kind of numbers, whose packets are not authentic here.
        """
        sa = self._make_inbound(parameters, now)
        old = self.inbound.get(parameters.spi)
        if old is not None:
            self._inbound_of[old.parameters.policy].pop(parameters.spi, None)
            if old.parameters.esn is parameters.esn and bytes_eq(old.parameters.keymat, parameters.keymat):
                sa.window = old.window
        self._open(sa)
        if old is not None:
            self._gone[old.parameters.policy].add(old)
        if isinstance(sa, AggregatedInboundSa):
            self.reassembling[parameters.spi] = sa
        self._inbound_of[parameters.policy][parameters.spi] = None
        self._watch(sa)
        self._reserved.discard(parameters.spi)
        return sa

    def add_outbound(self, parameters: SaParameters, now: float) -> OutboundSa:
        """Install as the newest of its policy.

        Raises:
            InvalidSa: the policy has an outbound SA with this SPI. To start its counter again would repeat its IVs.
        """
        sas = self._outbound.get(parameters.policy, [])
        if any(sa.parameters.spi == parameters.spi for sa in sas):
            raise InvalidSa(f"policy {parameters.policy!r} has an outbound SA with SPI {parameters.spi:#010x} already")
        sa = self._make_outbound(parameters, now)
        self._outbound[parameters.policy] = [*sas, sa]
        self._speaking[parameters.spi] = [*self._speaking.get(parameters.spi, ()), sa]
        self._carry(parameters.policy, sa)
        self._watch(sa)
        return sa

    def _make_inbound(self, parameters: SaParameters, now: float) -> InboundSa:
        return make_inbound(parameters, now, self.unused_ecn)

    def _make_outbound(self, parameters: SaParameters, now: float) -> OutboundSa:
        return make_outbound(parameters, now, self._random)

    def _open(self, sa: InboundSa) -> None:
        """Have packets with its SPI go to ``sa`` from now on, and to no other."""
        self.inbound[sa.parameters.spi] = sa
        self.reassembling.pop(sa.parameters.spi, None)

    def _close(self, sa: InboundSa) -> None:
        """Have them go nowhere."""
        del self.inbound[sa.parameters.spi]
        self.reassembling.pop(sa.parameters.spi, None)

    def remove_inbound(self, spi: int) -> InboundSa:
        """Forget an SA and return it.

        Raises:
            UnknownSa: there is none.
        """
        sa = self.inbound.get(spi)
        if sa is None:
            raise UnknownSa(f"no inbound SA with SPI {spi:#010x}")
        self._close(sa)
        self._inbound_of[sa.parameters.policy].pop(spi, None)
        self._gone[sa.parameters.policy].add(sa)
        return sa

    def remove_outbound(self, policy: str, spi: int) -> OutboundSa:
        """Forget an SA and return it; the newest that is left carries on.

        Raises:
            UnknownSa: there is none.
        """
        sas = self._outbound.get(policy, [])
        gone = next((sa for sa in sas if sa.parameters.spi == spi), None)
        if gone is None:
            raise UnknownSa(f"no outbound SA of policy {policy!r} with SPI {spi:#010x}")
        left = [sa for sa in sas if sa is not gone]
        if left:
            self._outbound[policy] = left
        else:
            del self._outbound[policy]
        self._forget(gone)
        self._carry(policy, left[-1] if left else None)
        self._gone[policy].add(gone)
        return gone

    def _forget(self, gone: OutboundSa) -> None:
        spi = gone.parameters.spi
        left = [sa for sa in self._speaking.pop(spi) if sa is not gone]
        if left:
            self._speaking[spi] = left

    def _carry(self, policy: str, sa: OutboundSa | None) -> None:
        """Let ``sa`` have the traffic of ``policy``."""
        before = self.carriers.pop(policy, None)
        self.paced.pop(policy, None)
        if sa is None:
            return
        self.carriers[policy] = sa
        if sa.paced():
            self.paced[policy] = sa
            if before is not None:
                sa.keep_step(before)

    def remove_policy(self, policy: str) -> None:
        """Forget all SAs that serve ``policy``."""
        for spi in self._inbound_of.pop(policy, ()):
            self._close(self.inbound[spi])
        for sa in self._outbound.pop(policy, ()):
            self._forget(sa)
        self._carry(policy, None)
        self._gone.pop(policy, None)
