"""Who answers whom: transactions by XID and endpoints, their keys, retransmissions, and what was never answered.

Addresses alone, without ports, tell the ends apart: a NAT may move the one, and the other known implementation answers
to port 910 whatever port asked. Hosts behind one address may then use the same XID; so a key is a candidate until a
checksum has verified with it.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from kinkvpn.wire.kink import MessageType

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kinkvpn.decode.datagrams import Address, Datagram
    from kinkvpn.decode.keyring import OpenedRequest
    from kinkvpn.decode.survey import Header

COMMANDS: Final = frozenset({MessageType.CREATE, MessageType.DELETE, MessageType.STATUS, MessageType.GETTGT})

# Ours. Transactions are over in half a minute; a busy gateway has a few thousand in that time.
MAX_TRANSACTIONS: Final = 4096
# Five or six transmissions are usual (§9); each may be the one that is answered.
MAX_REQUESTS: Final = 32
# Tickets between the same two hosts that a REPLY without its command is tried with: this one, the one before, and
# those of the other direction.
MAX_PAIR_REQUESTS: Final = 8
MAX_PAIRS: Final = 4096
# The summary lists so many numbers; a capture with more unanswered commands has another problem than these.
MAX_LISTED: Final = 1000


@dataclass(frozen=True, slots=True)
class SeenRequest:
    """An AP-REQ that was opened, and the message it was in."""

    number: int
    time: float | None
    opened: OpenedRequest


@dataclass(slots=True)
class Transmission:
    """One sending of a message: its number, time, and a hash that tells whether another is the same to the octet."""

    number: int
    time: float | None
    octets: int


@dataclass(slots=True)
class Transaction:
    """A command and all that belongs to it."""

    type: int
    epoch: int | None
    sent: list[Transmission]
    requests: list[SeenRequest] = field(default_factory=list)
    replies: list[Transmission] = field(default_factory=list)
    acks: list[Transmission] = field(default_factory=list)
    wants_ack: int | None = None


Key = tuple["Address", "Address", int]


@dataclass(slots=True)
class Tally:
    """Message numbers, the first MAX_LISTED of them, and their count."""

    numbers: list[int] = field(default_factory=list)
    count: int = 0

    def add(self, number: int) -> None:
        self.count += 1
        if len(self.numbers) < MAX_LISTED:
            self.numbers.append(number)


class Conversations:
    """Every transaction of a capture that may still go on."""

    def __init__(self) -> None:
        self._open: OrderedDict[Key, Transaction] = OrderedDict()
        self._pairs: OrderedDict[frozenset[Address], list[SeenRequest]] = OrderedDict()
        self.unanswered, self.unacknowledged = Tally(), Tally()

    def place(self, datagram: Datagram, header: Header, epoch: int | None) -> Transaction:
        """The transaction that a message belongs to; a REPLY whose command was not captured opens one of its own.

        Args:
            datagram, header: the message.
            epoch: of its AP-REQ; None where it has none.
        """
        reply = header.type == MessageType.REPLY
        ends = datagram.source.address, datagram.destination.address
        key = (*(ends[::-1] if reply else ends), header.xid)
        known = self._open.get(key)
        if known is not None and header.type in COMMANDS and self._begins_anew(known, header, epoch):
            self._close(self._open.pop(key))
            known = None
        if known is None:
            self._open[key] = Transaction(header.type, epoch, [])
            if len(self._open) > MAX_TRANSACTIONS:
                self._close(self._open.popitem(last=False)[1])
        self._open.move_to_end(key)
        return self._open[key]

    def _begins_anew(self, known: Transaction, header: Header, epoch: int | None) -> bool:
        """XIDs begin again when a host does (its epoch changes), and wrap."""
        return known.type != header.type or (None not in (epoch, known.epoch) and epoch != known.epoch)

    def enter(self, transaction: Transaction, header: Header, number: int, datagram: Datagram) -> dict[str, Any]:
        """Adds a message to its transaction; what it is to those before, in JSON's terms."""
        this = Transmission(number, datagram.time, hash(datagram.octets))
        if header.type == MessageType.REPLY:
            relation = self._enter_reply(transaction, header, this)
        elif header.type == MessageType.ACK:
            relation = {"role": "ack", "acknowledges": transaction.wants_ack, **_repeats(transaction.acks, this)}
            transaction.acks.append(this)
            transaction.wants_ack = None
        else:
            relation = {"role": "command", **_repeats(transaction.sent, this)}
            transaction.sent.append(this)
        for transmissions in (transaction.sent, transaction.replies, transaction.acks):
            del transmissions[1:-MAX_REQUESTS]
        return relation

    def _enter_reply(self, transaction: Transaction, header: Header, this: Transmission) -> dict[str, Any]:
        asked = transaction.sent[-1] if transaction.sent else None
        relation = {
            "role": "reply",
            "answers": asked.number if asked else None,
            "after_ms": _milliseconds(asked, this) if asked else None,
            **_repeats(transaction.replies, this),
        }
        transaction.replies.append(this)
        if header.ackreq and not transaction.acks:
            transaction.wants_ack = this.number
        return relation

    def remember(self, transaction: Transaction, datagram: Datagram, request: SeenRequest) -> None:
        """Keeps an opened AP-REQ for what answers it."""
        transaction.requests.append(request)
        del transaction.requests[:-MAX_REQUESTS]
        pair = frozenset({datagram.source.address, datagram.destination.address})
        others = self._pairs.setdefault(pair, [])
        # One for each ticket: a hundred commands with the same one give the same key.
        others[:] = [other for other in others if other.opened.ticket is not request.opened.ticket]
        others.append(request)
        del others[:-MAX_PAIR_REQUESTS]
        self._pairs.move_to_end(pair)
        if len(self._pairs) > MAX_PAIRS:
            self._pairs.popitem(last=False)

    def candidates(self, transaction: Transaction, datagram: Datagram) -> Iterator[tuple[SeenRequest, bool]]:
        """Requests whose key a REPLY may have, the likeliest first, and whether each is of its own transaction."""
        for request in reversed(transaction.requests):
            yield request, True
        pair = frozenset({datagram.source.address, datagram.destination.address})
        for request in reversed(self._pairs.get(pair, [])):
            yield request, False

    def finish(self) -> None:
        """The capture is over: what is open now was never answered in it."""
        while self._open:
            self._close(self._open.popitem(last=False)[1])

    def _close(self, transaction: Transaction) -> None:
        if transaction.sent and not transaction.replies:
            self.unanswered.add(transaction.sent[0].number)
        if transaction.wants_ack is not None:
            self.unacknowledged.add(transaction.wants_ack)


def name_answered(relation: dict[str, Any], request: SeenRequest, now: float | None) -> None:
    """An AP-REP says which of several transmissions its REPLY answers."""
    relation["answers"] = request.number
    if now is not None and request.time is not None:
        relation["after_ms"] = round((now - request.time) * 1000, 3)


def _repeats(earlier: list[Transmission], this: Transmission) -> dict[str, Any]:
    if not earlier:
        return {"repeats": None, "identical": False, "repeat_after_ms": None}
    same = [one for one in earlier if one.octets == this.octets]
    first = (same or earlier)[0]
    return {"repeats": first.number, "identical": bool(same), "repeat_after_ms": _milliseconds(first, this)}


def _milliseconds(earlier: Transmission, later: Transmission) -> float | None:
    if earlier.time is None or later.time is None:
        return None
    return round((later.time - earlier.time) * 1000, 3)
