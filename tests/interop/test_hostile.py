"""A minute of everything that a stranger can send to UDP 910 and 4500 of a live daemon: only counters change.

What holds for the daemon, exactly, between two quiet moments (``sent`` are the stranger's datagrams, ``lost`` those
that the kernel dropped for want of socket buffer, ``/proc/net/udp``):

    sent to 910 + KINK behind the marker on 4500  = lost at 910 + sum of the KINK counters of FATES
    sent to 4500 + the live ping's packets        = lost at 4500 + ESP + KINK behind the marker + keepalives + junk
    ESP                                           = packets delivered + sum of the inbound drop reasons, but for junk
"""

from __future__ import annotations

import os
import random
import signal
import socket
import struct
import subprocess
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.lab import amend, ask, configure, pinging, spis, start, status, wait, within

from esp.errors import DropReason
from esp.wire import NON_ESP_MARKER
from kinkvpn.demo.capture import ETHERNET, parse_ipv4, read_pcap
from kinkvpn.demo.lab import WIRE, Host, Lab
from kinkvpn.demo.traffic import ping
from kinkvpn.proto.events import Tally
from kinkvpn.wire.kink import (
    ApRep,
    Encrypt,
    ErrorCode,
    KinkError,
    KinkPayload,
    KrbError,
    Message,
    MessageType,
    TgtReq,
    build_message,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.root, pytest.mark.kdc]

SECONDS = 60.0
RATE = 2000  # datagrams a second, of both ports together
BURST = 20  # sent at once, every 10 ms: what a bounded rate looks like from a busy machine
STRANGER = "192.0.2.9"
VOID = "192.0.2.10"  # a peer that b calls for the whole minute: the stranger knows its XIDs and answers
LARGEST = 65507  # octets of a UDP datagram over IPv4
RSS_GROWTH = 20 << 20

VOID_PEER = f"""
[[peer]]
name = "void"
principal = "kink/void.kinkvpn.test@KINKVPN.TEST"
address = "{VOID}"
start = "boot"

[[peer.policy]]
local = "10.2.0.0/24"
remote = "10.9.0.0/24"
"""

# What becomes of a KINK datagram: exactly one of these. The other counters say what the daemon did about it
# (error_suppressed), or what it did by itself (commands_sent).
FATES = (
    Tally.MALFORMED,
    Tally.WRONG_VERSION,
    Tally.WRONG_DOI,
    Tally.UNEXPECTED_PAYLOAD,
    Tally.GETTGT_ANSWERED,
    Tally.GETTGT_REFUSED,
    Tally.GETTGT_NOT_US,
    Tally.AP_REQUEST_REFUSED,
    Tally.STALE_TGT,
    Tally.BAD_CHECKSUM,
    Tally.STALE_EPOCH,
    Tally.DUPLICATE,
    Tally.UNKNOWN_XID,
    Tally.UNAUTHENTICATED_ERROR,
    Tally.UNAUTHENTICATED_REPLY,
    Tally.TGT_RECEIVED,
    Tally.TGT_OFFERED,
    Tally.USER_TO_USER_REQUIRED,
)
# What must not happen even once: somebody without a key was believed.
BELIEVED = (Tally.COMMANDS_RECEIVED, Tally.REPLIES_RECEIVED, Tally.RETRANSMITTED, Tally.PEER_RESTARTED, Tally.DEFECT)
INBOUND_DROPS = (
    *(DropReason.NOT_IP, DropReason.MALFORMED, DropReason.UNKNOWN_SPI, DropReason.REPLAYED, DropReason.TOO_OLD),
    *(DropReason.AUTHENTICATION_FAILED, DropReason.BAD_PADDING, DropReason.BAD_NEXT_HEADER, DropReason.DUMMY),
    *(DropReason.SELECTOR_MISMATCH, DropReason.TUN_REFUSED),
)


