"""ESP on the wire (RFC 4303 §2) and what shares its UDP port (RFC 3948 §2)."""

from __future__ import annotations

import struct
from enum import Enum
from functools import lru_cache

from esp.errors import DropReason

# --- specification ---

# ESP packet (RFC 4303 §2): SPI 4 | sequence number 4 | IV | payload, TFC padding | padding 0-255 | pad length 1 |
# next header 1 | ICV. IV and ICV have the suite's lengths.
ESP_HEADER = struct.Struct("!II")

# RFC 3948 §2.2, §2.3: behind UDP, four zero octets where ESP has its SPI announce another protocol (IKE there, KINK
# here); a single octet of ones keeps a NAT mapping alive.
NON_ESP_MARKER = bytes(4)
KEEPALIVE = b"\xff"

# Next header (RFC 4303 §2.6): what the payload is.
IPV4_IN_ESP = 4
IPV6_IN_ESP = 41
NO_NEXT_HEADER = 59

MAX_PAD_OCTETS = 255


class Kind(Enum):
    """What a datagram on the ESP port is."""

    KEEPALIVE = "keepalive"
    CONTROL = "control"
    ESP = "esp"
    JUNK = "junk"


def classify(datagram: bytes) -> Kind:
    """Tell apart what arrives on the ESP port (RFC 3948 §2).

    Anything too short to name an SPI is JUNK; whether it is an ESP packet that an SA takes is not decided here.
    """
    if datagram == KEEPALIVE:
        return Kind.KEEPALIVE
    if len(datagram) < len(NON_ESP_MARKER):
        return Kind.JUNK
    return Kind.CONTROL if datagram.startswith(NON_ESP_MARKER) else Kind.ESP


# Every padding there is, with its pad length behind it: 1, 2, 3, ... (RFC 4303 §2.4).
_PADDING = tuple(bytes(range(1, pad + 1)) + bytes([pad]) for pad in range(MAX_PAD_OCTETS + 1))


@lru_cache
def build_trailers(block: int, next_header: int) -> tuple[bytes, ...]:
    """The shortest trailer for each remainder: element ``len(payload) % block`` fills the last block.

    Args:
        block: octets; payload and trailer together are a multiple of it (RFC 4303 §2.4).
        next_header: protocol number of the payload.
    """
    return tuple(_PADDING[-(remainder + 2) % block] + bytes([next_header]) for remainder in range(block))


def parse_trailer(text: bytes) -> tuple[int, int] | DropReason:
    """Where the payload of the decrypted ``text`` ends, and its next header (RFC 4303 §2.4-2.6).

    The padding is inspected as RFC 4303 §2.4 asks: nothing else would notice a sender that hides octets there.
    """
    octets = len(text)
    if octets < 2:
        return DropReason.MALFORMED
    pad = text[-2]
    end = octets - 2 - pad
    if text[end:-1] != _PADDING[pad]:  # so too where it would begin before the text, for then it is shorter
        return DropReason.BAD_PADDING
    return end, text[-1]
