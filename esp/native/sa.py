"""SAs that lanes run: as those of :mod:`esp.outbound` and :mod:`esp.inbound`, with what packets change kept in C."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, ClassVar

from esp.datagram import Outgoing
from esp.errors import DropReason
from esp.headers import DontFragment
from esp.inbound import InboundSa
from esp.native import _core
from esp.native.silences import NativeSilence
from esp.outbound import OutboundSa
from esp.policy import Direction, by_ports
from esp.sa import Mode, SecurityProtocol
from esp.seqnum import ReplayWindow
from esp.spd import SelectorMatcher
from esp.tunnel import outer_traffic_classes

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    from esp.sa import Endpoint, SaParameters
    from esp.silence import Silence

# Each SA has a number that no other has had: a lane may speak of one that has gone.
_numbers = count(1)

REASONS = tuple(DropReason)


def why_not(sa: SaParameters, *, inbound: bool) -> str:
    """Why ``sa`` is left to the reference engine, in a word or two; empty where it is not.

    Args:
        sa: checked.
        inbound: which way it goes.
    """
    wanted = {
        "AH": sa.protocol is SecurityProtocol.AH,
        "transport mode": sa.mode is not Mode.TUNNEL,
        "IP-TFS": sa.aggregation is not None,
        "padding": not inbound and sa.confidentiality is not None,
        "flow labels": not inbound and sa.headers.flow_labels,
        "DF": not inbound and sa.headers.df is not DontFragment.AUTO,
        "ports of fragments": inbound and sa.fragments and by_ports(sa.selector),
    }
    asked = [what for what, asks in wanted.items() if asks]
    if not asked and not any(_core.offered(sa.suite, library) for library in _core.LIBRARIES):
        asked.append(f"no library has {sa.suite.name}")
    return ", ".join(asked)


class InLanes:
    """What SAs of both directions have in common where lanes run them: what changes for each packet is in ``core``."""

    __slots__ = ()

    engine: ClassVar[str] = "native"
    core: _core.Outbound | _core.Inbound
    library: int  # number of the one that has its cipher (:data:`esp.native._core.LIBRARIES`)
    number: int  # of it, among all that there ever were

    @property
    def packets(self) -> int:
        """Sealed, or opened."""
        return self.core.packets

    @packets.setter
    def packets(self, value: int) -> None:
        """Nothing: it starts at nought, and lanes count."""

    @property
    def octets(self) -> int:
        """Of payload and trailer."""
        return self.core.octets

    @octets.setter
    def octets(self, value: int) -> None:
        """Likewise."""

    @property
    def hard_at(self) -> float:
        """When it ends; long ago where lanes have sealed or opened all that it may."""
        return self.core.hard_at

    @hard_at.setter
    def hard_at(self, value: float) -> None:
        self.core.hard_at = value

    @property
    def remote(self) -> Endpoint:
        """Where the peer is."""
        return self.core.remote

    @remote.setter
    def remote(self, value: Endpoint) -> None:
        self.core.move(value)

    @property
    def silence(self) -> Silence:
        """The peer's."""
        silence: Silence = self.core.silence
        return silence

    @silence.setter
    def silence(self, value: Silence) -> None:
        self.core.silence = value
        if isinstance(value, NativeSilence):
            self.core.heard_by(value.core)

    @property
    def alarm_packets(self) -> float:
        """When to look at its limits again."""
        return self.core.alarms[0]

    @alarm_packets.setter
    def alarm_packets(self, value: float) -> None:
        self.core.alarm(value, self.core.alarms[1])

    @property
    def alarm_octets(self) -> float:
        """Likewise."""
        return self.core.alarms[1]

    @alarm_octets.setter
    def alarm_octets(self, value: float) -> None:
        self.core.alarm(self.core.alarms[0], value)


