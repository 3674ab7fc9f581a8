"""The ESP of a real Linux kernel as the other end: SAs by ``ip xfrm``, packets as frames on a wire that is ours.

Every pair of SAs has outer and inner addresses of its own, so any number of them stand beside each other.
"""

from __future__ import annotations

import re
import select
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from support.packets import ESP, UDP, Reassembly, fragments, parse, udp
from support.packets import ip as build_ip

from esp.ah import AH, dressed, presented
from esp.datagram import Incoming
from esp.errors import DropReason
from esp.sa import Encapsulation, Endpoint, Mode
from kinkvpn.manual import xfrm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from support.guest import Guest

    from esp.datagram import Outgoing
    from kinkvpn.manual.pair import Pair

MTU = 1500  # of the wire
ESP_PORT = 4500
ANSWER_SECONDS = 60.0  # milliseconds, on an idle machine

OURS, THEIRS = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
TYPES = {4: b"\x08\x00", 6: b"\x86\xdd"}

_MODULES = (
    "ipv6 xfrm_user ah4 ah6 esp4 esp6 authenc authencesn echainiv seqiv hmac xcbc cbc ctr ecb gcm ccm ghash-generic "
    "chacha20poly1305 chacha_generic poly1305_generic camellia_generic des_generic sha512_generic "
    "drbg jitterentropy_rng"  # what IVs are made of
)

# Addresses that are local without being anybody's (ip-route(8), type local): behind the guest there are as many as
# there are pairs. The pair of UDP sockets is what makes the kernel take ESP out of UDP (udp(7), UDP_ENCAP).
# All modules at once, and then no way to find more: the kernel looks for a module for each combination of algorithms
# that it has not had before, in vain, and starts a process each time.
_NETWORK = f"""
modprobe -d /run/modules -a {_MODULES}
echo >/proc/sys/kernel/modprobe
ip link set vec1 address 02:00:00:00:00:03 up
ip addr add 203.0.113.2/24 dev vec1
ip addr add 2001:db8:113::2/64 dev vec1 nodad
ip route add 10.3.0.0/16 via 203.0.113.1
ip -6 route add fd00:3::/32 via 2001:db8:113::1
ip link set vec0 address 02:00:00:00:00:02 mtu {MTU} up
ip addr add 192.0.2.2/24 dev vec0
ip addr add 2001:db8::2/64 dev vec0 nodad
ip neigh add 192.0.2.1 lladdr 02:00:00:00:00:01 dev vec0 nud permanent
ip neigh add 2001:db8::1 lladdr 02:00:00:00:00:01 dev vec0 nud permanent
ip route add 198.18.0.0/16 via 192.0.2.1
ip route add 10.1.0.0/16 via 192.0.2.1
ip -6 route add 2001:db8:18::/48 via 2001:db8::1
ip -6 route add fd00:1::/32 via 2001:db8::1
ip route add local 198.19.0.0/16 dev lo
ip route add local 10.2.0.0/16 dev lo
ip -6 route add local 2001:db8:19::/48 dev lo
ip -6 route add local fd00:2::/32 dev lo
perl -MSocket=:all -e '
    for (pack_sockaddr_in({ESP_PORT}, INADDR_ANY), pack_sockaddr_in6({ESP_PORT}, IN6ADDR_ANY)) {{
        socket(my $s, sockaddr_family($_), SOCK_DGRAM, 0) or die;
        sockaddr_family($_) == AF_INET or setsockopt($s, 41, 26, 1) or die; # IPPROTO_IPV6, IPV6_V6ONLY
        bind($s, $_) or die;
        setsockopt($s, 17, 100, pack("i", 2)) or die;                       # UDP_ENCAP, UDP_ENCAP_ESPINUDP
        push @kept, $s;
    }}
    fork and exit;
    sleep;' >/dev/null
"""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Of the pair of SAs with a number, from 0 to 65535."""

    number: int
    outer: int = 4
    inner: int = 4

    @property
    def local(self) -> str:
        """Our outer address."""
        return _numbered("198.18", "2001:db8:18::", self.outer, self.number)

    @property
    def remote(self) -> str:
        """The guest's outer address."""
        return _numbered("198.19", "2001:db8:19::", self.outer, self.number)

    def ends(self, mode: Mode) -> tuple[str, str]:
        """Whose traffic it is: hosts behind us and behind the guest, or we ourselves."""
        if mode is Mode.TRANSPORT:
            return self.local, self.remote
        return tuple(_numbered(f"10.{end}", f"fd00:{end}::", self.inner, self.number) for end in (1, 2))


