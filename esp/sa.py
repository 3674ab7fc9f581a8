"""Security associations as the engine is told of them (RFC 4301 §4.4.2), and what each has done."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from esp.errors import InvalidSa
from esp.headers import DEFAULT_RULES, DSCP_VALUES, HeaderRules
from esp.policy import is_host
from esp.suite import Cipher

if TYPE_CHECKING:
    from esp.policy import Selector
    from esp.suite import Suite


class Endpoint(NamedTuple):
    """An outer address (text form, IPv4 or IPv6) and a UDP port; port 0 with raw ESP."""

    address: str
    port: int

    @property
    def version(self) -> int:
        """Of IP: 4 or 6."""
        return 6 if ":" in self.address else 4


class Mode(Enum):
    """RFC 4301 §3.2."""

    TUNNEL = "tunnel"
    TRANSPORT = "transport"


class Encapsulation(Enum):
    """What carries ESP: UDP (RFC 3948) or IP protocol 50."""

    UDP = "udp"
    RAW = "raw"


class SecurityProtocol(Enum):
    """RFC 4301 §3.2."""

    ESP = "esp"
    AH = "ah"


@dataclass(frozen=True, slots=True)
class Lifetime:
    """Soft and hard limits (RFC 4301 §4.4.2.1); None is no limit. Seconds count from installation."""

    soft_seconds: float | None = None
    hard_seconds: float | None = None
    soft_packets: int | None = None
    hard_packets: int | None = None
    soft_octets: int | None = None
    hard_octets: int | None = None


@dataclass(frozen=True, slots=True)
class Confidentiality:
    """What is done so that an observer sees less of the traffic inside (RFC 4303 §2.6, §2.7).

    Args:
        octets: payloads are padded to this; longer ones stay as they are.
        dummy_after: seconds without a packet until a dummy of the same size goes out; None sends none.
    """

    octets: int
    dummy_after: float | None = None


@dataclass(frozen=True, slots=True)
class Aggregation:
    """AGGFRAG payloads at a constant rate, instead of packets as they come (RFC 9347).

    Args:
        octets: of each payload.
        per_second: payloads; they go out whether there is something to send or not.
        reorder: inbound: payloads that wait for one before them (RFC 9347 §2.2.3).
    """

    octets: int
    per_second: float
    reorder: int = 3  # "a value of 3 has been suggested" (§2.2.3)


@dataclass(frozen=True, slots=True)
class SaParameters:
    """One direction of a pair, as keying installs it.

    Args:
        spi: in host order, 256 to 2^32-1, chosen by the receiver (RFC 4303 §2.1).
        suite: cipher and integrity.
        keymat: exactly ``suite.keymat_octets``; never shown.
        policy: name of the policy this SA serves.
        selector: traffic it may carry, as the local host sees it, in both directions.
        remote: outbound: where datagrams go. Inbound: where they are expected from at first.
        lifetime: soft and hard limits.
        replay_window: packets, 0 turns the check off; ignored outbound.
        esn: sequence numbers are extended: 64 bits, of which half is sent (RFC 4303 §2.2.1). Both ends have to agree.
        sequence: outbound: the last number that was used under these keys, 0 for fresh ones. Whoever takes an SA over
            from another engine must give it: a number used twice is an IV used twice (RFC 4106 §3.1).
        headers: what outer headers take from inner ones, and give back.
        fragments: both ends have agreed that a later fragment has the ports of its packet's first (RFC 4301 §7.3).
            Where the selector has no ports there is nothing to agree on.
        legacy: whoever asks for this SA knows what a legacy ``suite`` costs; others need not say so.
        protocol: AH has the integrity of a ``suite`` whose cipher is none, and goes without UDP.
        local: outbound, with AH: the outer address that datagrams leave from, text form. The ICV covers it.
        queue: outbound: the one queue of the engine whose traffic it carries, counted from 0, so that no other has to
            share its counter (RFC 9611 §4); None carries that of every queue without one of its own. An engine that
            has no queue of that number takes it for None.
    """

    spi: int
    suite: Suite
    keymat: bytes = field(repr=False)
    policy: str
    selector: Selector
    remote: Endpoint
    lifetime: Lifetime = Lifetime()
    mode: Mode = Mode.TUNNEL
    encapsulation: Encapsulation = Encapsulation.UDP
    replay_window: int = 8192
    sequence: int = 0
    confidentiality: Confidentiality | None = None
    aggregation: Aggregation | None = None
    esn: bool = False
    headers: HeaderRules = DEFAULT_RULES
    legacy: bool = False
    fragments: bool = False
    protocol: SecurityProtocol = SecurityProtocol.ESP
    local: str = ""
    queue: int | None = None

    @property
    def sequence_max(self) -> int:
        """The last sequence number there is (RFC 4303 §2.2, §2.2.1)."""
        return EXTENDED_SEQUENCE_MAX if self.esn else SEQUENCE_MAX


# RFC 4303 §2.1: 1 to 255 are reserved by IANA, 0 is for local use.
SPI_MIN, SPI_MAX = 256, 0xFFFF_FFFF
# Four octets of sequence number on the wire (RFC 4303 §2.2).
SEQUENCE_MAX = 0xFFFF_FFFF
# Eight of an extended one, four of them on the wire (RFC 4303 §2.2.1).
EXTENDED_SEQUENCE_MAX = 0xFFFF_FFFF_FFFF_FFFF
# Ours. Eight times the default: more than any path reorders, and one octet of memory per number.
REPLAY_WINDOW_MAX = 65_536


def check_parameters(sa: SaParameters) -> None:
    """See that one engine can run ``sa`` (RFC 4301 §4.4.2.1).

    Raises:
        InvalidSa: with the field and the value; never with a key.
    """
    octets = sa.suite.keymat_octets
    if not SPI_MIN <= sa.spi <= SPI_MAX:
        raise InvalidSa(f"SPI {sa.spi} is not within {SPI_MIN} to {SPI_MAX}")
    if len(sa.keymat) != octets:
        raise InvalidSa(f"{sa.suite.name} takes {octets} octets of KEYMAT, got {len(sa.keymat)}")
    if sa.suite.legacy and not sa.legacy:
        raise InvalidSa(f"{sa.suite.name} takes legacy = true from who knows its cost: {sa.suite.cost}")
    if sa.mode is Mode.TRANSPORT and not (is_host(sa.selector.local) and is_host(sa.selector.remote)):
        raise InvalidSa(f"transport mode is between two hosts, not {sa.selector.local} and {sa.selector.remote}")
    if not 0 <= sa.replay_window <= REPLAY_WINDOW_MAX:
        raise InvalidSa(f"replay window {sa.replay_window} is not within 0 to 65536")
    # "Use of ESN creates a need for the receiver to manage the anti-replay window" (RFC 4303 §3.3.3).
    if sa.esn and not sa.replay_window:
        raise InvalidSa("extended sequence numbers need a replay window: it tells the half that is not sent")
    if not 0 <= sa.sequence <= sa.sequence_max:
        raise InvalidSa(f"sequence {sa.sequence} is not within 0 to {sa.sequence_max}")
    _check_shape(sa)
    if sa.queue is not None and sa.queue < 0:
        raise InvalidSa(f"queue {sa.queue} is none")
    if sa.protocol is SecurityProtocol.AH:
        _check_ah(sa)
    if len(sa.headers.dscp) != DSCP_VALUES or max(sa.headers.dscp) >= DSCP_VALUES:
        raise InvalidSa(f"a table of DSCPs has {DSCP_VALUES} entries below {DSCP_VALUES}")
    life = sa.lifetime
    _check_limits("seconds", life.soft_seconds, life.hard_seconds)
    _check_limits("packets", life.soft_packets, life.hard_packets)
    _check_limits("octets", life.soft_octets, life.hard_octets)


# Ours. The smallest still holds an IPv6 header and shows how long the packet is; the largest is what a datagram carries
# under any suite. A hundred thousand a second is more than one core sends.
PAYLOAD_MIN, PAYLOAD_MAX = 64, 65_400
RATE_MAX = 100_000
# More than paths reorder in the time that a gap is waited for (:data:`esp.aggfrag.LONGEST_GAP`) at 600 a second.
REORDER_MAX = 64


def _check_ah(sa: SaParameters) -> None:
    if sa.suite.cipher is not Cipher.NULL:
        raise InvalidSa(f"AH encrypts nothing: it takes suites such as null-sha256, not {sa.suite.name}")
    if sa.encapsulation is not Encapsulation.RAW:
        raise InvalidSa("AH covers the outer addresses: it goes raw, without UDP")
    if sa.confidentiality is not None or sa.aggregation is not None:
        raise InvalidSa("AH hides nothing: it goes without padding, dummies and aggregation")


def _check_shape(sa: SaParameters) -> None:
    for what, shape in (("padding", sa.confidentiality), ("aggregation", sa.aggregation)):
        if shape is None:
            continue
        if sa.mode is not Mode.TUNNEL:
            raise InvalidSa(f"{what} is for tunnel mode, not for {sa.mode.value} mode")  # RFC 4303 §2.7, RFC 9347 §2.1
        if not PAYLOAD_MIN <= shape.octets <= PAYLOAD_MAX:
            raise InvalidSa(f"{what} to {shape.octets} octets is not within {PAYLOAD_MIN} to {PAYLOAD_MAX}")
    if sa.confidentiality is not None and sa.aggregation is not None:
        raise InvalidSa("aggregation pads and fills by itself: it goes without padding and dummies")
    if (
        sa.confidentiality is not None
        and (after := sa.confidentiality.dummy_after) is not None
        and after < 1 / RATE_MAX
    ):
        raise InvalidSa(f"a dummy after {after} seconds is too soon")
    if sa.aggregation is not None and not 0 <= sa.aggregation.reorder <= REORDER_MAX:
        raise InvalidSa(f"a reorder window of {sa.aggregation.reorder} is not within 0 to {REORDER_MAX}")
    if sa.aggregation is not None and not 0 < sa.aggregation.per_second <= RATE_MAX:
        raise InvalidSa(f"{sa.aggregation.per_second} payloads a second is not within 0 to {RATE_MAX}")


def _check_limits(unit: str, soft: float | None, hard: float | None) -> None:
    for limit in (soft, hard):
        if limit is not None and limit <= 0:
            raise InvalidSa(f"a lifetime of {limit} {unit} is none at all")
    if soft is not None and hard is not None and soft > hard:
        raise InvalidSa(f"soft lifetime {soft} {unit} is beyond the hard {hard}")