class NativeOutboundSa(InLanes, OutboundSa):
    """Seals packets for one peer.

    Args:
        lanes: where they find it.
        library: number of the one that seals (:data:`esp.native._core.LIBRARIES`).

    Attributes:
        lane: number of the only one that seals by it; None where all do.
    """

    __slots__ = ("_told_above", "core", "lane", "library", "number")

    core: _core.Outbound

    def __init__(
        self, parameters: SaParameters, now: float, random: Callable[[int], bytes], lanes: _core.Core, library: int
    ) -> None:
        self.library = library
        self.number = next(_numbers)
        self.lane = parameters.queue if parameters.queue in range(lanes.count) else None
        self.core = _core.Outbound(
            lanes,
            self.number,
            parameters.spi,
            parameters.sequence,
            parameters.sequence_max,
            parameters.suite,
            parameters.keymat,
            parameters.esn,
            library,
            random(32),
            outer_traffic_classes(parameters.headers.ecn, parameters.headers.dscp),
            self.lane,
        )
        super().__init__(parameters, now, random)
        self.core.limit(self._hard_packets, self._hard_octets)

    def seal(self, packet: bytes, now: float) -> Outgoing:
        """As for any SA; in the thread that calls, while a lane may be sealing another."""
        sealed, traffic_class = self.core.seal(packet, now)
        return Outgoing(sealed, self.remote, traffic_class)

    @property
    def sequence(self) -> int:
        """The last number used."""
        return self.core.sequence

    @property
    def sent_at(self) -> float:
        """When the newest left."""
        return self.core.sent_at

    @sent_at.setter
    def sent_at(self, value: float) -> None:
        self.core.sent_at = value

    @property
    def largest(self) -> int:
        """Octets of the largest packet that fits the path."""
        return self.core.largest

    @largest.setter
    def largest(self, value: int) -> None:
        self.core.largest = value

    @property
    def told_above(self) -> float:
        """Octets of packets that the engine tells of."""
        return self._told_above

    @told_above.setter
    def told_above(self, value: float) -> None:
        self._told_above = self.core.told_above = value

    @property
    def tell_at(self) -> float:
        """And when again."""
        return self.core.tell_at

    @tell_at.setter
    def tell_at(self, value: float) -> None:
        self.core.tell_at = value


class NativeWindow(ReplayWindow):
    """A replay window that a lane looks at."""

    __slots__ = ("core",)

    def __init__(self, size: int) -> None:
        self.core = _core.Window(size)
        super().__init__(size)

    @classmethod
    def copy_of(cls, window: ReplayWindow) -> NativeWindow:
        """One that has accepted the same numbers as ``window``, which is in use no more."""
        made = cls(window.size)
        for number in window.marked():
            made.mark(number)
        return made

    @property
    def top(self) -> int:
        """The newest number marked."""
        return self.core.top

    @top.setter
    def top(self, value: int) -> None:
        """Nothing: it starts at nought, and marking moves it."""

    def check(self, number: int) -> DropReason | None:
        """As of any window."""
        position = self.core.check(number)
        return None if position < 0 else REASONS[position]

    def mark(self, number: int) -> None:
        """As of any window."""
        self.core.mark(number)

    def marked(self) -> list[int]:
        """As of any window."""
        first = max(self.top - self.size + 1, 0)
        return [*(number for number in range(first, self.top) if self.core.seen(number)), self.top]


class NativeInboundSa(InLanes, InboundSa):
    """Opens packets of one peer; arguments as those of :class:`NativeOutboundSa`."""

    __slots__ = ("_native_window", "core", "library", "number")

    core: _core.Inbound

    def __init__(
        self,
        parameters: SaParameters,
        now: float,
        unused_ecn: MutableMapping[str, int],
        lanes: _core.Core,
        library: int,
    ) -> None:
        self.library = library
        self.number = next(_numbers)
        self.core = _core.Inbound(lanes, self.number, parameters.spi)
        self.core.key(parameters.suite, parameters.keymat, parameters.esn, library)
        matcher = SelectorMatcher(parameters.selector, Direction.INBOUND)
        headers = parameters.headers
        self.core.admit(parameters.selector.version, matcher.intervals, matcher.names_opaque, headers.dscp_inward)
        super().__init__(parameters, now, unused_ecn)
        self.core.limit(self._hard_packets, self._hard_octets)

    def authenticate(self, packet: bytes, sequence: int) -> bytes | DropReason:
        """Nothing: lanes do. A packet comes here if it was on its way to Python when the SA was installed."""
        return DropReason.ENGINE_BUSY

    @property
    def window(self) -> ReplayWindow:
        """Which numbers have been accepted."""
        return self._native_window

    @window.setter
    def window(self, value: ReplayWindow) -> None:
        """Before it is installed: its own, or what another has accepted under the same keys."""
        self._native_window = value if isinstance(value, NativeWindow) else NativeWindow.copy_of(value)
        self.core.use(self._native_window.core)
