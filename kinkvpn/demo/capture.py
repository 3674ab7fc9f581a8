"""What crossed the wire: tcpdump in a namespace, and afterwards a verdict on every packet it saw.

The classification is written from the RFCs' layouts with :mod:`struct` and shares nothing with ``kinkvpn.wire`` or
``esp.wire``: a mistake there cannot vouch for itself here.
"""

from __future__ import annotations

import ipaddress
import re
import signal
import struct
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, BinaryIO, Final, Self

from kinkvpn.demo.namespace import LabFailed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from types import TracebackType

    from kinkvpn.demo.namespace import Namespace

# Specification.
KINK_PORT: Final = 910  # RFC 4430 §9
ESP_PORT: Final = 4500  # RFC 3947 §4, RFC 3948 §2.2
KINK_MESSAGES: Final = {1: "CREATE", 2: "DELETE", 3: "REPLY", 4: "GETTGT", 5: "ACK", 6: "STATUS"}  # RFC 4430 §4
NON_ESP_MARKER: Final = bytes(4)  # RFC 3948 §2.2
KEEPALIVE: Final = b"\xff"  # RFC 3948 §2.3
ETHERNET: Final = struct.Struct("!6s6sH")
ARP: Final = 0x0806
IPV4: Final = 0x0800
IPV6: Final = 0x86DD
UDP: Final = 17
ICMPV6: Final = 58
HOP_BY_HOP: Final = 0
IPV6_FRAGMENT: Final = 44
NEIGHBOUR: Final = frozenset(range(133, 138))  # RFC 4861 §4: solicitations, advertisements, redirect
LISTENER: Final = frozenset({130, 131, 132, 143})  # RFC 2710 §3, RFC 3810 §5
PCAP_MAGICS: Final = {0xA1B2C3D4: 1e-6, 0xA1B23C4D: 1e-9}
LINKTYPE_ETHERNET: Final = 1

# Ours. In every plaintext that the demo sends, 16 octets of each 32: wherever a packet is cut, one is whole.
CANARY: Final = b"kinkvpn-canary-7"
# Ethernet, outer IPv6, UDP, ESP, IV, inner IPv6, TCP with timestamps: 14+40+8+8+8+40+32 = 150. The rest is room for
# one whole canary, had the payload been left in the clear under all of these.
SNAPLEN: Final = 208
# 200 MB are some 250,000 packets of up to SNAPLEN octets: the ring holds them all even if tcpdump never gets a turn.
RING_KIBIBYTES: Final = 65536
DRAIN_SECONDS: Final = 20.0
POLL_SECONDS: Final = 0.05
STOP_SECONDS: Final = 30.0
COUNTED: Final = re.compile(
    r"(\d+) packets? captured[,\s]+(\d+) packets? received by filter[,\s]+(\d+) packets? dropped by kernel"
)
DESCRIBED_LEAKS: Final = 10  # enough to see what it is; the rest is counted


class Kind(Enum):
    """What a packet on the wire is."""

    KINK = "kink"
    ESP = "esp"
    KEEPALIVE = "keepalive"
    ARP = "arp"
    ND = "nd"
    LEAK = "leak"


@dataclass(slots=True)
class Traffic:
    """Packets by kind. ``leaks`` describes the first few; the count is ``packets[Kind.LEAK]``."""

    packets: Counter[Kind] = field(default_factory=Counter)
    kink: Counter[str] = field(default_factory=Counter)
    leaks: list[str] = field(default_factory=list)

    @property
    def leaked(self) -> int:
        return self.packets[Kind.LEAK]


@dataclass(frozen=True, slots=True)
class Datagram:
    """The outer IP header, reduced. ``first`` is False for a fragment that does not begin the datagram."""

    source: bytes
    destination: bytes
    protocol: int
    payload: bytes
    identification: bytes
    first: bool = True


class NotClassified(Exception):
    """A frame that is none of the permitted kinds; the message says what it is."""


