"""What an engine has done, in numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from esp.inbound import AggregatedInboundSa, InboundSa

if TYPE_CHECKING:
    from esp.errors import DropReason
    from esp.outbound import OutboundSa
    from esp.sa import Endpoint


@dataclass(frozen=True, slots=True)
class SaStatistics:
    """What one SA has done. ``octets`` are those the cipher was applied to; ``sequence`` is the newest number.

    ``largest``, of an outbound SA: octets of the largest inner packet that fits the path, as far as that is known;
    ``padded``: the size that smaller ones are padded to, 0 if none.

    With IP-TFS (RFC 9347), else 0: ``lost`` payloads of an inbound SA did not come, or too late to be of use; those of
    an outbound SA have ``payload_octets`` now.

    ``engine``: whose the SA is, "native" or "portable"; where the compiled engine runs and has left one to the portable
    one, ``engine_reason`` says why.
    """

    policy: str
    spi: int
    inbound: bool
    suite: str
    remote: Endpoint
    packets: int
    octets: int
    sequence: int
    drops: dict[DropReason, int]
    lost: int = 0
    payload_octets: int = 0
    largest: int = 0
    padded: int = 0
    engine: str = "portable"
    engine_reason: str = ""


@dataclass(slots=True)
class Carried:
    """What the SAs of one policy have carried together, those that have gone included, so that no rekey takes it back.

    ``octets`` are those the cipher was applied to, ``lost`` payloads of the peer's with IP-TFS.
    """

    packets_in: int = 0
    octets_in: int = 0
    packets_out: int = 0
    octets_out: int = 0
    lost: int = 0

    def add(self, sa: InboundSa | OutboundSa) -> None:
        """Add what ``sa`` has done."""
        if isinstance(sa, InboundSa):
            self.packets_in += sa.packets
            self.octets_in += sa.octets
            self.lost += sa.lost if isinstance(sa, AggregatedInboundSa) else 0
        else:
            self.packets_out += sa.packets
            self.octets_out += sa.octets


@dataclass(frozen=True, slots=True)
class PolicyStatistics:
    """Those of one policy: its SAs, the newest last, what all it has had carried, and packets that wait, for an SA or
    for their turn at a constant rate.
    """

    sas: tuple[SaStatistics, ...]
    carried: Carried
    held: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What the engine has done since it was made; ``octets`` are those of inner packets.

    ``packets_out`` were sealed, each piece of one that was cut by itself, ``packets_in`` opened and let pass. ``drops``
    has every packet that was not delivered once: those of the SAs, and of the sealed and the opened those that the link
    and the TUN then refused.
    """

    packets_out: int
    octets_out: int
    packets_in: int
    octets_in: int
    drops: dict[DropReason, int]
    events_lost: int
    # Combinations of inner and outer ECN field that nobody should make (RFC 6040 §4.2), dropped or not.
    unused_ecn: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics(Totals):
    """The same, with every SA and every policy: of thousands that takes a while."""

    sas: tuple[SaStatistics, ...]
    held: dict[str, int]  # packets that wait, for an SA or for their turn at a constant rate, by policy
    carried: dict[str, Carried] = field(default_factory=dict)  # by policy, as far as it has had an SA


def sa_statistics(sa: InboundSa | OutboundSa) -> SaStatistics:
    """Those of ``sa`` as they are now; a copy."""
    confidentiality = None if isinstance(sa, InboundSa) else sa.parameters.confidentiality
    return SaStatistics(
        policy=sa.parameters.policy,
        spi=sa.parameters.spi,
        inbound=isinstance(sa, InboundSa),
        suite=sa.parameters.suite.name,
        remote=sa.remote,
        packets=sa.packets,
        octets=sa.octets,
        sequence=sa.sequence,
        drops=dict(sa.drops),
        lost=sa.lost if isinstance(sa, AggregatedInboundSa) else 0,
        payload_octets=0 if isinstance(sa, InboundSa) or sa.rate is None else sa.rate.octets,
        largest=0 if isinstance(sa, InboundSa) else sa.largest,
        padded=0 if confidentiality is None else confidentiality.octets,
        engine=sa.engine,
    )
