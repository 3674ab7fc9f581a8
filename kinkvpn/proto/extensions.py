"""What two kinkvpn hosts tell each other beyond RFC 4430, on the RFC's own channel: status notifies of the range for
private use (RFC 2408 §3.14.1), which a peer that does not know them ignores (RFC 4430 §5.5). docs/extensions.md is the
specification. Octets in and out here; what is made of it is in ``acquaintance``.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from enum import IntFlag
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING

from esp.sa import Endpoint
from kinkvpn.errors import MalformedMessage
from kinkvpn.proto.events import Count, Tally
from kinkvpn.wire.cursor import Reader
from kinkvpn.wire.ipsec_doi import LAST_ERROR_NOTIFY, NotifyType, Protocol
from kinkvpn.wire.isakmp import Notify
from kinkvpn.wire.kink import Isakmp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from kinkvpn.proto.events import Effect
    from kinkvpn.wire.isakmp import IsakmpPayload
    from kinkvpn.wire.kink import KinkPayload

# The Notification Data of each begins alike: whoever else uses these numbers means something else by them.
# +---------------+---------------+---------------+---------------+
# |      'K'      |      'V'      |      'P'      |      'N'      |
# +---------------+---------------+---------------+---------------+
MAGIC = b"KVPN"
# CAPABILITIES
# +---------------+---------------+---------------+---------------+
# |                             Flags                             |  what the sender understands, and where it is
# +---------------+---------------+---------------+---------------+
_CAPABILITIES = struct.Struct("!I")
# OBSERVED_ENDPOINT
# +---------------+---------------+---------------+---------------+
# |    Family     |    Marked     |             Port              |  4 or 6; 1 behind the non-ESP marker, else 0
# +---------------+---------------+---------------+---------------+
# |                Address (4 or 16 octets)                       |
# +---------------+---------------+---------------+---------------+
_OBSERVED = struct.Struct("!BBH")
_ADDRESSES: dict[int, type[IPv4Address | IPv6Address]] = {4: IPv4Address, 6: IPv6Address}
# INNER_MTU
# +---------------+---------------+---------------+---------------+
# |                              MTU                              |  octets of the largest inner packet
# +---------------+---------------+---------------+---------------+
_INNER_MTU = struct.Struct("!I")
# USE_AGGFRAG, of one SA: Protocol-ID ESP and the sender's inbound SPI
# +---------------+---------------+---------------+---------------+
# |     Flags     |  requirement flags of RFC 9347 §6.1.4: none of them is ours to set
# +---------------+
_USE_AGGFRAG = MAGIC + b"\0"
# MACHINE
# +---------------+---------------+---------------+---------------+
# |                      Machine (16 octets)                      |  which of its principal's the sender is
# +---------------+---------------+---------------+---------------+
MACHINE_OCTETS = 16
# PADDING: any number of octets behind the magic, which say nothing. USE_AGGFRAG is of one SA: the Quick Mode that it
# stands in has read it. CONFIGURATION is what a command asks for, not what a host is like: ``lease`` reads it.
_READ_ELSEWHERE = frozenset(
    {NotifyType.KINKVPN_PADDING, NotifyType.KINKVPN_USE_AGGFRAG, NotifyType.KINKVPN_CONFIGURATION}
)
# RFC 791 §3.1: every host takes a datagram of this size; no interface is narrower.
SMALLEST_MTU = 576
LARGEST_MTU = 65_535
# Ours. Most peers say the same, and what is said to each changes when it moves: a thousand peers' words are 200 kB.
MAX_REMEMBERED = 1024
# Ours. OBSERVED_ENDPOINT with an IPv6 address has 24 octets. A peer can say 60 kB instead, and each time other ones.
LONGEST_REMEMBERED = 64


class Capability(IntFlag):
    """Flags of CAPABILITIES. Those that are not here are the future's, and ignored."""

    KINK_ON_ESP_PORT = 1  # KINK behind the non-ESP marker, in and out
    OBSERVED_ENDPOINT = 2  # sends and reads that notify
    INNER_MTU = 4  # sends and reads that notify
    TFC_PADDING = 8  # takes TFC padding, in tunnel mode (RFC 4303 §2.7)
    FRAGMENTS = 16  # takes fragments without ports on SAs by ports, once it has their packet's first (RFC 4301 §7.3)
    BEHIND_NAT = 1 << 16  # the sender knows that it is