class Classifier:
    """Tells apart what may be on the wire from what may not.

    Args:
        spis: for each outer address (text form), the SPIs that the daemon there reports as inbound.
    """

    def __init__(self, spis: Mapping[str, frozenset[int]]) -> None:
        self._spis = {ipaddress.ip_address(address).packed: known for address, known in spis.items()}
        self._fragmented: dict[tuple[bytes, bytes, bytes], Kind] = {}
        self.traffic = Traffic()

    def add(self, frame: bytes, seen: float = 0.0) -> Kind:
        """Counts one Ethernet frame, which may have been cut short, and says what it is."""
        try:
            if CANARY in frame:
                raise NotClassified("plaintext of the demo")
            kind = self._classify(frame)
        except NotClassified as leak:
            kind = Kind.LEAK
            if len(self.traffic.leaks) < DESCRIBED_LEAKS:
                self.traffic.leaks.append(f"{seen:.6f} {leak}")
        self.traffic.packets[kind] += 1
        return kind

    def _classify(self, frame: bytes) -> Kind:
        if len(frame) < ETHERNET.size:
            raise NotClassified("frame without an Ethernet header")
        ethertype = ETHERNET.unpack_from(frame)[2]
        if ethertype == ARP:
            return Kind.ARP
        if ethertype == IPV4:
            return self._datagram(parse_ipv4(frame[ETHERNET.size :]))
        if ethertype == IPV6:
            return self._datagram(parse_ipv6(frame[ETHERNET.size :]))
        raise NotClassified(f"ethertype 0x{ethertype:04x}")

    def _datagram(self, datagram: Datagram) -> Kind:
        if not datagram.first:
            return self._continued(datagram)
        if datagram.protocol == ICMPV6 and len(datagram.source) == 16:
            kind = neighbour_discovery(datagram)
        elif datagram.protocol == UDP:
            kind = self._udp(datagram)
        else:
            raise NotClassified(describe(datagram))
        if datagram.identification:
            self._fragmented[datagram.source, datagram.destination, datagram.identification] = kind
        return kind

    def _continued(self, datagram: Datagram) -> Kind:
        """Later fragments have no ports: they are what the first one was (an AP-REQ can pass the MTU)."""
        key = datagram.source, datagram.destination, datagram.identification
        if key not in self._fragmented:
            raise NotClassified(f"fragment of an unseen datagram, {describe(datagram)}")
        return self._fragmented[key]

    def _udp(self, datagram: Datagram) -> Kind:
        if len(datagram.payload) < 9:
            raise NotClassified(f"empty UDP, {describe(datagram)}")
        source, destination, length, _ = struct.unpack_from("!4H", datagram.payload)
        payload = datagram.payload[8:]
        if KINK_PORT in (source, destination):
            return self._kink(datagram, payload, length - 8)
        if ESP_PORT not in (source, destination):
            raise NotClassified(f"{describe(datagram)} port {source} > {destination}")
        if payload == KEEPALIVE:
            return Kind.KEEPALIVE
        if payload.startswith(NON_ESP_MARKER):
            return self._kink(datagram, payload[4:], length - 12)
        return self._esp(datagram, payload)

    def _kink(self, datagram: Datagram, payload: bytes, length: int) -> Kind:
        """RFC 4430 §4: type, major version, length of the whole message, DOI."""
        if len(payload) < 8:
            raise NotClassified(f"not KINK on its port, {describe(datagram)}")
        message, version, stated, doi = struct.unpack_from("!BBHI", payload)
        if message not in KINK_MESSAGES or version >> 4 != 1 or stated != length or doi != 1:
            raise NotClassified(f"not KINK on its port, {describe(datagram)}")
        self.traffic.kink[KINK_MESSAGES[message]] += 1
        return Kind.KINK

    def _esp(self, datagram: Datagram, payload: bytes) -> Kind:
        if len(payload) < 8:
            raise NotClassified(f"neither ESP nor keepalive, {describe(datagram)}")
        (spi,) = struct.unpack_from("!I", payload)
        if spi not in self._spis.get(datagram.destination, ()):
            raise NotClassified(f"ESP with SPI 0x{spi:08x} that its receiver did not choose, {describe(datagram)}")
        return Kind.ESP


def parse_ipv4(packet: bytes) -> Datagram:
    """RFC 791 §3.1; options are skipped. Raises NotClassified."""
    if len(packet) < 20 or packet[0] >> 4 != 4:
        raise NotClassified("IPv4 without a header")
    header = (packet[0] & 15) * 4
    fragment = struct.unpack_from("!H", packet, 6)[0]
    return Datagram(
        source=packet[12:16],
        destination=packet[16:20],
        protocol=packet[9],
        payload=packet[header:],
        # More fragments, or an offset: without either the identification means nothing (RFC 6864 §4).
        identification=packet[4:6] if fragment & 0x3FFF else b"",
        first=fragment & 0x1FFF == 0,
    )


def parse_ipv6(packet: bytes) -> Datagram:
    """RFC 8200 §3, with the two extension headers that may be there: hop-by-hop (MLD) and fragment.

    Raises:
        NotClassified: the header is cut short.
    """
    if len(packet) < 40 or packet[0] >> 4 != 6:
        raise NotClassified("IPv6 without a header")
    protocol, offset, identification, first = packet[6], 40, b"", True
    if protocol == HOP_BY_HOP and len(packet) > offset + 1:
        protocol, offset = packet[offset], offset + (packet[offset + 1] + 1) * 8
    if protocol == IPV6_FRAGMENT and len(packet) >= offset + 8:
        first = struct.unpack_from("!H", packet, offset + 2)[0] >> 3 == 0
        protocol, identification, offset = packet[offset], packet[offset + 4 : offset + 8], offset + 8
    return Datagram(packet[8:24], packet[24:40], protocol, packet[offset:], identification, first)


