"""Captures for the decoder: files as scapy writes them, frames of every link type, and messages made to order."""

from __future__ import annotations

import io
import struct
import warnings
from typing import TYPE_CHECKING, Any

from support.vectors import RACOON2, load_vector

from kinkvpn.decode.capture import Frame
from kinkvpn.decode.datagrams import Datagram, Extractor
from kinkvpn.decode.keyring import Keyring
from kinkvpn.decode.transcript import Transcript

with warnings.catch_warnings():
    # scapy imports ciphers that cryptography is about to drop; none of them is used here.
    warnings.simplefilter("ignore")
    from scapy.layers.inet import IP, UDP, fragment
    from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, fragment6
    from scapy.layers.ipsec import AH
    from scapy.layers.l2 import CookedLinux, CookedLinuxV2, Dot1Q, Ether, Loopback
    from scapy.packet import Raw
    from scapy.utils import PcapNgWriter, RawPcapWriter

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

__all__ = ["IP", "UDP", "CookedLinux", "CookedLinuxV2", "Dot1Q", "IPv6", "IPv6ExtHdrFragment", "Loopback"]
__all__ += ["AH", "IPv6ExtHdrDestOpt", "IPv6ExtHdrHopByHop", "PcapNgWriter", "Raw", "fragment", "fragment6"]

ETHERNET = 1
START = 1_795_426_748.5
KEYTABS = [RACOON2 / "common" / f"{host}.keytab" for host in "ab"]


def pcap(frames: Iterable[bytes], *, link_type: int = ETHERNET, nano: bool = False, order: str = "<") -> bytes:
    """A pcap file, a frame every tenth of a second."""
    file = io.BytesIO()
    file.close = lambda: None  # the writer closes what it writes
    writer = RawPcapWriter(file, linktype=link_type, nano=nano, endianness=order, sync=True)
    writer.write_header(None)
    for number, octets in enumerate(frames):
        parts = 100_000 * (number % 10) * (1000 if nano else 1)
        writer.write_packet(octets, sec=int(START) + number // 10, usec=parts, caplen=len(octets), wirelen=len(octets))
    return file.getvalue()


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    """A pcapng block."""
    body += bytes(-len(body) % 4)
    length = struct.pack(f"{order}I", 12 + len(body))
    return struct.pack(f"{order}I", kind) + length + body + length


def section(order: str = "<") -> bytes:
    """A pcapng section header."""
    return block(0x0A0D0D0A, struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1), order)


def interface(link_type: int, options: bytes = b"", order: str = "<") -> bytes:
    """A pcapng interface description."""
    return block(1, struct.pack(f"{order}HHI", link_type, 0, 0) + options, order)


def packet(octets: bytes, index: int = 0, ticks: int = int(START) * 1_000_000, order: str = "<") -> bytes:
    """A pcapng enhanced packet."""
    head = struct.pack(f"{order}IIIII", index, ticks >> 32, ticks & 0xFFFFFFFF, len(octets), len(octets))
    return block(6, head + octets, order)


def ether(**fields: Any) -> Any:
    """An Ethernet header with addresses: scapy would ask the network for them."""
    return Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02", **fields)


def frame(layers: Any, link_type: int = ETHERNET, number: int = 1, cut: int | None = None) -> Frame:
    """scapy's octets as a frame, perhaps ``cut`` short."""
    octets = bytes(layers)
    return Frame(number, START + number / 10, link_type, octets[:cut], len(octets))


def udp(message: bytes, source: str = "192.0.2.1", destination: str = "192.0.2.2", port: int = 910) -> Any:
    """A UDP datagram in IP of the addresses' version."""
    ip = IPv6(src=source, dst=destination) if ":" in source else IP(src=source, dst=destination)
    return ip / UDP(sport=port, dport=port) / Raw(message)


def extract(frames: Sequence[Frame], *ports: int) -> tuple[list[Datagram], Extractor]:
    """The datagrams of some frames, and who found them."""
    extractor = Extractor(ports)
    return list(extractor.extract(frames)), extractor


def vector_file(name: str) -> Path:
    """The capture of one exchange between racoon2 daemons."""
    return RACOON2 / name / "kink.pcap"


def vector_frames(name: str, **how: Any) -> list[Frame]:
    """Its messages in frames of our own making: other ports, other addresses."""
    marker = bytes(4) if how.get("port") == 4500 else b""
    found = []
    for message in load_vector(name):
        source, destination = (end.partition(":")[0] for end in (message.source, message.destination))
        layers = ether() / udp(marker + message.datagram, source, destination, **how)
        found.append(Frame(message.index + 1, START + message.at, ETHERNET, bytes(layers), len(bytes(layers))))
    return found


def records(frames: Sequence[Frame], keytabs: Sequence[Path] = KEYTABS) -> list[dict[str, Any]]:
    """What the transcript makes of frames."""
    transcript = Transcript(Keyring(keytabs))
    return [transcript.record(datagram) for datagram in extract(frames)[0]]


def kinds(record: dict[str, Any]) -> list[str]:
    """The findings of a record by kind."""
    return [finding["kind"] for finding in record["findings"]]