UNDERSTOOD = (
    Capability.KINK_ON_ESP_PORT
    | Capability.OBSERVED_ENDPOINT
    | Capability.INNER_MTU
    | Capability.TFC_PADDING
    | Capability.FRAGMENTS
)
UNDERSTOOD_BEHIND_NAT = UNDERSTOOD | Capability.BEHIND_NAT


@dataclass(frozen=True, slots=True)
class Observed:
    """Where the sender sees the receiver; ``marked`` on the ESP port, behind the non-ESP marker (RFC 3948 §2.2)."""

    endpoint: Endpoint
    marked: bool


@dataclass(frozen=True, slots=True)
class Told:
    """The extensions in one message. Without ``capabilities`` there are none: they announce the others."""

    capabilities: Capability
    observed: Observed | None = None
    inner_mtu: int | None = None


@lru_cache(MAX_REMEMBERED)
def build(told: Told) -> tuple[Notify, ...]:
    """``told`` as notifies."""
    bodies = [(NotifyType.KINKVPN_CAPABILITIES, _CAPABILITIES.pack(told.capabilities))]
    if told.observed is not None:
        bodies.append((NotifyType.KINKVPN_OBSERVED_ENDPOINT, _pack_observed(told.observed)))
    if told.inner_mtu is not None:
        bodies.append((NotifyType.KINKVPN_INNER_MTU, _INNER_MTU.pack(told.inner_mtu)))
    # Of no SA: protocol ISAKMP, no SPI (RFC 2408 §3.14).
    return tuple(Notify(Protocol.ISAKMP, b"", kind, MAGIC + body) for kind, body in bodies)


def filled(
    seal: Callable[[tuple[KinkPayload, ...]], bytes], payloads: tuple[KinkPayload, ...], octets: int
) -> tuple[KinkPayload, ...]:
    """``payloads`` with PADDING, so that what ``seal`` makes of them has ``octets`` octets, or as few less as its
    cipher allows; unchanged where they are too many already.
    """
    room = octets - len(seal(attach(payloads, (_padding(0),))))
    while room >= 0:
        found = attach(payloads, (_padding(room),))
        over = len(seal(found)) - octets
        if over <= 0:
            return found
        room -= over
    return payloads


def _padding(octets: int) -> Notify:
    return Notify(Protocol.ISAKMP, b"", NotifyType.KINKVPN_PADDING, MAGIC + bytes(octets))


def use_aggfrag(spi: int) -> Notify:
    """That the pair of SAs is to carry AGGFRAG payloads (RFC 9347 §5.1); ``spi`` is the sender's inbound one."""
    return Notify(Protocol.ESP, spi.to_bytes(4), NotifyType.KINKVPN_USE_AGGFRAG, _USE_AGGFRAG)


def wants_aggfrag(payloads: Iterable[IsakmpPayload]) -> bool:
    """Whether the sender of this Quick Mode wants its pair of SAs to carry AGGFRAG payloads.

    Flags that ask for something else than :func:`use_aggfrag` does (congestion control, no fragments) are not
    understood, and so it is as if nothing had been asked for.
    """
    return any(
        isinstance(each, Notify) and each.type == NotifyType.KINKVPN_USE_AGGFRAG and each.value == _USE_AGGFRAG
        for each in payloads
    )


def _pack_observed(observed: Observed) -> bytes:
    # An interface (fe80::1%2) means nothing at the other end of a wire.
    address = ip_address(observed.endpoint.address.partition("%")[0])
    return _OBSERVED.pack(address.version, observed.marked, observed.endpoint.port) + address.packed


def machine_notify(machine: bytes) -> Notify:
    """That the sender is ``machine`` of its principal's, of 16 octets."""
    return Notify(Protocol.ISAKMP, b"", NotifyType.KINKVPN_MACHINE, MAGIC + machine)


def machine_of(payloads: Iterable[KinkPayload]) -> bytes:
    """Which of its principal's machines has sent these; empty where they do not say so, or cannot be read."""
    named = (each for each in status_notifies(payloads) if each.type == NotifyType.KINKVPN_MACHINE)
    for notify in named:
        try:
            machine = parse(notify)
        except MalformedMessage:
            continue
        if isinstance(machine, bytes):
            return machine
    return b""


