"""Keys for Wireshark, and the file that they go to: tshark decrypts with it what the engine has sealed."""

from __future__ import annotations

import os
import subprocess
from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest
from support.captures import pcap
from support.linux_peer import carry
from support.manual import pair
from support.tunnel import engine, ipv4, ipv6

from esp.policy import Policy, Selector
from esp.sa import Encapsulation, Mode, SecurityProtocol
from esp.suite import SUITES
from kinkvpn.keylog import KeyLog, KeyLogRefused, check_key_log, esp_sa_lines

if TYPE_CHECKING:
    from pathlib import Path

    from kinkvpn.manual.pair import Pair

TEXT = b"what is inside, in the clear"
KNOWN = [suite for suite in SUITES.values() if suite.cipher_names.wireshark]


def frame(pair: Pair, packet: bytes) -> bytes:
    """What is on the wire when the engine sends ``packet`` by this pair."""
    sa, ours = pair.outbound, engine()
    ours.add_policy(Policy(sa.policy, sa.selector))
    ours.install_outbound(sa, 0.0)
    (sealed,) = ours.protect([packet], 0.0)
    carried = carry(pair.local, sealed, sa.encapsulation)
    return bytes(12) + (b"\x86\xdd" if carried[0] >> 4 == 6 else b"\x08\x00") + carried


