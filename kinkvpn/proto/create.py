"""CREATE, both halves: any number of Quick Modes in one command, each granted or refused by itself (RFC 4430 §6.3).

Each has a KINK_ISAKMP payload of its own (§4.2.6), and the REPLY answers them in the same order, by an SA payload or
by a notify in its place: nothing else in a refusal says which one it is about.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from kinkvpn.proto.delete import Doomed
from kinkvpn.proto.events import Count, Effect, Tally
from kinkvpn.proto.outcome import Cause, Completed, Failed
from kinkvpn.proto.proposal import Refused
from kinkvpn.proto.quick_mode import (
    AnswerUnusable,
    KeyExchangeRefused,
    QuickMode,
    QuickModeAnswer,
    RequestFailed,
    SaPair,
    Unanswered,
    answer_quick_mode,
)
from kinkvpn.wire.ipsec_doi import NotifyType, Protocol
from kinkvpn.wire.isakmp import IsakmpPayload, KeyExchange, Notify, SecurityAssociation
from kinkvpn.wire.kink import Isakmp, KinkPayload, MessageType, build_plaintext

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Container, Iterable, Sequence

    from kinkvpn.proto.ports import KeyExchange as KeyExchangeSource
    from kinkvpn.proto.ports import SessionKey
    from kinkvpn.proto.settings import PeerSettings

# Ours. What one CREATE may ask for and is granted at most: beyond that the work of one datagram, 0.2 ms for each pair,
# would keep everybody else waiting, and everything that hangs on one datagram would wait for its retransmission.
MAX_QUICK_MODES = 16
# Ours. A CREATE in one frame is lost as one frame, and passes where fragments do not: of 1,500 octets the IPv6, UDP
# and KINK headers, an AP-REQ without a PAC (some 600), encryption and checksum leave this for Quick Modes.
QUICK_MODE_OCTETS = 720


# Ours. A key exchange by a MODP group costs the responder up to 12 ms, by a curve 0.2 ms: so many of the former are
# done for one CREATE, 50 ms in which nobody else is served. Their public values are longer than any of a curve.
MAX_MODP = 4
_LONGEST_POINT = 132  # RFC 5903 §7, group 21


class CreateCommand:
    """The initiator's half.

    Args:
        quick_modes: what is asked for; at least one.
    """

    type = MessageType.CREATE

    def __init__(self, quick_modes: Sequence[QuickMode]) -> None:
        self.quick_modes = tuple(quick_modes)
        self.curtailed = False  # the answer was about fewer than were asked for

    @property
    def subject(self) -> str:
        """What the command is about, for the operator."""
        return ", ".join(asked.policy.name for asked in self.quick_modes)

    def payloads(self) -> tuple[KinkPayload, ...]:
        """A KINK_ISAKMP payload for each Quick Mode (RFC 4430 §4.2.6)."""
        return tuple(Isakmp(asked.payloads()) for asked in self.quick_modes)

    def begin(self, key: SessionKey, now: float) -> list[Effect]:
        """Install what optimism allows before anything is sent (RFC 4430 §3.2 step 1)."""
        return [effect for asked in self.quick_modes for effect in asked.begin(key, now)]

    def complete(
        self, answers: tuple[tuple[IsakmpPayload, ...], ...], *, ackreq: bool, key: SessionKey, now: float
    ) -> list[Effect]:
        """Make the pairs from an authentic answer; ``quick_modes`` know afterwards what became of each.

        Raises:
            RequestFailed: the peer refuses all of them.
            AnswerUnusable: none of them was made, and the peer may think otherwise.
        """
        del ackreq  # the ACK is the exchange's; what keys a pair is Nr
        if not answers or len(answers) > len(self.quick_modes):
            reason = f"{len(answers)} Quick Modes answer our {len(self.quick_modes)}"
            raise AnswerUnusable(reason)
        self.curtailed = len(answers) < len(self.quick_modes)
        if self.curtailed and not _accepts(answers[0]):
            # An error and nothing else is about the whole command (RFC 4430 §6.3).
            answers = answers[:1] * len(self.quick_modes)
        effects: list[Effect] = []
        for asked, payloads in zip(self.quick_modes, answers, strict=False):
            try:
                used = [pair.outbound_spi for pair in self.pairs()]
                effects += asked.complete(payloads, key=key, now=now, used=used)
            except (RequestFailed, AnswerUnusable) as failure:
                asked.failure = failure
        for asked in self.quick_modes[len(answers) :]:
            asked.failure = Unanswered("the peer answered others of the same CREATE, and not this one")
        self._fail_unless_some_stand()
        return effects

    def _fail_unless_some_stand(self) -> None:
        if any(asked.pair is not None for asked in self.quick_modes):
            return
        failures = [asked.failure for asked in self.quick_modes if asked.failure is not None]
        reasons = ", ".join(dict.fromkeys(map(str, failures)))
        unusable = any(isinstance(failure, AnswerUnusable) for failure in failures)
        raise (AnswerUnusable if unusable else RequestFailed)(reasons)

    def withdraw(self) -> list[Effect]:
        """Undo ``begin``: nobody will answer on these SPIs."""
        return [effect for asked in self.quick_modes for effect in asked.withdraw()]

    # ------------------------------------------------------------ when it is over

    def forget(self) -> None:
        """Nothing secret of it is needed any more."""
        for asked in self.quick_modes:
            asked.forget()

    def disown(self, policies: Container[str]) -> None:
        """What comes of those of ``policies`` is to be deleted: they are others by now, or gone."""
        for asked in self.quick_modes:
            asked.unwanted = asked.unwanted or asked.policy.name in policies

    @property
    def wanted(self) -> list[QuickMode]:
        """All but the disowned."""
        return [asked for asked in self.quick_modes if not asked.unwanted]

    def without_pfs(self) -> list[str]:
        """Policies that may be asked for again without KE: the peer does none, and they do not require it."""
        return [
            asked.policy.name
            for asked in self.quick_modes
            if isinstance(asked.failure, KeyExchangeRefused) and not asked.policy.pfs_required
        ]

    def reason(self, asked: QuickMode, outcome: Completed | Failed) -> str:
        """Why ``asked`` made no pair: its own answer, or what became of the whole command."""
        return str(asked.failure) if asked.failure is not None or isinstance(outcome, Completed) else outcome.reason

    def in_vain(self, outcome: Completed | Failed) -> bool:
        """Whether several were asked for at once and nobody answered: perhaps just because it was several."""
        return isinstance(outcome, Failed) and outcome.cause is Cause.SILENCE and len(self.quick_modes) > 1

    def held(self, outcome: Completed | Failed) -> list[QuickMode]:
        """Those of which the peer may have a pair that this host has not."""
        silent = isinstance(outcome, Failed) and outcome.peer_may_hold_state
        return [
            asked
            for asked in self.quick_modes
            if asked.pair is None and (silent if asked.failure is None else isinstance(asked.failure, AnswerUnusable))
        ]

    def doomed(self, outcome: Completed | Failed, now: float) -> list[Doomed]:
        """What to delete at the peer of those that it may have."""
        return [
            Doomed(
                asked.policy.name,
                asked.spi,
                now + asked.policy.lifetime_seconds,
                stood=False,
                protocol=asked.policy.protocol,
            )
            for asked in self.held(outcome)
        ]

    def pairs(self) -> list[SaPair]:
        """Those that were made."""
        return [asked.pair for asked in self.quick_modes if asked.pair is not None]

    def overlooked(self) -> list[str]:
        """Policies that the peer said nothing of, though it answered others."""
        return [asked.policy.name for asked in self.wanted if isinstance(asked.failure, Unanswered)]

    def release(self, outcome: Completed | Failed) -> list[Effect]:
        """Undo ``begin`` for those that were refused, where others were not, and so ``withdraw`` was not called."""
        if isinstance(outcome, Failed) and not outcome.peer_may_hold_state:
            return []
        refused = [asked for asked in self.quick_modes if isinstance(asked.failure, RequestFailed)]
        return [effect for asked in refused for effect in asked.withdraw()]


def _accepts(payloads: tuple[IsakmpPayload, ...]) -> bool:
    return any(isinstance(payload, SecurityAssociation) for payload in payloads)


def batches(quick_modes: Iterable[QuickMode], most: int) -> list[list[QuickMode]]:
    """What goes into one CREATE each, in order: at most ``most``, and no more octets than one frame has."""
    made: list[list[QuickMode]] = []
    room = 0
    for asked in quick_modes:
        octets = len(build_plaintext((Isakmp(asked.payloads()),)))
        if not made or len(made[-1]) >= min(most, MAX_QUICK_MODES) or octets > room:
            made.append([])
            room = QUICK_MODE_OCTETS
        made[-1].append(asked)
        room -= octets
    return made


class HalfOpen(NamedTuple):
    """A pair that waits for the ACK, and the effects when it comes: the outbound SA (RFC 4430 §3.2 step 6)."""

    pair: SaPair
    on_ack: list[Effect]


@dataclass(frozen=True, slots=True)
class Grant:
    """What a command was granted.

    Args:
        payloads: of the REPLY.
        effects: before the REPLY leaves.
        ackreq: an ACK is awaited.
        half_open: pairs that wait for it.
        refusals: what of it was not granted.
    """

    payloads: tuple[KinkPayload, ...]
    effects: list[Effect] = field(default_factory=list)
    ackreq: bool = False
    half_open: tuple[HalfOpen, ...] = ()
    refusals: tuple[Refused, ...] = ()


class CreateAnswer(NamedTuple):
    """The responder's half, worked out.

    Args:
        payloads: for the REPLY, in the order of the command.
        ackreq: whether the initiator must ACK (RFC 4430 §3.2, §6.3).
        effects: before the REPLY leaves.
        pairs: those that stand with that.
        half_open: those that wait for the ACK; none without ``ackreq``.
        refusals: of Quick Modes that were not granted, others being so.
    """

    payloads: tuple[KinkPayload, ...]
    ackreq: bool
    effects: list[Effect]
    pairs: tuple[SaPair, ...]
    half_open: tuple[HalfOpen, ...]
    refusals: tuple[Refused, ...]


def answer_create(
    quick_modes: tuple[tuple[IsakmpPayload, ...], ...],
    *,
    peer: PeerSettings,
    remote: str,
    key: SessionKey,
    taken: Collection[int],
    allocate_spi: Callable[[], int],
    random: Callable[[int], bytes],
    now: float,
    key_exchange: KeyExchangeSource | None = None,
) -> CreateAnswer:
    """Grant what can be granted (RFC 4430 §3.2, §6.3).

    Args:
        quick_modes: payloads of each KINK_ISAKMP payload of the CREATE.
        peer: the authenticated initiator.
        remote: its address, as the CREATE came.
        key: session key of its ticket.
        taken: SPIs that the peer may not name (installed already, or just deleted).
        allocate_spi: reserves an inbound SPI here.
        key_exchange: makes private keys for PFS; None where this host does none.

    Raises:
        Refused: with the notify to answer, when there is but one Quick Mode, or none.
    """
    if not quick_modes:
        raise Refused(NotifyType.PAYLOAD_MALFORMED, "no Quick Mode in CREATE")
    used = set(taken)
    modp = 0
    answers: list[QuickModeAnswer | Refused] = []
    for number, payloads in enumerate(quick_modes):
        try:
            if number >= MAX_QUICK_MODES:
                raise Refused(NotifyType.NO_PROPOSAL_CHOSEN, f"more than {MAX_QUICK_MODES} Quick Modes in CREATE")
            modp += any(isinstance(p, KeyExchange) and len(p.public_value) > _LONGEST_POINT for p in payloads)
            if modp > MAX_MODP:
                raise Refused(NotifyType.NO_PROPOSAL_CHOSEN, f"more than {MAX_MODP} MODP key exchanges in CREATE")
            made = answer_quick_mode(
                payloads,
                peer=peer,
                remote=remote,
                key=key,
                taken=used,
                allocate_spi=allocate_spi,
                random=random,
                now=now,
                key_exchange=key_exchange,
            )
        except Refused as refused:
            if len(quick_modes) == 1:
                raise
            answers.append(refused)
        else:
            used.add(made.pair.outbound_spi)
            answers.append(made)
    return _combined(answers)


def _combined(answers: list[QuickModeAnswer | Refused]) -> CreateAnswer:
    granted = [made for made in answers if isinstance(made, QuickModeAnswer)]
    refusals = tuple(refused for refused in answers if isinstance(refused, Refused))
    effects: list[Effect] = []
    for made in granted:
        effects += [Count(Tally.KEY_EXCHANGES)] * made.key_exchanges
        effects += [made.inbound] if made.three_way else [made.inbound, made.outbound]
    return CreateAnswer(
        payloads=tuple(notify_of(made) if isinstance(made, Refused) else Isakmp(made.payloads) for made in answers),
        # "If any of the optimistic proposals are not chosen by the responder, it MUST request an ACK" (RFC 4430 §6.3):
        # a refused one among granted ones is not chosen either. What is refused whole has the form of an error.
        ackreq=any(made.three_way for made in granted) or bool(granted and refusals),
        effects=effects,
        pairs=tuple(made.pair for made in granted if not made.three_way),
        half_open=tuple(HalfOpen(made.pair, [made.outbound]) for made in granted if made.three_way),
        refusals=refusals,
    )


def notify_of(refused: Refused) -> Isakmp:
    """The answer to a Quick Mode that is not granted (RFC 4430 §5.5, §6.3)."""
    return Isakmp((Notify(Protocol.ESP, refused.spi, refused.notify, refused.value),))