def parse(notify: Notify) -> Capability | Observed | int | bytes | None:
    """What one notify says: flags, an endpoint, an MTU or a machine; None for one that is not ours.

    Raises:
        MalformedMessage: ours by number and magic, and not as docs/extensions.md has it.
    """
    if not notify.value.startswith(MAGIC):
        return None
    return (_known if len(notify.value) <= LONGEST_REMEMBERED else _parse)(notify)


def _parse(notify: Notify) -> Capability | Observed | int | bytes | None:
    reader = Reader(notify.value)
    reader.take(len(MAGIC), "magic")
    if notify.type == NotifyType.KINKVPN_CAPABILITIES:
        (flags,) = reader.unpack(_CAPABILITIES, "Flags")
        return Capability(flags) & UNDERSTOOD_BEHIND_NAT  # what follows is the future's, as its flags are
    if notify.type == NotifyType.KINKVPN_OBSERVED_ENDPOINT:
        return _read_observed(reader)
    if notify.type == NotifyType.KINKVPN_INNER_MTU:
        (mtu,) = reader.unpack(_INNER_MTU, "MTU")
        reader.expect_end("MTU")
        if not SMALLEST_MTU <= mtu <= LARGEST_MTU:
            raise reader.fail("MTU", f"{mtu} octets are not within {SMALLEST_MTU} to {LARGEST_MTU}")
        return int(mtu)
    if notify.type == NotifyType.KINKVPN_MACHINE:
        machine = reader.take(MACHINE_OCTETS, "Machine")
        reader.expect_end("Machine")
        return machine
    return None


_known = lru_cache(MAX_REMEMBERED)(_parse)


def _read_observed(reader: Reader) -> Observed:
    family, marked, port = reader.unpack(_OBSERVED, "Family")
    kind = _ADDRESSES.get(family)
    if kind is None:
        raise reader.fail("Family", f"{family} is neither 4 nor 6")
    if marked > 1 or port == 0:
        raise reader.fail("Marked, Port", f"{marked} and {port}")
    address = kind(reader.take(4 if family == 4 else 16, "Address"))
    reader.expect_end("Address")
    return Observed(Endpoint(str(address), port), bool(marked))


def read(payloads: Iterable[KinkPayload]) -> tuple[Told | None, list[Effect]]:
    """The extensions in an authentic message, and what is to be counted: the notifies that are not ours, and those
    of ours that cannot be read, which are as good as absent. Error notifies are left to whoever asked.
    """
    told: Told | None = None
    found: list[Observed | int] = []
    counts: list[Effect] = []
    for notify in status_notifies(payloads):
        if notify.type in _READ_ELSEWHERE and notify.value.startswith(MAGIC):
            continue
        try:
            value = parse(notify)
        except MalformedMessage:
            counts.append(Count(Tally.EXTENSION_MALFORMED))
            continue
        if value is None:
            counts.append(Count(Tally.NOTIFY_IGNORED))
        elif isinstance(value, Capability):
            told = Told(value)
        elif not isinstance(value, bytes):  # whose machine it is, the responder has seen
            found.append(value)
    if told is not None:
        for value in found:
            told = replace(told, observed=value) if isinstance(value, Observed) else replace(told, inner_mtu=value)
    return told, counts


def status_notifies(payloads: Iterable[KinkPayload]) -> list[Notify]:
    """Every status notify of a message (RFC 2408 §3.14.1)."""
    inside = (each for payload in payloads if isinstance(payload, Isakmp) for each in payload.payloads)
    return [each for each in inside if isinstance(each, Notify) and each.type > LAST_ERROR_NOTIFY]


def attach(payloads: Sequence[KinkPayload], notifies: tuple[Notify, ...]) -> tuple[KinkPayload, ...]:
    """``payloads`` with ``notifies`` behind the others of the first Quick Mode, where RFC 4430 §6.3 has its [N]; in
    one of their own where there is none, as in STATUS (§6.5).
    """
    if not notifies:
        return tuple(payloads)
    for index, payload in enumerate(payloads):
        if isinstance(payload, Isakmp):
            extended = replace(payload, payloads=(*payload.payloads, *notifies))
            return (*payloads[:index], extended, *payloads[index + 1 :])
    return (*payloads, Isakmp(notifies))