class Stranger:
    """Sends what it has heard on the wire, spoilt in every way, and what it has made up.

    Args:
        kink, esp: payloads that were on the wire before.
        spis: that the daemon receives on.
        seed: of all its choices.
    """

    def __init__(self, kink: list[bytes], esp: list[bytes], spis: list[int], seed: int) -> None:
        self._kink, self._esp, self._spis = kink, esp, spis
        self._random = random.Random(seed)
        self.xids = [struct.unpack_from("!I", message, 8)[0] for message in kink]
        self._kink_kinds = (
            self._noise,
            lambda: self._truncated(self._kink),
            lambda: self._flipped(self._kink),
            lambda: self._random.choice(self._kink),
            self._forged,
            self._retyped,
        )
        self._esp_kinds = (
            self._noise,
            lambda: self._truncated(self._esp),
            lambda: self._flipped(self._esp),
            lambda: self._random.choice(self._esp),
            self._forged_esp,
            lambda: b"\xff",
            lambda: NON_ESP_MARKER + self._random.choice(self._kink_kinds)(),
        )

    def kink(self) -> bytes:
        """For port 910."""
        return self._rarely_huge(self._kink_kinds)

    def esp(self) -> bytes:
        """For port 4500."""
        return self._rarely_huge(self._esp_kinds)

    def datagram(self) -> tuple[int, bytes]:
        """One for either port."""
        return (910, self.kink()) if self._random.random() < 0.5 else (4500, self.esp())

    def _rarely_huge(self, kinds: tuple[Any, ...]) -> bytes:
        if self._random.random() < 0.005:
            start = self._random.choice((self._kink[0][:16], self._esp[0][:8], b""))
            return start + self._random.randbytes(self._random.choice((LARGEST, 9000)) - len(start))
        made: bytes = self._random.choice(kinds)()
        return made

    def _noise(self) -> bytes:
        return self._random.randbytes(self._random.choice((0, 1, 4, 7, 15, 16, self._random.randrange(1400))))

    def _truncated(self, real: list[bytes]) -> bytes:
        message = self._random.choice(real)
        return message[: self._random.randrange(len(message))]

    def _flipped(self, real: list[bytes]) -> bytes:
        message = bytearray(self._random.choice(real))
        message[self._random.randrange(len(message))] ^= 1 << self._random.randrange(8)
        return bytes(message)

    def _retyped(self) -> bytes:
        message = self._random.choice(self._kink)
        return bytes([self._random.randrange(10)]) + message[1:]

    def _forged(self) -> bytes:
        payloads: tuple[KinkPayload, ...] = self._random.choice(
            (
                (KinkError(self._random.choice(list(ErrorCode))),),
                (KrbError(self._random.randbytes(60)),),
                (ApRep(self._random.getrandbits(32), self._random.randbytes(80)),),
                (ApRep(self._random.getrandbits(32), self._random.randbytes(80)), Encrypt(self._random.randbytes(90))),
                (TgtReq(b"KINKVPN.TEST"),),
                (),
            )
        )
        kind = self._random.choice((MessageType.REPLY, MessageType.REPLY, MessageType.REPLY, *MessageType))
        xid = self._random.choice((self._random.choice(self.xids), self.xids[-1], self._random.getrandbits(32)))
        checksum = self._random.randbytes(self._random.choice((0, 12)))
        return build_message(Message(kind, xid, payloads, self._random.random() < 0.5, checksum))

    def _forged_esp(self) -> bytes:
        """A right SPI and any sequence number, far ahead of the window as well."""
        spi = self._random.choice((*self._spis, 0, 1, 255, 0xFFFFFFFF))
        octets = self._random.choice((0, 8, 16, 24, 40, 100, 1300))
        return struct.pack("!II", spi, self._random.getrandbits(32)) + self._random.randbytes(octets)


