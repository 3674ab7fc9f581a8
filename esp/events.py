"""What the engine tells keying: past tense, frozen, no keys inside."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from esp.offload import Offload
    from esp.sa import Endpoint


@dataclass(frozen=True, slots=True)
class Acquired:
    """A packet matched ``policy`` and no outbound SA serves it; the packet is held (RFC 4301 §5.1)."""

    policy: str


@dataclass(frozen=True, slots=True)
class SoftExpired:
    """Time to rekey the pair with this SA (RFC 4301 §4.4.2.1)."""

    policy: str
    spi: int
    inbound: bool


@dataclass(frozen=True, slots=True)
class HardExpired:
    """The SA carries nothing any more; the engine has removed it."""

    policy: str
    spi: int
    inbound: bool


@dataclass(frozen=True, slots=True)
class CounterExhausted:
    """The outbound SA has used its last number, and what it should carry is dropped: told once (RFC 4303 §3.3.3, §4).

    Only where no lifetime has ended it long before, and nobody has put another in its place.
    """

    policy: str
    spi: int


@dataclass(frozen=True, slots=True)
class EndpointMoved:
    """The newest authenticated packet of this inbound SA came from another place than those before it."""

    policy: str
    spi: int
    remote: Endpoint


@dataclass(frozen=True, slots=True)
class UnknownSpiSeen:
    """A packet came for an SPI that has no SA here. Nobody vouches for it or for ``source``: a hint, no more.

    At most one a second, whatever comes.
    """

    spi: int
    source: Endpoint


@dataclass(frozen=True, slots=True)
class Unanswered:
    """Packets have gone out to ``peer`` for as long as its policies say, and nothing authentic has come back.

    Told again as long as that is so and packets go on going out. Traffic that flows one way looks no different.
    """

    peer: str


@dataclass(frozen=True, slots=True)
class UnreachableReported:
    """ICMP says that a datagram did not get to ``remote``. Anybody can forge that: a hint, no more."""

    remote: Endpoint


@dataclass(frozen=True, slots=True)
class PayloadsLost:
    """Of ``sent`` payloads of this inbound SA ``lost`` did not come, since that was last told (RFC 9347 §2.4.1).

    At most once a minute.
    """

    policy: str
    spi: int
    lost: int
    sent: int


@dataclass(frozen=True, slots=True)
class PathNarrowed:
    """The path to this outer address carries no more than ``octets``, as ICMP says that quotes a packet of ours."""

    address: str
    octets: int


# Ours. Inner packets of more than these make their SA's path worth a look: all that fill a path of 1,200 octets, and no
# query, acknowledgement or word. Once a second is often enough for whoever looks.
LARGE_OCTETS = 1000
LARGE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class LargeSent:
    """A packet has gone out that not every path carries: a reason to see whether this one does. Not told of each."""

    policy: str


@dataclass(frozen=True, slots=True)
class OffloadRefused:
    """The kernel does not do ``offload``, or has failed at it: it is not asked again. Told of each once."""

    offload: Offload
    reason: str


EspEvent = (
    Acquired
    | SoftExpired
    | HardExpired
    | CounterExhausted
    | PayloadsLost
    | EndpointMoved
    | UnknownSpiSeen
    | Unanswered
    | UnreachableReported
    | PathNarrowed
    | LargeSent
    | OffloadRefused
)

# Ours. One of each kind for a thousand SAs: keying that has fallen this far behind will not be saved by more.
MAX_EVENTS = 4096


class EventQueue:
    """Events that wait to be taken: in order, each once, of an SA's moves the last; the oldest leaves if full."""

    __slots__ = ("_waiting", "lost")

    def __init__(self) -> None:
        self._waiting: OrderedDict[object, EspEvent] = OrderedDict()
        self.lost = 0  # events that left a full queue unread

    def put(self, event: EspEvent) -> None:
        """Add ``event``; one that waits already is not added again."""
        key = (event.policy, event.spi) if isinstance(event, EndpointMoved) else event
        self._waiting[key] = event
        if len(self._waiting) > MAX_EVENTS:
            self._waiting.popitem(last=False)
            self.lost += 1

    def take(self) -> list[EspEvent]:
        """All that wait, oldest first; none of them waits any more."""
        taken = list(self._waiting.values())
        self._waiting.clear()
        return taken
