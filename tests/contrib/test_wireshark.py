"""The Wireshark dissector under tshark: every field of the captures, both ports, and nothing that makes Lua fail."""

from __future__ import annotations

import importlib.util
import random
import struct
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.captures import pcap, vector_file
from support.vectors import load_messages, load_vector

from kinkvpn.wire import isakmp, kink
from kinkvpn.wire.ipsec_doi import IdType, NotifyType

if TYPE_CHECKING:
    from types import ModuleType

pytestmark = pytest.mark.programs

CONTRIB = Path(__file__).parents[2] / "contrib" / "wireshark"
SCRIPT = CONTRIB / "kink.lua"
VECTORS = sorted({message.vector for message in load_messages()})
NAMES = {f"KINK_{kind.name}": str(kind.value) for kind in kink.PayloadType}


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    specification = importlib.util.spec_from_file_location("tables", CONTRIB / "tables.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def tshark(capture: Path, *arguments: str) -> str:
    """What it prints; a Lua error is an error."""
    command = ["tshark", "-n", "-X", f"lua_script:{SCRIPT}", "-r", str(capture), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Lua" not in done.stdout + done.stderr
    return done.stdout


def fields(capture: Path, *names: str) -> list[list[str]]:
    """Of every frame the named fields."""
    output = tshark(capture, "-T", "fields", *(part for name in names for part in ("-e", name)))
    return [line.split("\t") for line in output.splitlines()]


def framed(octets: bytes, port: int = 910) -> bytes:
    """In Ethernet, IPv4 and UDP without checksums, which tshark does not look at."""
    ip = struct.pack("!BxHxxxxBBxx4s4s", 0x45, 28 + len(octets), 64, 17, b"\xc0\x00\x02\x01", b"\xc0\x00\x02\x02")
    return bytes(12) + b"\x08\x00" + ip + struct.pack("!HHHxx", port, port, 8 + len(octets)) + octets


def written(tmp_path: Path, *octets: bytes, port: int = 910) -> Path:
    path = tmp_path / "capture.pcap"
    path.write_bytes(pcap([framed(message, port) for message in octets]))
    return path


def test_the_tables_are_those_of_the_wire_layer(tables: ModuleType) -> None:
    script = SCRIPT.read_text()
    assert tables.updated(script) == script, "a number was added: run contrib/wireshark/tables.py"
    assert '[1] = "CREATE"' in tables.tables()
    assert '[7] = "KINK_U2UDENIED"' in tables.tables()


def test_every_field_of_the_captured_messages(tmp_path: Path) -> None:
    messages = [message for vector in VECTORS for message in load_vector(vector)]
    shown = fields(
        written(tmp_path, *(message.datagram for message in messages)),
        *("kink4430.type", "kink4430.xid", "kink4430.length", "kink4430.ackreq", "kink4430.cksum_length"),
        *("kink4430.payload", "_ws.col.Protocol"),
    )
    for message, (kind, xid, length, ackreq, cksum, payloads, protocol) in zip(messages, shown, strict=True):
        header = kink.HEADER.unpack_from(message.datagram)
        assert (int(kind), int(xid, 16), int(length)) == (header[0], header[4], header[2])
        assert (ackreq in ("1", "True"), int(cksum)) == (header[6] >= 128, header[7])
        assert protocol == "KINK"
        if message.outer and not message.decoder_refused:
            assert payloads.split(",") == [NAMES[name] for name in message.outer]


def test_epochs_and_kerberos_inside() -> None:
    create, reply, _ = fields(
        vector_file("create-3way-transform"), "kink4430.epoch", "kerberos.realm", "kerberos.SNameString", "_ws.col.Info"
    )
    assert create[0].startswith("Nov 23, 2026 09:38:59")
    assert create[1:] == ["KINK.TEST", "kink,b.kink.test", "CREATE XID 0x00000000"]
    assert reply[3] == "REPLY XID 0x00000000 ACKREQ"
    errors = fields(vector_file("error-krb-nokey"), "_ws.col.Info", "kerberos.error_code")
    assert errors[1] == ["REPLY XID 0x00000000 KRB-ERROR", "35"]


def test_bad_messages_are_marked() -> None:
    shown = fields(vector_file("error-kink"), "_ws.expert.message", "_ws.col.Info")
    expected = {
        0: "There is only version 1",
        2: "Reserved bits are not zero",
        4: "A number without a name",
        6: "Does not fit what is there",
        8: "Payload type 9 is unknown",
        10: "Does not fit what is there",
        13: "A number without a name",
        14: "A number without a name",
        15: "Reserved bits are not zero",
        16: "Reserved bits are not zero",
        20: "Octets after Length",
    }
    marked = {index: text for index, (text, _) in enumerate(shown) if text}
    assert marked.keys() == expected.keys()
    assert all(words in marked[index] for index, words in expected.items())
    assert shown[1][1] == "REPLY XID 0x00001000 KINK_INVMAJ"


def test_port_4500_is_shared_with_esp_and_ike(tmp_path: Path) -> None:
    message = load_vector("create-2way-tunnel-aes256")[0].datagram
    ike = bytes(range(1, 9)) + bytes(8) + struct.pack("!BBBBII", 33, 0x20, 34, 8, 0, 28)
    esp = b"\x12\x34\x56\x78" + bytes(40)
    path = written(tmp_path, bytes(4) + message, bytes(4) + ike, esp, b"\xff", port=4500)
    shown = fields(path, "frame.protocols", "kink4430.xid")
    assert [protocols.partition(":udp:")[2] for protocols, _ in shown] == [
        "kink4430_natt:kink4430:kerberos",
        "kink4430_natt:udpencap:isakmp",
        "kink4430_natt:udpencap:esp",
        "kink4430_natt:udpencap",
    ]
    assert shown[0][1]


def plain(*payloads: isakmp.IsakmpPayload) -> bytes:
    """Quick Mode outside KINK_ENCRYPT, where the dissector can see it."""
    return kink.build_message(kink.Message(kink.MessageType.CREATE, 7, (kink.Isakmp(payloads),)))


def test_quick_mode_payloads(tmp_path: Path) -> None:
    attributes = (isakmp.Attribute(1, 1), isakmp.Attribute(2, b"\x00\x01\x51\x80"), isakmp.Attribute(3, 31))
    esp = isakmp.Proposal(1, 3, b"\x00\x00\x01\x00", (isakmp.Transform(1, 20, attributes), isakmp.Transform(2, 12, ())))
    subnet = isakmp.Identification(IdType.IPV4_ADDR_SUBNET, 6, 443, b"\x0a\x01\x00\x00\xff\xff\x00\x00")
    path = written(
        tmp_path,
        plain(isakmp.SecurityAssociation((esp,)), isakmp.Nonce(bytes(16)), isakmp.KeyExchange(bytes(32)), subnet),
        plain(
            isakmp.Notify(3, b"\x00\x00\x01\x00", NotifyType.INVALID_SPI, b"data"), isakmp.Delete(3, (b"spi1", b"spi2"))
        ),
    )
    (first, second) = fields(
        path,
        *("kink4430.qm.payload", "kink4430.qm.spi", "kink4430.qm.transform.esp", "kink4430.qm.attribute"),
        *("kink4430.qm.attribute.value", "kink4430.qm.id.port", "kink4430.qm.notify", "_ws.expert.message"),
    )
    assert first == ["1,2,3,3,10,4,5", "00000100", "20,12", "1,2,3", "1,86400,31", "443", "", ""]
    assert "Group: CURVE25519 (31)" in tshark(path, "-V", "-c", "1")
    assert second == ["11,12", "00000100,73706931,73706932", "", "", "", "", "11", ""]


def test_no_octets_make_the_script_fail(tmp_path: Path) -> None:
    """A thousand messages with octets changed, cut out and put in, on both ports."""
    chance, frames = random.Random(4430), list[bytes]()
    seeds: list[Any] = [message.datagram for message in load_messages()]
    seeds += [message.plaintext for message in load_messages() if message.plaintext]
    seeds += [
        plain(isakmp.SecurityAssociation((isakmp.Proposal(1, 3, bytes(4), (isakmp.Transform(1, 20, ()),)),)))
    ] * 20
    for number in range(1000):
        octets = bytearray(chance.choice(seeds))
        for _ in range(chance.randint(1, 6)):
            at = chance.randrange(len(octets)) if octets else 0
            octets[at : at + chance.choice([0, 1, 1, 2, 4, 400])] = chance.randbytes(chance.randint(0, 4))
        port = 4500 if number % 2 else 910
        frames.append(framed(bytes(4) * (port == 4500) + bytes(octets), port))
    path = tmp_path / "mutated.pcap"
    path.write_bytes(pcap(frames))
    output = tshark(path, "-V")
    assert output.count("\nKINK ") > 400


def test_truncated_messages_too(tmp_path: Path) -> None:
    message = load_vector("create-3way-transform")[1]
    path = written(tmp_path, *(message.datagram[:cut] for cut in range(0, len(message.datagram), 3)))
    tshark(path, "-V")
