"""STATUS: is the peer alive, and is it still the one we knew (RFC 4430 §3.4, §3.7, §6.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kinkvpn.errors import MalformedMessage
from kinkvpn.proto import lease
from kinkvpn.proto.create import Grant
from kinkvpn.proto.events import Count, Tally
from kinkvpn.proto.quick_mode import AnswerUnusable, RequestFailed, notify_name
from kinkvpn.wire.ipsec_doi import LAST_ERROR_NOTIFY
from kinkvpn.wire.isakmp import Notify
from kinkvpn.wire.kink import Isakmp, KinkPayload, MessageType

if TYPE_CHECKING:
    from kinkvpn.proto.events import Effect, Path
    from kinkvpn.proto.lease import Lease, Wanted
    from kinkvpn.proto.outcome import Completed, Failed
    from kinkvpn.proto.ports import SessionKey
    from kinkvpn.wire.isakmp import IsakmpPayload


class Trial(NamedTuple):
    """A size, and a path that is to be seen to carry it (RFC 8899).

    Args:
        path: that every transmission takes.
        octets: of the message, which is filled up to them.
        whole: it may not be fragmented, here or on its way.
    """

    path: Path
    octets: int
    whole: bool


class StatusCommand:
    """The initiator's half: an AP-REQ and nothing else. The answer is the peer's epoch, in its AP-REP payload.

    Args:
        patience: seconds to wait for the answer; None for a full cycle. Of a trial, at the shortest round trip.
        trial: what its transmissions try; None for as short as they are, wherever the peer may be.
    """

    type = MessageType.STATUS
    subject = "status"

    def __init__(self, patience: float | None = None, trial: Trial | None = None) -> None:
        self.patience = patience
        self.trial = trial
        self.shortest = 0  # octets of a transmission; 0 where one was longer than the trial has it, or none was made
        self.outcome: Completed | Failed | None = None  # set by the peer's machine when it is over

    def payloads(self) -> tuple[KinkPayload, ...]:
        """None: what other implementations answer (RFC 4430 §6.5)."""
        return ()

    def transmitted(self, octets: int) -> None:
        """A transmission of that many octets goes out."""
        assert self.trial is not None
        self.shortest = 0 if octets > self.trial.octets else min(self.shortest or octets, octets)

    def begin(self, _key: SessionKey, _now: float) -> list[Effect]:
        """Nothing to prepare."""
        return []

    def complete(
        self, answers: tuple[tuple[IsakmpPayload, ...], ...], *, ackreq: bool, key: SessionKey, now: float
    ) -> list[Effect]:
        """Any authentic answer is good news; notifies in it are ignored (RFC 4430 §5.5)."""
        del answers, ackreq, key, now
        return []

    def withdraw(self) -> list[Effect]:
        """Nothing to undo."""
        return []


class LeaseCommand(StatusCommand):
    """The same, asking for a lease: addresses, routes and name servers (docs/extensions.md).

    Args:
        wanted: what to ask for.
        patience: seconds to wait for the answer; None for a full cycle.
    """

    subject = "lease"

    def __init__(self, wanted: Wanted, patience: float | None = None) -> None:
        super().__init__(patience)
        self.lease: Lease | None = None  # what the peer lends; None from one that knows nothing of it
        self._wanted = wanted

    def payloads(self) -> tuple[KinkPayload, ...]:
        """The request, where RFC 4430 §6.5 has STATUS's payloads."""
        return (Isakmp((lease.ask(self._wanted),)),)

    def complete(
        self, answers: tuple[tuple[IsakmpPayload, ...], ...], *, ackreq: bool, key: SessionKey, now: float
    ) -> list[Effect]:
        """Take what is lent.

        Raises:
            RequestFailed: an error notify; the peer does not let us in.
            AnswerUnusable: a lease that cannot be read.
        """
        del ackreq, key, now
        payloads = [payload for answer in answers for payload in answer]
        for payload in payloads:
            if isinstance(payload, Notify) and payload.type <= LAST_ERROR_NOTIFY:
                why = "no rule of its lets us in, or it has no address left: its log says which"
                raise RequestFailed(f"the peer answers {notify_name(payload.type)}: {why}")
        try:
            self.lease = lease.found_lease(payloads)
        except MalformedMessage as malformed:
            raise AnswerUnusable(f"the lease cannot be read: {malformed}") from malformed
        return []


def answer_status(payloads: tuple[IsakmpPayload, ...], lent: Lease | None) -> Grant:
    """The responder's half: nothing (RFC 4430 §6.5), and what it is ``lent`` to a peer that asks for that.

    Args:
        payloads: of the STATUS.
        lent: to this peer, if anything.
    """
    try:
        wanted = lease.found_request(payloads)
    except MalformedMessage:
        return Grant((), [Count(Tally.EXTENSION_MALFORMED)])
    if wanted is None or lent is None:
        return Grant(())
    return Grant((Isakmp((lease.grant(lent),)),))