def decrypted(directory: Path, lines: list[str], *frames: bytes) -> list[list[str]]:
    """What tshark with ``lines`` in its profile sees: innermost source, payload, whether the ICV is good."""
    (directory / "esp_sa").write_text("".join(f"{line}\n" for line in lines))
    (directory / "wire.pcap").write_bytes(pcap(frames))
    fields = ("ip.src", "ipv6.src", "data.data", "esp.icv_good")
    command = [
        *("tshark", "-n", "-r", str(directory / "wire.pcap"), "-T", "fields"),
        *(part for field in fields for part in ("-e", field)),
        *("-o", "esp.enable_encryption_decode:TRUE", "-o", "esp.enable_authentication_check:TRUE"),
    ]
    environment = os.environ | {"WIRESHARK_CONFIG_DIR": str(directory)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert "esp_sa" not in done.stderr, done.stderr
    return [line.split("\t") for line in done.stdout.splitlines()]


@pytest.mark.programs
@pytest.mark.parametrize("encapsulation", Encapsulation, ids=lambda one: one.value)
def test_tshark_decrypts_every_suite_that_it_knows(tmp_path: Path, encapsulation: Encapsulation) -> None:
    """All suites in one capture: a tshark takes a third of a second to start."""
    pairs = [
        pair(suite.name, spi=0x1000 + number, encapsulation=encapsulation, legacy=suite.legacy)
        for number, suite in enumerate(KNOWN)
    ]
    lines = [line for each in pairs for line in esp_sa_lines(each.outbound, "outbound")]
    seen = decrypted(tmp_path, lines, *(frame(each, ipv4(TEXT)) for each in pairs))
    assert len(seen) == len(KNOWN) > 10
    for suite, (source, _, payload, good) in zip(KNOWN, seen, strict=True):
        assert (source, payload) == ("192.0.2.1,10.1.0.1", TEXT.hex()), suite.name
        checked = suite.integrity_names is None or suite.integrity_names.wireshark is not None
        assert good == ("1" if checked else "0"), suite.name


@pytest.mark.programs
def test_tshark_decrypts_ipv6_and_transport_mode(tmp_path: Path) -> None:
    six = pair(
        local="2001:db8::1",
        remote="2001:db8::2",
        selector=Selector(ip_network("2001:db8:1::/48"), ip_network("2001:db8:2::/48")),
    )
    hosts = Selector(ip_network("192.0.2.1/32"), ip_network("192.0.2.2/32"))
    transport = pair("aes128-cbc-sha1", spi=0x3003, mode=Mode.TRANSPORT, selector=hosts)
    frames = frame(six, ipv6(TEXT)), frame(transport, ipv4(TEXT, source="192.0.2.1", destination="192.0.2.2"))
    lines = [line for each in (six, transport) for line in esp_sa_lines(each.outbound, "outbound")]
    tunnelled, between_hosts = decrypted(tmp_path, lines, *frames)
    assert tunnelled[1:3] == ["2001:db8::1,2001:db8:1::1", TEXT.hex()]
    assert between_hosts[0] == "192.0.2.1"
    assert between_hosts[2].startswith(TEXT.hex())  # the trailer is data too, for who does not know the protocol


@pytest.mark.programs
def test_without_the_keys_or_with_others_tshark_sees_nothing(tmp_path: Path) -> None:
    """So that what the tests above see is there because of the keys."""
    here = pair("aes128-cbc-sha256")
    other = pair("aes128-cbc-sha256", keymat=bytes(48))
    sealed = frame(here, ipv4(TEXT))
    assert decrypted(tmp_path, [], sealed) == [["192.0.2.1", "", "", ""]]
    forged = sealed[:-1] + bytes([sealed[-1] ^ 1])
    ((*_, good),) = decrypted(tmp_path, list(esp_sa_lines(here.outbound, "outbound")), forged)
    assert good == "0"
    ((_, _, payload, _),) = decrypted(tmp_path, list(esp_sa_lines(other.outbound, "outbound")), sealed)
    assert TEXT.hex() not in payload


def test_a_line_for_wireshark() -> None:
    key = "11" * 36
    assert list(esp_sa_lines(pair().outbound, "outbound", "192.0.2.1", "192.0.2.2")) == [
        f"# east outbound aes256-gcm16 spi 0x00001001 keymat {key}",
        f'"IPv4","192.0.2.1","192.0.2.2","0x00001001","AES-GCM with 16 octet ICV [RFC4106]","0x{key}","NULL",""',
    ]


@pytest.mark.parametrize("name", SUITES)
def test_what_wireshark_does_not_know_is_said(name: str) -> None:
    suite = SUITES[name]
    lines = list(esp_sa_lines(pair(name).inbound, "inbound"))
    assert lines[0] == f"# east inbound {name} spi 0x00002002 keymat {'22' * suite.keymat_octets}"
    if suite.cipher_names.wireshark is None:
        assert lines[1:] == [f"# Wireshark has no {name}"]
    else:
        assert lines[1].startswith(f'"IPv4","*","*","0x00002002","{suite.cipher_names.wireshark}",')


def test_what_is_not_encrypted_needs_no_line() -> None:
    ah = pair("null-sha256", protocol=SecurityProtocol.AH, encapsulation=Encapsulation.RAW).outbound
    assert list(esp_sa_lines(ah, "outbound"))[1:] == ["# AH: there is nothing to decrypt"]


# The file.


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.parametrize("mask", [0o000, 0o077])
def test_it_is_made_for_us_alone(tmp_path: Path, mask: int) -> None:
    path, before = tmp_path / "keys", os.umask(mask)
    try:
        with KeyLog(path) as keys:
            keys.write(pair().outbound, "outbound")
    finally:
        os.umask(before)
    assert mode_of(path) == 0o600
    assert path.read_text().splitlines() == list(esp_sa_lines(pair().outbound, "outbound"))


def test_what_is_there_is_added_to(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    for way in ("outbound", "inbound"):
        with KeyLog(path) as keys:
            keys.write(pair().outbound, way)
    assert [line.split()[2] for line in path.read_text().splitlines() if line.startswith("#")] == [
        "outbound",
        "inbound",
    ]


def test_what_is_checked_is_not_made(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    check_key_log(path)
    assert not path.exists()
    with KeyLog(path):
        check_key_log(path)


def refusal(path: Path) -> str:
    with pytest.raises(KeyLogRefused, match=f"^key log {path}: ."):
        check_key_log(path)
    with pytest.raises(KeyLogRefused) as raised:
        KeyLog(path)
    return str(raised.value)


def test_where_others_could_read_along_nothing_is_written(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("")
    path.chmod(0o640)
    assert "others may open it (mode 0640): chmod 600" in refusal(path)
    path.chmod(0o600)
    link = tmp_path / "link"
    link.symlink_to(path)
    assert "symbolic link" in refusal(link)
    link.unlink()
    os.link(path, link)
    assert "another name too" in refusal(link)
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert refusal(tmp_path / "pipe")
    assert "Is a directory" in refusal(tmp_path)
    assert "No such file" in refusal(tmp_path / "none" / "keys")


@pytest.mark.root  # only root can give a file away
def test_somebody_elses_file_is_not_written_to(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.touch(mode=0o600)
    os.chown(path, 12345, -1)
    assert "belongs to user 12345" in refusal(path)
