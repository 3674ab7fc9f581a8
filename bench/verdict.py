"""What passed in a soak, what was dropped, and what of it must not be."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from esp.errors import DropReason

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.relay import Odds, Passed

# A full queue drops; the senders inside slow down. Everything else that a gateway drops here is a defect.
OF_LOAD: Final = frozenset({DropReason.LINK_REFUSED.value})
REPLAYED: Final = DropReason.REPLAYED.value
# What comes and is not opened; what is dropped later has been counted as opened.
NOT_OPENED: Final = frozenset(
    reason.value
    for reason in (
        *(DropReason.MALFORMED, DropReason.UNKNOWN_SPI, DropReason.REPLAYED, DropReason.TOO_OLD),
        *(DropReason.AUTHENTICATION_FAILED, DropReason.BAD_PADDING, DropReason.BAD_NEXT_HEADER),
        *(DropReason.CE_ON_NOT_ECT, DropReason.SELECTOR_MISMATCH),
    )
)


@dataclass(frozen=True, slots=True)
class Flow:
    """One direction and IP version: TCP, with CRC-32 of each connection at both ends, and UDP.

    Args:
        altered: the first octet that another came for, of each connection that has one.
        failures: why connections broke.
        datagrams, ...: sent, received as they were sent, altered, received again, received after a later one.
    """

    source: str
    target: str
    version: int
    octets_sent: int
    octets_received: int
    sent_crc: tuple[str, ...]
    received_crc: tuple[str, ...]
    altered: tuple[int, ...]
    retransmissions: int
    failures: tuple[str, ...]
    datagrams: int
    datagrams_received: int
    datagrams_altered: int
    datagrams_repeated: int
    datagrams_reordered: int

    @property
    def name(self) -> str:
        return f"{self.source} to {self.target}, IPv{self.version}"

    def faults(self) -> list[str]:
        """In words."""
        found = [f"{self.name}: {failure}" for failure in self.failures]
        found += [f"{self.name}: octet {place} of a connection is another one" for place in self.altered]
        if not self.failures and self.octets_sent != self.octets_received:
            found.append(f"{self.name}: {self.octets_sent} octets sent, {self.octets_received} received")
        if not self.failures and self.sent_crc != self.received_crc:
            found.append(f"{self.name}: CRC-32 {self.sent_crc} sent, {self.received_crc} received")
        if self.datagrams_altered:
            found.append(f"{self.name}: {self.datagrams_altered} datagrams are not as they were sent")
        if self.datagrams_repeated:
            found.append(f"{self.name}: {self.datagrams_repeated} datagrams came again")
        return found


@dataclass(frozen=True, slots=True)
class Gateway:
    """One daemon.

    Args:
        engines: whose its SAs are.
        creates: CREATEs of its own that were completed: the first one, and new keys.
        packets_out, packets_in: sealed and sent or refused; opened.
        drops: by reason.
        overruns: datagrams that its socket had no room for, as far as the kernel counts them (a run may count as one).
        tun_overruns: packets that its TUN device had no room for.
    """

    name: str
    engines: tuple[str, ...]
    creates: int
    packets_out: int
    packets_in: int
    drops: Mapping[str, int]
    overruns: int
    tun_overruns: int

    def faults(self, repeated: int) -> list[str]:
        """In words; the path has sent it ``repeated`` packets a second time."""
        allowed = dict.fromkeys(OF_LOAD, self.packets_out) | {REPLAYED: repeated}
        return [
            f"{self.name} dropped {count} packets: {reason}" + (f", {allowed[reason]} at most" if repeated else "")
            for reason, count in self.drops.items()
            if count > allowed.get(reason, 0)
        ]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of a run.

    Args:
        gateways: a and b.
        passed: what the path did from a to b, and back; None of one that makes no faults.
        rekeys, rekeys_failed: that were asked for; of both IP versions at once.
        seconds: from the first octet to the last of TCP.
    """

    flows: tuple[Flow, ...]
    gateways: tuple[Gateway, Gateway]
    passed: tuple[Passed, Passed] | None
    rekeys: int
    rekeys_failed: int
    seconds: float

    @property
    def gbit_per_s(self) -> float:
        """Of TCP payload, both ways together."""
        return sum(flow.octets_received for flow in self.flows) * 8e-9 / self.seconds

    def unaccounted(self) -> tuple[int, int]:
        """Packets from a to b, and back, that were sealed and neither refused, lost on the path, opened nor dropped.

        Below 0 it is packets that came and were not sent.
        """
        a, b = self.gateways
        return self._unaccounted(a, b, way=0), self._unaccounted(b, a, way=1)

    def _unaccounted(self, source: Gateway, target: Gateway, *, way: int) -> int:
        return (
            source.packets_out
            - source.drops.get(DropReason.LINK_REFUSED.value, 0)
            - (self.passed[way].lost - self.passed[way].repeated if self.passed else 0)
            - target.overruns
            - target.packets_in
            - sum(count for reason, count in target.drops.items() if reason in NOT_OPENED)
        )

    def faults(self, *, odds: Odds, rekeyed: bool) -> list[str]:
        """All that is wrong, in words; none where the tunnel is right.

        Args:
            odds: of the path.
            rekeyed: new keys were to come about.
        """
        found = [fault for flow in self.flows for fault in flow.faults()]
        repeated = [way.repeated for way in self.passed] if self.passed else [0, 0]
        for gateway, again in zip(self.gateways, reversed(repeated), strict=True):
            found += gateway.faults(again)
        for gateway, packets in zip(reversed(self.gateways), self.unaccounted(), strict=True):
            if packets and not self._overrun(gateway):
                found.append(f"of {packets} packets to {gateway.name} it is not known what became")
        if rekeyed and not self.rekeys:
            found.append("no rekey came about")
        if self.rekeys_failed and not odds:
            found.append(f"{self.rekeys_failed} rekeys failed")
        return found

    def _overrun(self, gateway: Gateway) -> bool:
        """Whether queues on the way to it were full: a run of packets may count as one there, and KINK's count too."""
        return bool(gateway.overruns or (self.passed and any(way.overrun or way.refused for way in self.passed)))

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"gbit_per_s": round(self.gbit_per_s, 3), "unaccounted": self.unaccounted()}
