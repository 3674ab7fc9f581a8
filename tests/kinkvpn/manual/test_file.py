"""A file of manual SAs: what it may say, and what is said of one that is wrong, without a key in it."""

from __future__ import annotations

import os
from ipaddress import ip_network
from pathlib import Path

import pytest

from esp.headers import DontFragment, HeaderRules
from esp.sa import Encapsulation, Endpoint, Lifetime, Mode, SecurityProtocol
from esp.suite import SUITES
from kinkvpn.config import CipherLibrary, EngineChoice, EngineSettings
from kinkvpn.document import DocumentError
from kinkvpn.manual.file import load, parse

HEAD = """
[[policy]]
name = "east"
local = "10.1.0.0/24"
remote = "10.2.0.0/24"
source = "192.0.2.1"
destination = "192.0.2.2"
suite = "aes256-gcm16"
"""
ONES, TWOS = "11" * 36, "22" * 36
WAYS = f"""
[policy.outbound]
spi = 0x1001
keymat = "{ONES}"
[policy.inbound]
spi = 0x2002
keymat = "{TWOS}"
"""
SOURCE = Path("/x/sas.toml")


def problems(text: str) -> list[str]:
    """Lines of the error; the keys that are in the files of these tests are in none of them."""
    with pytest.raises(DocumentError) as raised:
        parse(text, SOURCE)
    said = str(raised.value)
    assert "1111" not in said
    assert "2222" not in said
    return said.splitlines()


def test_the_smallest() -> None:
    (pair,) = parse(HEAD + WAYS, SOURCE).pairs
    sa = pair.outbound
    assert (sa.spi, sa.policy, sa.suite, sa.keymat) == (0x1001, "east", SUITES["aes256-gcm16"], bytes([0x11]) * 36)
    assert (pair.local, sa.remote) == (Endpoint("192.0.2.1", 4500), Endpoint("192.0.2.2", 4500))
    assert (sa.mode, sa.encapsulation, sa.esn, sa.sequence) == (Mode.TUNNEL, Encapsulation.UDP, False, 0)
    assert (pair.inbound.spi, pair.inbound.keymat, pair.inbound.replay_window) == (0x2002, bytes([0x22]) * 36, 8192)
    assert pair.inbound.selector == sa.selector
    assert (sa.selector.local, sa.selector.remote) == (ip_network("10.1.0.0/24"), ip_network("10.2.0.0/24"))
    assert sa.lifetime == Lifetime()


def test_ah_goes_raw_and_covers_the_source() -> None:
    text = (HEAD + WAYS).replace('"aes256-gcm16"', '"null-sha256"\nipsec = "ah"').replace("1" * 72, "1" * 64)
    text = text.replace("2" * 72, "2" * 64)
    (pair,) = parse(text, SOURCE).pairs
    for sa in (pair.outbound, pair.inbound):
        assert (sa.protocol, sa.encapsulation, sa.local) == (SecurityProtocol.AH, Encapsulation.RAW, "192.0.2.1")
    assert (pair.local, pair.remote) == (Endpoint("192.0.2.1", 0), Endpoint("192.0.2.2", 0))
    assert "AH encrypts nothing" in problems((HEAD + WAYS).replace("suite =", 'ipsec = "ah"\nsuite ='))[0]
    assert "it goes raw" in problems(text.replace("ipsec =", 'encapsulation = "udp"\nipsec ='))[0]


def test_everything() -> None:
    text = f"""
    [esp]
    listen = "2001:db8::1"
    port = 4501
    engine = "portable"
    cipher_library = "ipsec-mb"
    [tun]
    name = "esp0"
    addresses = ["10.1.0.1/24"]
    mtu = 1300
    [[policy]]
    local = "2001:db8::1/128"
    remote = "2001:db8::2/128"
    protocol = "tcp"
    local_port = 1000
    remote_port = 443
    source = "2001:db8::1"
    destination = "2001:db8::2"
    destination_port = 4502
    suite = "aes128-cbc-sha1"
    mode = "transport"
    esn = true
    replay_window = 64
    dscp = 46
    df = "clear"
    lifetime = 60
    lifetime_packets = 1000
    lifetime_kilobytes = 5
    [policy.outbound]
    spi = 256
    encryption_key = "0x{"33" * 16}"
    integrity_key = "{"44 " * 20}"
    sequence = 0x1_0000_0000
    [policy.inbound]
    spi = 0xffffffff
    keymat = "{"55" * 36}"
    """
    manual = parse(text, SOURCE)
    (pair,) = manual.pairs
    assert manual.engine == EngineSettings(EngineChoice.PORTABLE, CipherLibrary.IPSEC_MB)
    assert (manual.listen, manual.port, manual.tun.name, manual.tun.mtu) == (("2001:db8::1",), 4501, "esp0", 1300)
    assert (pair.local, pair.remote) == (Endpoint("2001:db8::1", 4501), Endpoint("2001:db8::2", 4502))
    sa = pair.outbound
    assert sa.policy == "policy1"
    assert sa.keymat == bytes([0x33]) * 16 + bytes([0x44]) * 20
    assert (sa.mode, sa.esn, sa.sequence, pair.inbound.sequence) == (Mode.TRANSPORT, True, 1 << 32, 0)
    assert (sa.selector.protocol, sa.selector.local_port, sa.selector.remote_port) == (6, 1000, 443)
    assert pair.inbound.replay_window == 64
    assert sa.headers == pair.inbound.headers == HeaderRules(dscp=bytes([46]) * 64, df=DontFragment.CLEAR)
    assert sa.lifetime == Lifetime(hard_seconds=60, hard_packets=1000, hard_octets=5120)


