"""Frames out of a capture file: pcap and pcapng, read as a stream, one frame in memory at a time.

Own code, for no library does it (looked at: dpkt 1.9.8, scapy 2.6). dpkt takes the first interface of a pcapng file
for all of them, and hands out the last frame of a file that was cut off as if it were whole; scapy (24 MB) ends such a
file without a word and numbers the interfaces of a second section wrongly. A decoder that says "all of it verified"
has to know whether it saw all of it. scapy writes the files that the tests read.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final

from kinkvpn.errors import KinkvpnError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Specification: draft-ietf-opsawg-pcap §4.
PCAP_TICKS: Final = {0xA1B2C3D4: 1_000_000, 0xA1B23C4D: 1_000_000_000}
PCAP_HEADER: Final = 24
LINKTYPE_BITS: Final = 0xFFFF  # above them the length of the frame check sequence

# Specification: draft-ietf-opsawg-pcapng §4.
SECTION: Final = 0x0A0D0D0A
INTERFACE: Final = 1
PACKET: Final = 2  # obsolete, still written by old tools
SIMPLE: Final = 3
ENHANCED: Final = 6
BYTE_ORDER_MAGIC: Final = b"\x1a\x2b\x3c\x4d"
OPTION_END, OPTION_TSRESOL, OPTION_TSOFFSET = 0, 9, 14
DEFAULT_TICKS: Final = 1_000_000

GZIP: Final = b"\x1f\x8b"

# Ours. libpcap itself refuses frames above 256 KiB (MAXIMUM_SNAPLEN); what claims more is not a length.
MAX_FRAME: Final = 262_144
# A pcapng block may hold certificates or names beside frames; 16 MiB of them is not a capture of packets any more.
MAX_BLOCK: Final = 16 << 20
MAX_INTERFACES: Final = 4096  # a host of containers has hundreds


class NotCapture(KinkvpnError):
    """There is no such file, or it is neither pcap nor pcapng."""


class CaptureDamaged(KinkvpnError):
    """The file is a capture up to some octet and not beyond; the frames before it were good."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One captured frame.

    Args:
        number: from 1, as tcpdump and Wireshark count them.
        time: POSIX seconds; None where the file has none (pcapng's simple packets).
        link_type: LINKTYPE_ number.
        octets: as captured.
        length: octets that it had on the wire.
    """

    number: int
    time: float | None
    link_type: int
    octets: bytes
    length: int


@dataclass(frozen=True, slots=True)
class Interface:
    """What a pcapng file says of an interface; ``ticks`` a second, ``offset`` in seconds."""

    link_type: int
    snaplen: int
    ticks: int = DEFAULT_TICKS
    offset: int = 0


class _Source:
    """The file with a count of what was read, so that an error can say where."""

    __slots__ = ("_file", "position")

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.position = 0

    def read(self, count: int) -> bytes:
        """``count`` octets, fewer at the end of the file only: a pipe may deliver them in pieces.

        Raises:
            CaptureDamaged: the file cannot be read on.
        """
        octets = b""
        try:
            while len(octets) < count and (more := self._file.read(count - len(octets))):
                octets += more
        except OSError as error:
            raise CaptureDamaged(f"cannot be read beyond octet {self.position}: {error.strerror}") from error
        self.position += len(octets)
        return octets

    def take(self, count: int, what: str) -> bytes:
        """``count`` octets. Raises CaptureDamaged if the file ends before."""
        octets = self.read(count)
        if len(octets) < count:
            raise CaptureDamaged(f"the file ends at octet {self.position}, in the middle of {what}")
        return octets


def read_frames(file: BinaryIO) -> Iterator[Frame]:
    """Every frame, in the order of the file.

    Raises:
        NotCapture: before the first frame.
        CaptureDamaged: after the last frame that was good.
    """
    source = _Source(file)
    magic = source.read(4)
    if magic == SECTION.to_bytes(4, "big"):
        return _read_pcapng(source)
    for order in ("<", ">"):
        if len(magic) == 4 and (ticks := PCAP_TICKS.get(struct.unpack(f"{order}I", magic)[0])):
            return _read_pcap(source, order, ticks)
    if magic.startswith(GZIP):
        raise NotCapture("compressed: gunzip it first, or `zcat FILE | kinkvpn decode -`")
    raise NotCapture("neither pcap nor pcapng" if magic else "empty")


def _read_pcap(source: _Source, order: str, ticks: int) -> Iterator[Frame]:
    (link_type,) = struct.unpack(f"{order}I", source.take(PCAP_HEADER - 4, "its header")[-4:])
    record = struct.Struct(f"{order}4I")
    number = 0
    while start := source.read(record.size):
        number += 1
        what = f"frame {number}"
        start += source.take(record.size - len(start), what)
        seconds, parts, captured, length = record.unpack(start)
        if captured > MAX_FRAME:
            raise CaptureDamaged(f"frame {number} at octet {source.position - record.size} claims {captured} octets")
        yield Frame(number, seconds + parts / ticks, link_type & LINKTYPE_BITS, source.take(captured, what), length)


def _read_pcapng(source: _Source) -> Iterator[Frame]:
    order, interfaces, number = "<", list[Interface](), 0
    start = SECTION.to_bytes(4, "big")
    while start:
        start += source.take(4 - len(start), "a block")
        if start == SECTION.to_bytes(4, "big"):
            order, interfaces = _read_section(source), []
        else:
            (kind,) = struct.unpack(f"{order}I", start)
            body = _read_block(source, order)
            if kind == INTERFACE:
                if len(interfaces) == MAX_INTERFACES:
                    raise CaptureDamaged(f"more than {MAX_INTERFACES} interfaces")
                interfaces.append(_read_interface(body, order, source))
            elif kind in (ENHANCED, PACKET, SIMPLE):
                number += 1
                yield _read_packet(kind, body, order, interfaces, number)
        start = source.read(4)


def _read_section(source: _Source) -> str:
    """Reads a section header block after its type; the byte order that it announces."""
    head = source.take(8, "a section header")
    order = {BYTE_ORDER_MAGIC: ">", BYTE_ORDER_MAGIC[::-1]: "<"}.get(head[4:])
    if order is None:
        raise CaptureDamaged(f"no byte order in the section header before octet {source.position}")
    (length,) = struct.unpack(f"{order}I", head[:4])
    if not 28 <= length <= MAX_BLOCK or length % 4:
        raise CaptureDamaged(f"a section header of {length} octets before octet {source.position}")
    body = source.take(length - 12, "a section header")
    (major,) = struct.unpack_from(f"{order}H", body)
    if major != 1:
        raise CaptureDamaged(f"pcapng of major version {major}")
    return order


def _read_block(source: _Source, order: str) -> bytes:
    """The body of a block, after its type."""
    (length,) = struct.unpack(f"{order}I", source.take(4, "a block"))
    if not 12 <= length <= MAX_BLOCK or length % 4:
        raise CaptureDamaged(f"a block of {length} octets before octet {source.position}")
    body = source.take(length - 8, "a block")
    if struct.unpack(f"{order}I", body[-4:])[0] != length:
        raise CaptureDamaged(f"a block whose two lengths differ before octet {source.position}")
    return body[:-4]


def _read_interface(body: bytes, order: str, source: _Source) -> Interface:
    if len(body) < 8:
        raise CaptureDamaged(f"an interface description of {len(body)} octets before octet {source.position}")
    link_type, _, snaplen = struct.unpack_from(f"{order}HHI", body)
    ticks, offset, at = DEFAULT_TICKS, 0, 8
    while at + 4 <= len(body):
        code, length = struct.unpack_from(f"{order}HH", body, at)
        value = body[at + 4 : at + 4 + length]
        if code == OPTION_END:
            break
        if code == OPTION_TSRESOL and length == 1 and value:
            ticks = (2 if value[0] & 0x80 else 10) ** (value[0] & 0x7F)
        elif code == OPTION_TSOFFSET and length == 8 and len(value) == 8:
            (offset,) = struct.unpack(f"{order}q", value)
        at += 4 + length + -length % 4
    return Interface(link_type, snaplen, ticks, offset)


def _read_packet(kind: int, body: bytes, order: str, interfaces: list[Interface], number: int) -> Frame:
    layout = struct.Struct(order + {ENHANCED: "IIIII", PACKET: "HHIIII", SIMPLE: "I"}[kind])
    if len(body) < layout.size:
        raise CaptureDamaged(f"frame {number} has a block of {len(body)} octets")
    fields, octets = layout.unpack_from(body), body[layout.size :]
    index = 0 if kind == SIMPLE else fields[0]
    if index >= len(interfaces):
        raise CaptureDamaged(f"frame {number} is of interface {index}, which the file does not describe")
    interface = interfaces[index]
    if kind == SIMPLE:
        captured = min(fields[0], interface.snaplen or fields[0], len(octets))
        return Frame(number, None, interface.link_type, octets[:captured], fields[0])
    high, low, captured, length = fields[-4:]
    if captured > len(octets):
        raise CaptureDamaged(f"frame {number} claims {captured} octets of a block with {len(octets)}")
    time = (high << 32 | low) / interface.ticks + interface.offset
    return Frame(number, time, interface.link_type, octets[:captured], length)