def test_a_minute_of_hostile_datagrams_changes_only_counters(lab: Lab, directory: Path) -> None:
    a, b = configure(lab)
    for host in (a, b):
        amend(host, "log", level="warning")
    lab.realm.add_service("kink/void.kinkvpn.test")
    b.configuration.write_text(b.configuration.read_text() + VOID_PEER)
    a.namespace.ip(*(f"address add {address}/32 dev {WIRE}" for address in (STRANGER, VOID)))
    b.namespace.ip(*(f"route add {address}/32 dev {WIRE}" for address in (STRANGER, VOID)))
    with ExitStack() as held:
        stranger, void = (held.enter_context(bound(a, address)) for address in ((STRANGER, 0), (VOID, 910)))
        kink, esp = overheard(lab, directory)
        sender = Stranger(kink, esp, [int(spi, 16) for pair in spis(b).values() for spi in pair], seed=910)
        before, rss, lost = status(b), resident(b), kernel_drops(b)
        with answered(lab, directory / "answers.pcap") as sent_by_b, pinging(a, b) as lost_pings:
            sent, octets = attack(sender, stranger, void, b)
        assert lost_pings == [0]
        wait(lab, b, lambda: settled(b), "still has datagrams to read")
        after = status(b)
        lost = kernel_drops(b) - lost

        account(sent, lost, before, after)
        assert standing(before) == standing(after)
        assert heard(before) == pytest.approx(heard(after), abs=0.5), "who cannot prove who it is has not been heard"
        assert {name: changes(before, after)[name] for name in BELIEVED} == dict.fromkeys(BELIEVED, 0)
        assert changes(before, after)[Tally.COMMANDS_SENT] <= 6, "two CREATEs and a DELETE or two for the silent peer"
        assert resident(b) - rss < RSS_GROWTH
        assert sum(sent_by_b.values()) <= octets
        # To each address no more than came from it; a gets the cached REPLYs to its own commands, replayed.
        print(f"sent {dict(sent)} in {octets} octets; answers in octets {dict(sent_by_b)}; lost {dict(lost)}")
        print(f"counters {dict(changes(before, after))}; drops {drops(before, after)}")
        print(f"resident {rss} -> {resident(b)}")
    ping(a, b, 4)
    ping(a, b, 6)


def bound(host: Host, address: tuple[str, int]) -> socket.socket:
    def make() -> socket.socket:
        sock = socket.socket(type=socket.SOCK_DGRAM)
        sock.bind(address)
        sock.setblocking(False)
        return sock

    return within(host.namespace, make)


def overheard(lab: Lab, directory: Path) -> tuple[list[bytes], list[bytes]]:
    """Starts the daemons; their KINK and ESP payloads, of both directions, while they make an SA, probe and ping."""
    a, b = lab.hosts
    tap = within(a.namespace, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003)))
    with tap:
        tap.bind((WIRE, 0x0003))
        start(lab)
        ping(a, b, 4, count=10)
        for host, peer in ((a, "b"), (b, "a")):
            ask(host, "probe", peer=peer)
        kink, esp = [], []
        tap.setblocking(False)
        while frame := receive(tap):
            if ETHERNET.unpack_from(frame)[2] != 0x0800 or not {a.site.wire, b.site.wire} >= set(addresses(frame)):
                continue
            payload = parse_ipv4(frame[ETHERNET.size :]).payload
            ports = struct.unpack_from("!HH", payload)
            (kink if 910 in ports else esp).append(payload[8:])
    assert {message[0] for message in kink} == {MessageType.CREATE, MessageType.REPLY, MessageType.STATUS}
    assert len(esp) >= 20
    return kink, esp


def addresses(frame: bytes) -> tuple[str, str]:
    datagram = parse_ipv4(frame[ETHERNET.size :])
    return socket.inet_ntoa(datagram.source), socket.inet_ntoa(datagram.destination)


def receive(sock: socket.socket) -> bytes:
    try:
        return sock.recv(65535)
    except BlockingIOError:
        return b""


def attack(sender: Stranger, stranger: socket.socket, void: socket.socket, target: Host) -> tuple[Counter[int], int]:
    """Datagrams sent by port, and their octets. Whatever the void peer is asked is answered with its own XID."""
    sent: Counter[int] = Counter()
    octets = 0
    began = time.monotonic()
    while (elapsed := time.monotonic() - began) < SECONDS:
        if (ahead := sent.total() - elapsed * RATE) > 0:
            time.sleep(ahead / RATE)
        while asked := receive(void):
            sender.xids.append(struct.unpack_from("!I", asked, 8)[0])
        receive(stranger)
        for _ in range(BURST):
            port, datagram = sender.datagram()
            source = void if port == 910 and sent.total() % 3 == 0 else stranger
            try:
                source.sendto(datagram, (target.site.wire, port))
            except BlockingIOError:
                continue
            sent[port] += 1
            octets += len(datagram)
    assert sent.total() > SECONDS * RATE / 4, "too slow a stranger shows nothing"
    return sent, octets


