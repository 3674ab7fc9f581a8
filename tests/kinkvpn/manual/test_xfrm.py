"""``ip xfrm`` commands. That a kernel takes them and means the same by them: tests/interop/test_kernel.py."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest
from support.manual import pair

from esp.headers import DontFragment, Ecn, HeaderRules
from esp.policy import Selector
from esp.sa import Encapsulation, Endpoint, Mode, SecurityProtocol
from kinkvpn.manual import xfrm
from kinkvpn.manual.pair import Pair

OUT, IN, LEAVES, ARRIVES, FORWARDED = range(5)


def test_a_gateway_of_a_tunnel() -> None:
    key, other = "11" * 36, "22" * 36
    assert list(xfrm.commands(pair(), 7)) == [
        "ip xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x00001001 reqid 7 mode tunnel replay-window 4096 "
        f"flag af-unspec aead 'rfc4106(gcm(aes))' 0x{key} 128 encap espinudp 4500 4500 0.0.0.0",
        "ip xfrm state add src 192.0.2.2 dst 192.0.2.1 proto esp spi 0x00002002 reqid 7 mode tunnel replay-window 4096 "
        f"flag af-unspec aead 'rfc4106(gcm(aes))' 0x{other} 128 encap espinudp 4500 4500 0.0.0.0",
        "ip xfrm policy add src 10.1.0.0/24 dst 10.2.0.0/24 dir out "
        "priority 2 tmpl src 192.0.2.1 dst 192.0.2.2 proto esp reqid 7 mode tunnel",
        "ip xfrm policy add src 10.2.0.0/24 dst 10.1.0.0/24 dir in "
        "priority 2 tmpl src 192.0.2.2 dst 192.0.2.1 proto esp reqid 7 mode tunnel",
        "ip xfrm policy add src 10.2.0.0/24 dst 10.1.0.0/24 dir fwd "
        "priority 2 tmpl src 192.0.2.2 dst 192.0.2.1 proto esp reqid 7 mode tunnel",
    ]


def test_the_other_end_has_the_same_two_states() -> None:
    here, there = list(xfrm.commands(pair(), 1)), list(xfrm.commands(pair().turned_about(), 1))
    assert (here[OUT], here[IN]) == (there[IN], there[OUT])
    assert "src 10.2.0.0/24 dst 10.1.0.0/24 dir out priority 2 tmpl src 192.0.2.2 dst 192.0.2.1" in there[LEAVES]


@pytest.mark.parametrize(
    ("suite", "words"),
    [
        ("aes128-gcm16", f"aead 'rfc4106(gcm(aes))' 0x{'11' * 20} 128"),
        ("aes192-cbc-sha256", f"enc 'cbc(aes)' 0x{'11' * 24} auth-trunc 'hmac(sha256)' 0x{'11' * 32} 128"),
        ("aes256-gcm8", f"aead 'rfc4106(gcm(aes))' 0x{'11' * 36} 64"),
        ("aes128-ccm12", f"aead 'rfc4309(ccm(aes))' 0x{'11' * 19} 96"),
        ("aes128-gmac", f"aead 'rfc4543(gcm(aes))' 0x{'11' * 20} 128"),
        ("chacha20-poly1305", f"aead 'rfc7539esp(chacha20,poly1305)' 0x{'11' * 36} 128"),
        ("aes128-ctr-xcbc", f"enc 'rfc3686(ctr(aes))' 0x{'11' * 20} auth-trunc 'xcbc(aes)' 0x{'11' * 16} 96"),
        ("null-sha512", f"enc 'ecb(cipher_null)' '' auth-trunc 'hmac(sha512)' 0x{'11' * 64} 256"),
        ("3des-cbc-md5", f"enc 'cbc(des3_ede)' 0x{'11' * 24} auth-trunc 'hmac(md5)' 0x{'11' * 16} 96"),
        ("aes128-cbc-sha1", f"enc 'cbc(aes)' 0x{'11' * 16} auth-trunc 'hmac(sha1)' 0x{'11' * 20} 96"),
    ],
)
def test_algorithms(suite: str, words: str) -> None:
    assert f" {words} " in next(xfrm.commands(pair(suite), 1))


@pytest.mark.parametrize(("six", "flags"), [(False, "flag af-unspec flag align4"), (True, "flag af-unspec")])
def test_ah_has_no_cipher_and_the_alignment_of_its_rfc(six: bool, flags: str) -> None:
    made = pair("null-sha256")
    here, there = ("2001:db8::1", "2001:db8::2") if six else ("192.0.2.1", "192.0.2.2")
    ah = {"protocol": SecurityProtocol.AH, "encapsulation": Encapsulation.RAW, "remote": Endpoint(there, 0)}
    made = Pair(Endpoint(here, 0), *(replace(each, **ah, local=here) for each in (made.outbound, made.inbound)))
    commands = list(xfrm.commands(made, 7))
    assert commands[OUT] == (
        f"ip xfrm state add src {here} dst {there} proto ah spi 0x00001001 reqid 7 mode tunnel replay-window 4096 "
        f"{flags} auth-trunc 'hmac(sha256)' 0x{'11' * 32} 128"
    )
    assert commands[LEAVES].endswith(f"tmpl src {here} dst {there} proto ah reqid 7 mode tunnel")
    assert made.turned_about().outbound.local == there


def test_transport_mode_forwards_nothing_and_is_of_one_family() -> None:
    commands = list(xfrm.commands(pair(mode=Mode.TRANSPORT, encapsulation=Encapsulation.RAW), 1))
    assert len(commands) == 4
    assert not [command for command in commands if "dir fwd" in command or "af-unspec" in command]
    assert all("mode transport" in command for command in commands)


def test_the_udp_that_carries_transport_mode_is_not_itself_to_be_carried() -> None:
    commands = list(xfrm.commands(pair(mode=Mode.TRANSPORT), 1))
    assert commands[4:] == [
        "ip xfrm policy add src 192.0.2.1 dst 192.0.2.2 proto 17 sport 4500 dport 4500 dir out priority 1",
        "ip xfrm policy add src 192.0.2.2 dst 192.0.2.1 proto 17 sport 4500 dport 4500 dir in priority 1",
    ]


def test_raw_esp_has_no_encapsulation() -> None:
    assert not [one for one in xfrm.commands(pair(encapsulation=Encapsulation.RAW), 1) if "encap" in one]


def test_ipv6_outside() -> None:
    six = list(xfrm.commands(pair(local="2001:db8::1", remote="2001:db8::2"), 1))
    assert "src 2001:db8::1 dst 2001:db8::2" in six[OUT]
    assert six[OUT].endswith("encap espinudp 4500 4500 ::")


def test_ports_are_the_packets_own() -> None:
    here = pair()
    selector = Selector(ip_network("10.1.0.0/24"), ip_network("10.2.0.0/24"), 6, local_port=1000, remote_port=443)
    here = replace(here, outbound=replace(here.outbound, selector=selector))
    commands = list(xfrm.commands(replace(here, inbound=replace(here.inbound, selector=selector)), 1))
    assert "src 10.1.0.0/24 dst 10.2.0.0/24 proto 6 sport 1000 dport 443 dir out" in commands[LEAVES]
    assert "src 10.2.0.0/24 dst 10.1.0.0/24 proto 6 sport 443 dport 1000 dir in" in commands[ARRIVES]
    assert "proto 6 sport 443 dport 1000 dir fwd" in commands[FORWARDED]


def test_numbers_go_on_where_they_were() -> None:
    here = pair(sequence=0x1_0000_0005)
    commands = list(xfrm.commands(here, 1))
    assert " replay-oseq 0x5 replay-oseq-hi 0x1" in commands[OUT]
    assert " replay-seq 0x5 replay-seq-hi 0x1" in commands[IN]
    assert "replay-" not in next(xfrm.commands(pair(), 1)).replace("replay-window", "")


@pytest.mark.parametrize(("window", "printed"), [(1, 1), (64, 64), (100, 64), (8192, 4096), (0, 4096)])
def test_with_extended_numbers_a_window_is_a_power_of_two(window: int, printed: int) -> None:
    commands = list(xfrm.commands(pair(esn=True, replay_window=window), 1))
    for command in (commands[OUT], commands[IN]):
        assert f"replay-window {printed} " in command
        assert " flag esn " in command


def test_a_window_is_no_longer_than_the_kernel_has() -> None:
    assert "replay-window 4096 " in next(xfrm.commands(pair(replay_window=65_536), 1))
    assert "replay-window 64 " in next(xfrm.commands(pair(replay_window=64), 1))
    assert "replay-window 0 " in next(xfrm.commands(pair(replay_window=0), 1))


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        (HeaderRules(), ""),
        (HeaderRules(dscp=bytes([46]) * 64, df=DontFragment.COPY), ""),  # which the kernel has no flags for
        (HeaderRules(ecn=Ecn.COMPATIBLE, dscp_inward=True), "flag noecn flag decap-dscp "),
        (HeaderRules(dscp=bytes(64), df=DontFragment.CLEAR), "flag nopmtudisc extra-flag dont-encap-dscp "),
    ],
)
def test_what_the_kernel_has_of_header_rules(rules: HeaderRules, words: str) -> None:
    for state in list(xfrm.commands(pair(headers=rules), 1))[:2]:
        assert f"flag af-unspec {words}aead" in state
