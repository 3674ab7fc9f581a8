"""How long an SA lives: hard limits as agreed, soft ones spread at random before them (RFC 4430 §3.6, RFC 2407 §4.5).

Seconds and kilobytes are negotiated, packets are each host's own. The initiator rekeys before any of them. A responder
sets a soft limit where it alone can know the hard one: nobody else would rekey before that.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import TYPE_CHECKING

from esp.sa import Lifetime, SaParameters
from kinkvpn.proto.retransmit import FULL_CYCLE
from kinkvpn.wire.ipsec_doi import DEFAULT_LIFE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from kinkvpn.proto.proposal import Terms
    from kinkvpn.proto.settings import PolicySettings

# Without extended sequence numbers an SA ends before its counter does (RFC 4303 §3.3.3, docs/decisions.md).
HARD_PACKETS = 2**31
# Ours. With them the cipher ends first (RFC 4304 §4): 2^36 of the longest datagrams are 2^48 blocks of AES under
# one key, after which it differs from randomness with a chance of 2^-32. At a million packets a second: 19 hours.
HARD_PACKETS_ESN = 2**36
# Ours. Of a life in packets or octets an eighth at most, a sixteenth at least is left when the initiator rekeys: at
# the full rate of this engine a gigabyte leaves a second and more, which is two transmissions.
_COUNT_MARGIN = 16
# Ours. A responder counts what the initiator counts, and may have been told the same limit: it comes after the
# initiator's whole margin, with a thirty-second of the life left at most.
_LATE_MARGIN = 64


# A uniform number in [0, 1) out of random octets.
_FRACTION = struct.Struct("!I")


def draw_fraction(random: Callable[[int], bytes]) -> float:
    """A number in [0, 1) out of four octets of ``random``, to spread soft lifetimes by."""
    return float(_FRACTION.unpack(random(_FRACTION.size))[0]) / 2**32


def soft_seconds(hard: int, fraction: float) -> float:
    """When to rekey: hard life minus a random time in [T-retrans, T-rekey] (RFC 4430 §3.6).

    Args:
        hard: agreed life in seconds.
        fraction: uniform in [0, 1).
    """
    # T-retrans has to cover a whole exchange; T-rekey is at least twice that. A life too short for it is quartered.
    retrans = min(FULL_CYCLE, hard / 4)
    return hard - retrans * (1 + fraction)


def soft_count(hard: int, fraction: float, margin: int = _COUNT_MARGIN) -> int:
    """The same for a life in packets or octets: ``1/margin`` to ``2/margin`` of it is left for the rekey.

    Args:
        hard: agreed life in packets or octets.
        fraction: uniform in [0, 1).
        margin: what part of the life is left at least.
    """
    return hard - int(hard * (1 + fraction) / margin)


def initiated(policy: PolicySettings, terms: Terms, fraction: float | None) -> Lifetime:
    """What an initiator installs.

    Args:
        policy: ours.
        terms: agreed; before there is an answer, offered.
        fraction: uniform in [0, 1); None for an SA that is not established yet and cannot be rekeyed.
    """
    seconds = terms.seconds or policy.lifetime_seconds
    packets = _packets(policy, terms)
    octets = None if terms.kilobytes is None else 1024 * terms.kilobytes
    limits = Lifetime(hard_seconds=seconds, hard_packets=packets, hard_octets=octets)
    if fraction is None:
        return limits
    return replace(
        limits,
        soft_seconds=soft_seconds(seconds, fraction),
        soft_packets=soft_count(packets, fraction),
        soft_octets=None if octets is None else soft_count(octets, fraction),
    )


def answered_seconds(policy: PolicySettings, offered: Terms) -> int:
    """The hard life of a responder's pair, in seconds."""
    return min(offered.seconds or DEFAULT_LIFE_SECONDS, policy.lifetime_seconds)


def answered(policy: PolicySettings, offered: Terms, fraction: float) -> Lifetime:
    """What a responder installs: the shorter of what was offered and what its policy allows (RFC 4430 §3.2).

    Args:
        policy: ours.
        offered: the initiator's.
        fraction: uniform in [0, 1).
    """
    seconds = answered_seconds(policy, offered)
    unknown = offered.seconds is None and seconds < DEFAULT_LIFE_SECONDS
    packets = _packets(policy, offered)
    kilobytes = min((life for life in (offered.kilobytes, policy.lifetime_kilobytes) if life is not None), default=None)
    octets = None if kilobytes is None else 1024 * kilobytes
    return Lifetime(
        hard_seconds=seconds,
        soft_seconds=soft_seconds(seconds, fraction) if unknown else None,
        hard_packets=packets,
        soft_packets=soft_count(packets, fraction, _LATE_MARGIN),
        hard_octets=octets,
        soft_octets=soft_count(octets, fraction) if octets is not None and offered.kilobytes is None else None,
    )


def _packets(policy: PolicySettings, terms: Terms) -> int:
    most = HARD_PACKETS_ESN if terms.esn and not terms.suite.legacy else HARD_PACKETS
    return most if policy.lifetime_packets is None else min(policy.lifetime_packets, most)


def aged(outbound: SaParameters, seconds: float) -> SaParameters:
    """``outbound`` for a peer that installed its inbound twin up to ``seconds`` ago: it ends no later than that one.

    Each host counts from its own installation, and the responder, which installs first, drops both SAs when the first
    of them ends: an initiator that learned of the pair late would else send into a hole.
    """
    life = outbound.lifetime
    assert life.hard_seconds is not None
    # An exchange may take longer than a very short life: then the second that is left brings the expiry about.
    hard = max(life.hard_seconds - seconds, 1.0)
    soft = None if life.soft_seconds is None else min(life.soft_seconds, hard)
    return replace(outbound, lifetime=replace(life, hard_seconds=hard, soft_seconds=soft))