def test_raw_esp_has_no_ports() -> None:
    (pair,) = parse(HEAD + 'encapsulation = "raw"' + WAYS, SOURCE).pairs
    assert (pair.local, pair.remote) == (Endpoint("192.0.2.1", 0), Endpoint("192.0.2.2", 0))


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("suite = ", "suit = ", "8: policy[1].suit: unknown key; did you mean suite?"),
        ('"aes256-gcm16"', '"aes256-gcm"', "8: policy[1].suite: expected"),
        ('"10.1.0.0/24"', '"10.1.0.1/24"', "4: policy[1].local: expected a subnet without host bits"),
        ('"10.1.0.0/24"', '"fd00::/64"', "are of two address families"),
        (
            "192.0.2.2",
            "2001:db8::2",
            "7: policy[1].destination: expected an address of the same family",
        ),
        ("spi = 0x1001", "spi = 255", "11: policy[1].outbound.spi: expected an integer from 256 to 4294967295"),
        ("spi = 0x1001", f'spi = "{ONES}"', "11: policy[1].outbound.spi: expected an integer"),
        ("spi = 0x1001\n", "", "policy[1].outbound.spi is missing"),
        (
            ONES,
            ONES[2:],
            "12: policy[1].outbound.keymat: expected 36 octets in hexadecimal, for aes256-gcm16; it has 35",
        ),
        (ONES, ONES[1:], "12: policy[1].outbound.keymat: expected 36 octets in hexadecimal, for aes256-gcm16"),
        (f'"{ONES}"', ONES[:18], "12: policy[1].outbound.keymat: expected octets in hexadecimal, in quotes"),
        ("keymat = ", "keymatt = ", "12: policy[1].outbound.keymatt: unknown key; did you mean keymat?"),
        ("keymat = ", "salt = ", "policy[1].outbound.encryption_key is missing: expected keymat, or 32 octets"),
        ("spi = 0x2002", 'spi = 0x2002\nsalt = "22222222"', "policy[1].inbound.salt: expected keymat or its parts"),
        ("spi = 0x2002", "spi = 0x2002\nsequence = 1", "policy[1].inbound.sequence: unknown key"),
        ("spi = 0x1001", "spi = 0x1001\nsequence = 0x1_0000_0000", "10: policy[1].outbound: sequence 4294967296"),
        ("[policy.outbound]", 'mode = "transport"\n[policy.outbound]', "transport mode is between two hosts"),
        ("[policy.outbound]", "remote_port = 80\n[policy.outbound]", "port 80 with protocol 0, which has no ports"),
        ("[policy.inbound]", "[policy.inbund]", "policy[1].inbound is missing: expected [policy.inbound]"),
        ("[[policy]]", "[[policies]]", "policy: expected an array of tables: [[policy]]"),
        ("[[policy]]", "[tun]\nmtu = 10\n[[policy]]", '3: tun.mtu: expected "auto", or an integer from 576'),
        ("[[policy]]", "[esp]\nport = 0\n[[policy]]", "3: esp.port: expected an integer"),
    ],
)
def test_what_is_wrong_has_its_line_and_no_key(old: str, new: str, problem: str) -> None:
    assert old in HEAD + WAYS
    assert any(problem in line for line in problems((HEAD + WAYS).replace(old, new, 1)))


def test_a_file_without_policies() -> None:
    assert problems("[esp]") == ["/x/sas.toml:1: policy is missing: expected at least one [[policy]]"]


def test_every_problem_at_once() -> None:
    text = (HEAD + WAYS).replace("0x1001", "1").replace("0x2002", "2").replace("192.0.2.1", "here")
    assert len(problems(text)) == 3


def test_policies_have_names_and_spis_of_their_own() -> None:
    found = problems((HEAD + WAYS) * 2)
    assert any("policy[2].name: expected a name of its own" in line for line in found)
    assert any("policy[2].inbound.spi: expected one that no other [[policy]] has" in line for line in found)


def written(path: Path, mode: int) -> Path:
    path.write_text(HEAD + WAYS)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_private_file_is_read(tmp_path: Path, mode: int) -> None:
    assert len(load(written(tmp_path / "sas.toml", mode)).pairs) == 1


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_file_that_others_may_open_is_refused(tmp_path: Path, mode: int) -> None:
    path = written(tmp_path / "sas.toml", mode)
    with pytest.raises(DocumentError, match=rf"others may open it \(mode {mode:04o}\): chmod 600 {path}$"):
        load(path)


@pytest.mark.root  # only root can give a file away
def test_a_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "sas.toml", 0o600)
    os.chown(path, 12345, -1)
    with pytest.raises(DocumentError, match="belongs to user 12345: chown 0"):
        load(path)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="cannot read the file of SAs: No such file"):
        load(tmp_path / "none")
    path = written(tmp_path / "sas.toml", 0o600)
    path.write_bytes(b"\n\xff")
    with pytest.raises(DocumentError, match=r"sas.toml:2: not TOML: not UTF-8"):
        load(path)
    path.write_bytes(bytes((1 << 20) + 1))
    with pytest.raises(DocumentError, match="not a file of SAs"):
        load(path)
