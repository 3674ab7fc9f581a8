"""Why a packet was not delivered, and what a caller did wrong."""

from __future__ import annotations

from enum import Enum


class DropReason(Enum):
    """One member per reason a packet can be dropped. Each drop counts under exactly one.

    Most of them are auditable events, whose number an implementation should keep (RFC 4301 §9, RFC 4303 §4).
    """

    # Members are equal to themselves alone. Enum's own hash is a Python function; so a count takes 50 ns, not 200.
    __hash__ = object.__hash__

    # Outbound: from the inside to the link.
    NOT_IP = "not_ip"  # neither IPv4 nor IPv6, or a header that contradicts itself (RFC 791, RFC 8200); both ways
    NO_POLICY = "no_policy"  # no SPD entry matches: default deny (RFC 4301 §4.4.1, §5)
    POLICY_DISCARD = "policy_discard"  # a DISCARD entry matched (RFC 4301 §4.4.1)
    BYPASS_NOT_ROUTED = "bypass_not_routed"  # a BYPASS entry matched, and a TUN has no way around itself
    HOLD_QUEUE_FULL = "hold_queue_full"  # waiting for an SA, and the policy's queue is full: the oldest leaves
    HOLD_EXPIRED = "hold_expired"  # waited for an SA longer than the hold time
    SEQUENCE_EXHAUSTED = "sequence_exhausted"  # the counter must not cycle (RFC 4303 §2.2, §3.3.3)
    TOO_BIG = "too_big"  # for its path, or any datagram, and nobody may fragment it (RFC 4301 §8.2.1)
    # A fragment: in transport mode (RFC 4303 §3.3.4), or not the first where ports matter to the peer (RFC 4301 §7.3).
    NOT_WHOLE = "not_whole"
    HEADER_OUTSIDE = "header_outside"  # transport mode, and options that stand in front of ESP (RFC 4303 §3.1.1)
    PACE_QUEUE_FULL = "pace_queue_full"  # more traffic than the constant rate carries (RFC 9347 §2.4.1)
    LINK_REFUSED = "link_refused"  # the kernel would not take the datagram
    HOST_QUEUE_FULL = "host_queue_full"  # the host sent faster than we read; a TUN drops those itself, and counts them
    # Inbound: from the link to the inside.
    MALFORMED = "malformed"  # shorter than the SA's header, IV, ICV and trailer (RFC 4303 §2)
    UNKNOWN_SPI = "unknown_spi"  # no inbound SA (RFC 4303 §3.4.2)
    # Its hard lifetime is over, and it went with this packet (RFC 4301 §4.4.2.1). Either way: the packet waited in it.
    SA_EXPIRED = "sa_expired"
    REPLAYED = "replayed"  # this sequence number was accepted already (RFC 4303 §3.4.3)
    TOO_OLD = "too_old"  # left of the replay window (RFC 4303 §3.4.3)
    AUTHENTICATION_FAILED = "authentication_failed"  # ICV wrong (RFC 4303 §3.4.4)
    BAD_PADDING = "bad_padding"  # pad length or pad octets wrong (RFC 4303 §2.4, §3.4.4.1)
    BAD_NEXT_HEADER = "bad_next_header"  # not what the SA's mode carries (RFC 4303 §2.6)
    DUMMY = "dummy"  # next header 59: meant to be thrown away (RFC 4303 §2.6)
    FRAGMENT_LATE = "fragment_late"  # an AGGFRAG payload that was given up before it came (RFC 9347 §2.2.3)
    FRAGMENT_MISSING = "fragment_missing"  # a packet with fragments in a payload that is lost (RFC 9347 §2.5)
    CE_ON_NOT_ECT = "ce_on_not_ect"  # marked by the path, for a transport that knows no marks (RFC 6040 §4.2)
    SELECTOR_MISMATCH = "selector_mismatch"  # the inner packet is not of this SA's traffic (RFC 4301 §5.2)
    NOT_PROTECTED = "not_protected"  # in the clear, and a PROTECT entry has it (RFC 4301 §5.2)
    TUN_REFUSED = "tun_refused"  # the kernel would not take the packet
    # Either way, and with the native engine only: more for the control than it takes (docs/native.md).
    ENGINE_BUSY = "engine_busy"


class EspError(Exception):
    """The engine was misused; the message says how. Never raised by bytes from the network."""


class NotSealed(EspError):
    """An SA cannot carry this packet; ``reason`` is what it counts as."""

    reason: DropReason


class SequenceExhausted(NotSealed):
    """The SA's send counter has reached its end; it needs a successor (RFC 4303 §3.3.3)."""

    reason = DropReason.SEQUENCE_EXHAUSTED


class NotWhole(NotSealed):
    """A fragment, in transport mode (RFC 4303 §3.3.4)."""

    reason = DropReason.NOT_WHOLE


class HeaderOutside(NotSealed):
    """In transport mode: options or extension headers that would have to stand in front of ESP (RFC 4303 §3.1.1)."""

    reason = DropReason.HEADER_OUTSIDE


class AuthenticationFailed(Exception):
    """The ICV is wrong. Carries nothing: neither ICV, nor key, nor text."""


class UnknownSuite(EspError):
    """No such suite in :mod:`esp.suite`."""


class UnknownSa(EspError):
    """No SA is installed under that SPI."""


class InvalidSa(EspError):
    """The SA's parameters contradict each other: key length, SPI range, window, lifetimes."""


class InvalidPolicy(EspError):
    """The policy contradicts itself or another one."""
