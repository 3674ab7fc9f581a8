"""DELETE, both halves (RFC 4430 §3.3, §6.4). The SPIs in it are always the sender's inbound ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from esp.sa import SecurityProtocol
from kinkvpn.proto.proposal import PROTOCOLS
from kinkvpn.proto.quick_mode import RequestFailed, notify_name
from kinkvpn.wire.ipsec_doi import NotifyType, Protocol
from kinkvpn.wire.isakmp import Delete, IsakmpPayload, Notify
from kinkvpn.wire.kink import Isakmp, KinkPayload, MessageType

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from kinkvpn.proto.events import Effect
    from kinkvpn.proto.ports import SessionKey
    from kinkvpn.proto.quick_mode import SaPair

# Ours. One DELETE can name 16,000 SPIs, of which none need exist; a REPLY holds some thirty payloads. A peer that
# deletes that many at once and knows none of them learns enough from the first sixteen.
MAX_NOTIFIES = 16


# Ours. Pairs that one DELETE takes along: 64 SPIs are 256 octets, which leaves the command in one frame.
MAX_DOOMED = 64


class Doomed(NamedTuple):
    """A pair to delete.

    Args:
        policy: what it served, or what to call an SPI that is none's.
        spi: inbound, ours.
        ends: when the peer's SAs end by themselves at the latest.
        stood: whether the pair ever did, as far as we know.
        protocol: of its SAs.
    """

    policy: str
    spi: int
    ends: float
    stood: bool = True
    protocol: SecurityProtocol = SecurityProtocol.ESP

    @classmethod
    def of(cls, pair: SaPair) -> Doomed:
        """What is to be said of ``pair``."""
        return cls(pair.policy, pair.inbound_spi, pair.established + pair.lifetime, protocol=pair.protocol)


class DeleteCommand:
    """The initiator's half: pairs, named by our inbound SPIs.

    Our outbound SAs are gone before this is sent; the inbound ones stay until the answer and the grace time are in, so
    that packets in flight still arrive ("pessimistic", RFC 4430 §3.3).

    Args:
        doomed: at least one.
    """

    type = MessageType.DELETE

    def __init__(self, *doomed: Doomed) -> None:
        self.doomed = doomed

    @property
    def subject(self) -> str:
        """What the command is about, for the operator."""
        return ", ".join(dict.fromkeys(pair.policy for pair in self.doomed))

    def payloads(self) -> tuple[KinkPayload, ...]:
        """One Delete payload (RFC 2408 §3.15) for all of a protocol."""
        return (Isakmp(tuple(_deletes((pair.protocol, pair.spi) for pair in self.doomed))),)

    def begin(self, _key: SessionKey, _now: float) -> list[Effect]:
        """Nothing to prepare."""
        return []

    def complete(
        self, answers: tuple[tuple[IsakmpPayload, ...], ...], *, ackreq: bool, key: SessionKey, now: float
    ) -> list[Effect]:
        """A Delete with the twins, or INVALID-SPI: either way the peer has nothing left of the pairs.

        Raises:
            RequestFailed: any other error notify.
        """
        del ackreq, key, now
        payloads = [payload for answer in answers for payload in answer]
        for payload in payloads:
            if isinstance(payload, Delete):
                return []
            if isinstance(payload, Notify) and payload.type == NotifyType.INVALID_SPI:
                return []
        raise RequestFailed(
            "the peer answers "
            + (", ".join(notify_name(p.type) for p in payloads if isinstance(p, Notify)) or "without a Delete payload")
        )

    def withdraw(self) -> list[Effect]:
        """Nothing to undo: the inbound SA is the peer machine's to remove."""
        return []


def answer_delete(
    payloads: tuple[IsakmpPayload, ...], pairs: Mapping[int, SaPair]
) -> tuple[tuple[KinkPayload, ...], list[SaPair]]:
    """What to answer, and which pairs are to go.

    Args:
        payloads: of the DELETE.
        pairs: the peer's pairs by our outbound SPI, which is the peer's inbound one.
    """
    gone: list[SaPair] = []
    unknown: list[IsakmpPayload] = []
    deletes = [payload for payload in payloads if isinstance(payload, Delete)]
    for payload in deletes:
        for spi in payload.spis:
            pair = pairs.get(int.from_bytes(spi, "big"))
            if pair is None or payload.protocol != PROTOCOLS[pair.protocol]:
                unknown.append(Notify(payload.protocol, spi, NotifyType.INVALID_SPI))
            elif pair not in gone:
                gone.append(pair)
    answers: list[IsakmpPayload] = [*_deletes((pair.protocol, pair.inbound_spi) for pair in gone)]
    answers += unknown[:MAX_NOTIFIES]
    if not deletes:
        answers.append(Notify(Protocol.ESP, b"", NotifyType.PAYLOAD_MALFORMED))
    return (Isakmp(tuple(answers)),), gone


def _deletes(spis: Iterable[tuple[SecurityProtocol, int]]) -> Iterator[Delete]:
    """A payload for each protocol of ``spis``, in the order in which they come."""
    found: dict[SecurityProtocol, list[bytes]] = {}
    for protocol, spi in spis:
        found.setdefault(protocol, []).append(spi.to_bytes(4, "big"))
    for protocol, octets in found.items():
        yield Delete(PROTOCOLS[protocol], tuple(octets))