def neighbour_discovery(datagram: Datagram) -> Kind:
    """ND and the MLD that goes with it; any other ICMPv6 raises NotClassified."""
    if datagram.payload[:1] and datagram.payload[0] in NEIGHBOUR | LISTENER:
        return Kind.ND
    raise NotClassified(describe(datagram))


def describe(datagram: Datagram) -> str:
    source, destination = ipaddress.ip_address(datagram.source), ipaddress.ip_address(datagram.destination)
    return f"IPv{source.version} {source} > {destination} protocol {datagram.protocol}"


def read_pcap(file: BinaryIO) -> Iterator[tuple[float, bytes]]:
    """Time (POSIX seconds) and captured octets of each frame of a classic pcap file of Ethernet frames.

    Raises:
        ValueError: not such a file.
    """
    header = file.read(24)
    for order in "<>":
        fraction = PCAP_MAGICS.get(struct.unpack(f"{order}I", header[:4])[0]) if len(header) == 24 else None
        if fraction is not None:
            break
    else:
        raise ValueError("not a pcap file")
    if struct.unpack(f"{order}I", header[20:])[0] != LINKTYPE_ETHERNET:
        raise ValueError("not a capture of Ethernet frames")
    record = struct.Struct(f"{order}4I")
    while len(start := file.read(record.size)) == record.size:
        seconds, parts, captured, _ = record.unpack(start)
        frame = file.read(captured)
        if len(frame) < captured:
            raise ValueError("the last frame is cut off")
        yield seconds + parts * fraction, frame
    if start:
        raise ValueError("the last frame is cut off")


class Capture:
    """tcpdump on one device, from :meth:`start` to :meth:`stop`.

    Args:
        namespace: where the device is.
        device: its name.
        path: the file to write, ending in ``.pcap`` (Debian's AppArmor profile of tcpdump allows no other).
        snaplen: octets of each packet to keep.
    """

    def __init__(self, namespace: Namespace, device: str, path: Path, *, snaplen: int = SNAPLEN) -> None:
        self._namespace = namespace
        self._device = device
        self._snaplen = snaplen
        self._tcpdump: subprocess.Popen[str] | None = None
        self.path = path

    def start(self) -> None:
        """Returns when tcpdump listens. Raises LabFailed."""
        options = ["-n", "-p", "-i", self._device, "-s", str(self._snaplen), "-B", str(RING_KIBIBYTES), "-Z", "root"]
        self._tcpdump = self._namespace.spawn(["tcpdump", *options, "-w", str(self.path)], stderr=subprocess.PIPE)
        assert self._tcpdump.stderr is not None
        said = ""
        for line in self._tcpdump.stderr:
            if "listening on" in line:
                return
            said = line
        self.kill()
        raise LabFailed(f"tcpdump did not start: {said.strip()}", host=self._namespace.name)

    def stop(self) -> int:
        """Ends the capture once tcpdump has written all that it received.

        Returns:
            How many packets the kernel dropped before tcpdump saw them, or that tcpdump left behind.
        """
        tcpdump = self._tcpdump
        if tcpdump is None:
            return 0
        self._drain(tcpdump)
        tcpdump.send_signal(signal.SIGINT)
        try:
            _, said = tcpdump.communicate(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise LabFailed("tcpdump did not stop", host=self._namespace.name) from None
        self._tcpdump = None
        counted = COUNTED.search(said)
        if tcpdump.returncode or counted is None:
            raise LabFailed(f"tcpdump failed: {said.strip()}", host=self._namespace.name)
        captured, received, dropped = map(int, counted.groups())
        return dropped + received - captured

    def _drain(self, tcpdump: subprocess.Popen[str]) -> None:
        """The kernel hands packets over by the block, up to a second late; SIGINT would cut off the last block.

        SIGUSR1 makes tcpdump tell how many it has received and how many of those it has written.
        """
        assert tcpdump.stderr is not None
        deadline = time.monotonic() + DRAIN_SECONDS
        while time.monotonic() < deadline and tcpdump.poll() is None:
            tcpdump.send_signal(signal.SIGUSR1)
            counted = COUNTED.search(tcpdump.stderr.readline())
            if counted and counted[1] == counted[2]:
                return
            time.sleep(POLL_SECONDS)

    def kill(self) -> None:
        """Ends tcpdump, if it runs, whatever it has not written yet."""
        tcpdump, self._tcpdump = self._tcpdump, None
        if tcpdump is not None:
            tcpdump.kill()
            tcpdump.communicate()

    def classify(self, spis: Mapping[str, frozenset[int]]) -> Traffic:
        """Every packet of the stopped capture. Raises LabFailed if the file cannot be read."""
        classifier = Classifier(spis)
        try:
            with self.path.open("rb", buffering=1 << 20) as file:
                for seen, frame in read_pcap(file):
                    classifier.add(frame, seen)
        except (OSError, ValueError) as error:
            raise LabFailed(f"capture unreadable: {error}", host=self._namespace.name) from error
        return classifier.traffic

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
