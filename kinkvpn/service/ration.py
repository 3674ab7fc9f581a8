"""How many lines of the log one cause may have: who comes and goes, or is refused, in a loop fills nobody's disk.

All of the log passes here, so that no packet from anywhere finds a line that was forgotten. What is left out is
counted, and the next line of the same has the count: ``suppressed=1432``. Counters know nothing of it, and count on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from kinkvpn.proto.allowance import source_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Key = TypeVar("Key")


class Rate(NamedTuple):
    """So many lines at once, and so many a second after that."""

    burst: float
    per_second: float


# Ours. A peer that rekeys thirty policies, or fails with each, is told of in full; one that does so all day has three
# lines a minute of each kind.
OF_ONE: Final = Rate(50, 0.05)
# Ours. A thousand peers that come at once, each with two lines of a kind; and as much as ten thousand of them need in
# a quiet hour. Principals are free for the KDC of a realm that ours trusts.
OF_ALL: Final = Rate(2000, 5)
# Ours. Nobody has proved to be at an address, and there are four billion of them.
OF_STRANGERS: Final = Rate(100, 1)
# Ours. Causes that are remembered: 2 MB. Who is forgotten for others has had a full measure before.
MOST_CAUSES: Final = 8192
# Ours. What others' libraries write has no name but their logger's.
MOST_EVENTS: Final = 256

# What an event is about, as far as no peer chooses it: not where that says it is.
ABOUT: Final = ("policy", "subnet", "command", "where", "server")
PLACES: Final = ("source", "address")


class Cause(NamedTuple):
    """Whose lines count together: of one event about one peer or, of those that are nobody's, from one place."""

    event: str
    peer: str
    place: str
    about: tuple[str, ...]


@dataclass(slots=True)
class Measure:
    """What is left of a rate, and how much was left out since the last line."""

    tokens: float
    since: float
    suppressed: int = 0

    def earn(self, rate: Rate, now: float) -> bool:
        """Whether there is enough for a line."""
        self.tokens = min(rate.burst, self.tokens + (now - self.since) * rate.per_second)
        self.since = now
        return self.tokens >= 1


class Ration(logging.Filter):
    """Has records pass in measure, those of debugging in full. For all handlers: each record is decided on once.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._lock = threading.Lock()
        self._causes: OrderedDict[Cause, Measure] = OrderedDict()
        self._events: OrderedDict[tuple[str, bool], Measure] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether ``record`` is told; its field ``suppressed`` says how many like it were not."""
        if record.levelno < logging.INFO:
            return True
        decided: bool | None = getattr(record, "rationed", None)
        if decided is None:
            with self._lock:
                decided = record.rationed = self._decide(record)
        return decided

    def _decide(self, record: logging.LogRecord) -> bool:
        fields: Mapping[str, object] | None = getattr(record, "fields", None)
        cause = cause_of(record.name if fields is None else record.getMessage(), fields or {})
        stranger = bool(cause.place)
        now, whole = self._clock(), OF_STRANGERS if stranger else OF_ALL
        of_event = _latest(self._events, (cause.event, stranger), Measure(whole.burst, now))
        of_cause = _latest(self._causes, cause, Measure(OF_ONE.burst, now))
        self._forget()
        enough = of_cause.earn(OF_ONE, now) & of_event.earn(whole, now)
        if not enough:
            of_cause.suppressed += 1
            return False
        for measure in (of_cause, of_event):
            measure.tokens -= 1
        suppressed = of_cause.suppressed + of_event.suppressed
        of_cause.suppressed = of_event.suppressed = 0
        if suppressed and fields is not None:
            record.fields = {**fields, "suppressed": suppressed}
        return True

    def _forget(self) -> None:
        """Who was silent the longest, for others; what was left out of theirs is told with the next of that event."""
        if len(self._causes) > MOST_CAUSES:
            cause, measure = self._causes.popitem(last=False)
            of_event = self._events.get((cause.event, bool(cause.place)))
            if of_event is not None:
                of_event.suppressed += measure.suppressed
        if len(self._events) > MOST_EVENTS:
            self._events.popitem(last=False)


def cause_of(event: str, fields: Mapping[str, object]) -> Cause:
    """Of a record: whoever is a peer may be anywhere, and who is none is where the packet says, in IPv6 its subnet."""
    peer = str(fields.get("peer", ""))
    place = "" if peer else next((_place(str(fields[name])) for name in PLACES if name in fields), "")
    return Cause(event, peer, place, tuple(str(fields[name]) for name in ABOUT if name in fields))


def _place(address: str) -> str:
    try:
        return source_of(address)
    except ValueError:
        return address  # of the operator's, in a line about a listener


def _latest(measures: OrderedDict[Key, Measure], key: Key, new: Measure) -> Measure:
    """That of ``key``, as the one that was asked for last."""
    measure = measures.setdefault(key, new)
    measures.move_to_end(key)
    return measure