@contextmanager
def answered(lab: Lab, path: Path) -> Iterator[Counter[str]]:
    """Octets of the REPLYs that b sends while the block runs, by address."""
    a, b = lab.hosts
    octets: Counter[str] = Counter()
    expression = f"src host {b.site.wire} and udp and (src port 910 or (src port 4500 and udp[8:4] = 0))"
    command = ["tcpdump", "-n", "-p", "-i", WIRE, "-s", "80", "-U", "-Z", "root", "-w", str(path), expression]
    process = a.namespace.spawn(command, stderr=subprocess.PIPE)
    assert process.stderr is not None
    assert any("listening on" in line for line in process.stderr), "tcpdump ended"
    try:
        yield octets
        wait(lab, b, lambda: settled(b), "still has datagrams to read")
        time.sleep(1.1)  # tcpdump gets the kernel's last block up to a second late
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate()
    with path.open("rb") as file:
        for _, frame in read_pcap(file):
            payload = parse_ipv4(frame[ETHERNET.size :]).payload
            source, length = struct.unpack_from("!HxxH", payload)
            message = payload[8:] if source == 910 else payload[12:]
            if message[0] == MessageType.REPLY:
                octets[addresses(frame)[1]] += length - 8


def resident(host: Host) -> int:
    """Octets of memory that the daemon has."""
    words = Path(f"/proc/{host.pid}/statm").read_text().split()
    return int(words[1]) * os.sysconf("SC_PAGE_SIZE")


def kernel_drops(host: Host) -> Counter[int]:
    """Datagrams that the kernel had no socket buffer for, by port (proc(5): the last field)."""
    lost: Counter[int] = Counter()
    for line in Path(f"/proc/{host.pid}/net/udp").read_text().splitlines()[1:]:
        fields = line.split()
        lost[int(fields[1].rpartition(":")[2], 16)] += int(fields[-1])
    return lost


def settled(host: Host) -> bool:
    """Whether the daemon has read all that its sockets hold."""
    lines = Path(f"/proc/{host.pid}/net/udp").read_text().splitlines()[1:]
    return all(line.split()[4].endswith(":00000000") for line in lines)


def changes(before: dict[str, Any], after: dict[str, Any]) -> Counter[str]:
    """What was counted of KINK between two statuses."""
    return Counter(after["counters"]["kink"]) - Counter(before["counters"]["kink"])


def drops(before: dict[str, Any], after: dict[str, Any]) -> Counter[str]:
    """What was dropped of ESP between two statuses."""
    return Counter(after["counters"]["drops"]) - Counter(before["counters"]["drops"])


def received_messages(answer: dict[str, Any]) -> int:
    """KINK datagrams of every type, and those that are none."""
    return sum(answer["counters"]["kink_labelled"].get("messages_received", {}).values())


def account(sent: Counter[int], lost: Counter[int], before: dict[str, Any], after: dict[str, Any]) -> None:
    """The three equalities at the top of this file."""
    link = Counter(after["counters"]["link"]) - Counter(before["counters"]["link"])
    delivered = after["counters"]["packets_in"] - before["counters"]["packets_in"]
    counted, dropped = changes(before, after), drops(before, after)
    fates = sum(counted[fate] for fate in FATES)
    assert fates == sent[910] - lost[910] + link["control_received"]
    assert fates == received_messages(after) - received_messages(before)
    arrived = sum(link[f"{kind}_received"] for kind in ("esp", "control", "keepalives", "junk"))
    assert arrived == sent[4500] - lost[4500] + delivered
    inbound = sum(dropped[reason.value] for reason in INBOUND_DROPS) - link["junk_received"]
    assert link["esp_received"] == delivered + inbound
    assert all(link[f"{kind}_received"] for kind in ("esp", "control", "keepalives", "junk"))


def standing(state: dict[str, Any]) -> object:
    """All of a status that a stranger must not move; for the silent peer, that it stays without a pair."""
    a, void = state["peers"]
    fields = (
        "name",
        "state",
        "pairs",
        "spi_in",
        "spi_out",
        "suite",
        "role",
        "lifetime",
        "failures",
        "last_error",
        "held",
    )
    return (
        [a[field] for field in ("epoch", "state", "address", "principal")],
        [[one[field] for field in fields] for one in a["policies"]],
        [void["epoch"], void["last_heard"], [one["pairs"] for one in void["policies"]]],
        state["tun"],
        state["listeners"],
    )


def heard(state: dict[str, Any]) -> float:
    """When a was last heard, in seconds after the daemon's start."""
    when: float = state["uptime"] - state["peers"][0]["last_heard"]
    return when