def _numbered(four: str, six: str, version: int, number: int) -> str:
    return f"{four}.{number >> 8}.{number & 255}" if version == 4 else f"{six}{number + 1:x}"


class Counts(NamedTuple):
    """What SAs have carried and dropped, by SPI."""

    packets: dict[int, int]
    drops: dict[int, Counter[DropReason]]


# What ``ip -s xfrm state`` says of one: its SPI, what it has carried, and what it has dropped, in this order.
_STATE = re.compile(
    r"spi 0x([0-9a-f]+).*?lifetime current:.*?, (\d+)\(packets\).*?replay-window (\d+) replay (\d+) failed (\d+)",
    re.DOTALL,
)
_DROPPED = (DropReason.TOO_OLD, DropReason.REPLAYED, DropReason.AUTHENTICATION_FAILED)


class LinuxPeer:
    """A guest with a network: one card on the wire with us, the other one in a namespace of this host."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self._fragments = 0
        self._reassembly = Reassembly()
        guest.run(_NETWORK)

    def install(self, pairs: Iterable[Pair]) -> None:
        """Make the guest the other end of ``pairs``, which are as we have them, and of no others."""
        lines = ["xfrm state flush", "xfrm policy flush"]
        for number, pair in enumerate(pairs, 1):
            lines += [command.removeprefix("ip ") for command in xfrm.commands(pair.turned_about(), number)]
        self.guest.run("ip -batch - <<'end'\n" + "\n".join(lines) + "\nend")

    def statistics(self) -> Counts:
        """Of the guest's SAs. Those that send have dropped nothing, and are not told apart."""
        counts = Counts({}, {})
        for state in self.guest.run("ip -s xfrm state").split("\nsrc "):
            found = _STATE.search(state)
            assert found is not None, state
            spi, packets, *dropped = int(found[1], 16), *map(int, found.groups()[1:])
            counts.packets[spi] = packets
            counts.drops[spi] = Counter(dict(zip(_DROPPED, dropped, strict=True)))
        return counts

    def send(self, source: Endpoint, datagrams: Sequence[Outgoing], encapsulation: Encapsulation) -> None:
        """Put ``datagrams`` of the engine on the wire, as from ``source``."""
        for each in datagrams:
            self._fragments += 1
            packet = carry(source, each, encapsulation)
            for piece in fragments(packet, MTU, self._fragments):
                self.guest.wire.send(THEIRS + OURS + TYPES[piece[0] >> 4] + piece)

    def receive(self, take: Callable[[Incoming], object], enough: Callable[[], bool]) -> None:
        """Give ``take`` the ESP that comes, until it is ``enough``; an assertion fails if it never is."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while not enough():
            ready, _, _ = select.select([self.guest.wire], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"no more ESP within {ANSWER_SECONDS:g} s\n{self.guest.run('cat /proc/net/xfrm_stat')}"
            incoming = self._arrived(self.guest.wire.recv(65536))
            if incoming is not None:
                take(incoming)

    def _arrived(self, frame: bytes) -> Incoming | None:
        """The ESP in ``frame``, where it completes one; the guest speaks of neighbours and routers too."""
        if frame[12:14] not in TYPES.values():
            return None
        packet = self._reassembly.take(frame[14:])
        return None if packet is None else uncarry(packet)


def carry(source: Endpoint, out: Outgoing, encapsulation: Encapsulation) -> bytes:
    """The packet that takes ESP over the wire; AH is one already."""
    if out.protocol == AH:
        return dressed(out._replace(dont_fragment=False))
    if encapsulation is Encapsulation.UDP:
        return udp(source.address, out.remote.address, (source.port, out.remote.port), out.datagram)
    return build_ip(source.address, out.remote.address, ESP, out.datagram)


def uncarry(packet: bytes) -> Incoming | None:
    """The ESP or AH that ``packet`` carries, if any."""
    source, _, protocol, payload = parse(packet)
    if protocol == AH:
        datagram = presented(packet)
        assert datagram is not None
        return Incoming(datagram, Endpoint(source, 0))
    if protocol == ESP:
        return Incoming(payload, Endpoint(source, 0))
    if protocol == UDP and int.from_bytes(payload[2:4]) == ESP_PORT:
        return Incoming(payload[8:], Endpoint(source, int.from_bytes(payload[:2])))
    return None
