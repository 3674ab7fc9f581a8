"""The rules of the kill switch, as nft reads them; what they keep in, tests/interop/test_kill_switch.py shows."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from support.configuration import SMALL, SOURCE

from kinkvpn import config
from kinkvpn.service import kill_switch
from kinkvpn.service.bypass import with_bypass
from kinkvpn.service.kill_switch import KillSwitchRefused, obstacles, ruleset, table_of

if TYPE_CHECKING:
    from pathlib import Path

PROTECTED = f'clear.block = "protected"\n{SMALL}'
EVERYTHING = f'clear.block = "everything"\nclear.bypass = ["kdc", "192.0.2.0/24"]\n{SMALL}'


def rules(text: str, chain: str = "policies") -> list[str]:
    configuration = with_bypass(config.parse(text, SOURCE), ())
    found = re.search(rf"chain {chain} {{\n(.*?)\n  }}", ruleset(configuration, 64910), re.DOTALL)
    assert found is not None
    return [line.strip() for line in found[1].splitlines()]


def test_what_is_protected_is_kept_in_from_whichever_address() -> None:
    assert rules(PROTECTED) == [
        'oifname { "lo", "kink0" } accept',
        "ip daddr { 10.2.0.0/24 } counter drop",
        "ip6 daddr { fd00:2::/64 } counter drop",
    ]


def test_everything_is_all_but_what_is_bypassed_and_what_a_network_needs() -> None:
    found = rules(EVERYTHING)
    assert found[1] == "meta nfproto ipv4 meta l4proto 17 th dport 88 accept"
    assert "ip daddr { 192.0.2.0/24 } accept" in found
    assert found[-2:] == ['iifname "kink0" accept', "counter drop"]
    assert any(rule.startswith("icmpv6") for rule in found)


def test_esp_and_kink_are_told_by_their_account_too() -> None:
    ports = "meta skuid 64910 udp sport { 910, 4500 } accept"
    assert rules(PROTECTED, "output") == ["type filter hook output priority filter;", ports, "jump policies"]
    raw = PROTECTED.replace("[[peer.policy]]", '[[peer.policy]]\nencapsulation = "raw"')
    assert rules(raw, "output")[2] == "meta skuid 64910 meta l4proto { esp, ah } accept"
    assert "skuid" not in ruleset(config.parse(raw, SOURCE), None), "while there is no daemon they are nobody's"


def test_exceptions_stand_in_their_order_with_all_that_they_say() -> None:
    exceptions = """
[[policy]]
action = "discard"
protocol = "tcp"
local = "10.1.0.0/25"
local_port = 25
remote = "10.2.0.7-10.2.0.9"
remote_port = "80-90"
[[policy]]
action = "bypass"
remote = "10.2.0.128/25"
[[policy]]
action = "discard"
protocol = "icmp"
icmp_type = 8
[[policy]]
action = "discard"
protocol = "icmpv6"
icmp_type = "128-129"
icmp_code = 0
remote = "fd00::/8"
"""
    ranged = "ip daddr { 10.2.0.7/32, 10.2.0.8/31 } ip saddr { 10.1.0.0/25 } meta l4proto 6 th sport 25 th dport 80-90"
    assert rules(PROTECTED + exceptions)[1:5] == [
        f"{ranged} counter drop",
        "ip daddr { 10.2.0.128/25 } accept",
        "meta nfproto ipv4 meta l4proto 1 icmp type 8 counter drop",
        "ip6 daddr { fd00::/8 } meta l4proto 58 icmpv6 type 128-129 icmpv6 code 0 counter drop",
    ]


def test_what_is_protected_by_ports_has_its_fragments_kept_in_too() -> None:
    found = rules(PROTECTED.replace("[[peer.policy]]", '[[peer.policy]]\nprotocol = "udp"\nremote_port = 53'))
    assert found[1:] == [
        "ip daddr { 10.2.0.0/24 } meta l4proto 17 th dport 53 counter drop",
        "ip daddr { 10.2.0.0/24 } ip protocol 17 ip frag-off & 0x1fff != 0 counter drop",
        "ip6 daddr { fd00:2::/64 } meta l4proto 17 th dport 53 counter drop",
        "ip6 daddr { fd00:2::/64 } exthdr frag exists counter drop",
    ]


def test_each_device_has_a_table_of_its_own() -> None:
    assert table_of("kink0") == "kinkvpn_kink0"
    assert len({table_of(each) for each in ("a-b", "a_b", "a.b", "a--b")}) == 4


@pytest.mark.root
def test_nft_has_a_table_for_each_name_that_a_device_may_have() -> None:
    configuration = config.parse(PROTECTED, SOURCE)
    names = ["-", "_", "0", "a..b", "-a.b-", "a-b", "a_b", "A_b"]
    text = "".join(ruleset(replace(configuration, tun=replace(configuration.tun, name=name)), 64910) for name in names)
    command = ["unshare", "--net", "sh", "-c", "nft -f - && nft list tables"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == [f"table inet kinkvpn_{name}" for name in names]


def test_without_nft_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(kill_switch, "SYSTEM", "/nowhere/either")
    assert obstacles(config.parse(PROTECTED, SOURCE)) == [
        "the kill switch (clear.block) needs nft: apt-get install nftables"
    ]
    assert obstacles(config.parse(SMALL, SOURCE)) == []


async def test_who_has_no_kill_switch_starts_without_nft(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(kill_switch, "SYSTEM", "/nowhere/either")
    await kill_switch.block(config.parse(SMALL, SOURCE))
    with pytest.raises(KillSwitchRefused, match="apt-get install nftables"):
        await kill_switch.block(config.parse(PROTECTED, SOURCE))


def kinkvpn(*arguments: str, before: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    command = [*before, sys.executable, "-m", "kinkvpn", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.root
@pytest.mark.parametrize("text", [PROTECTED, EVERYTHING])
def test_the_commands_put_it_in_place_again_and_again_and_take_it_away(tmp_path: Path, text: str) -> None:
    (tmp_path / "k.toml").write_text(f'{text}\n[[policy]]\naction = "discard"\nprotocol = "icmp"\nicmp_type = "3-5"\n')
    script = """
set -e
for time in 1 2; do "$@" block -c k.toml; nft list table inet kinkvpn_kink0 | grep -c drop; done
for time in 1 2; do "$@" unblock -c k.toml; nft list tables | wc -l; done
"""
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", script, "sh", sys.executable, "-m", "kinkvpn"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    drops = {PROTECTED: 3, EVERYTHING: 4}[text]
    assert done.stdout.split() == [str(drops), str(drops), "0", "0"]


@pytest.mark.root
def test_who_may_not_is_told_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "k.toml").write_text(PROTECTED)
    powerless = ("unshare", "--net", "setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", "--")
    for command in ("block", "unblock"):
        done = kinkvpn(command, "-c", str(tmp_path / "k.toml"), before=powerless)
        assert (done.returncode, done.stderr) == (
            2,
            "kinkvpn: the kill switch (clear.block) needs CAP_NET_ADMIN, which uid 0 has not got\n",
        )
    (tmp_path / "k.toml").write_text(SMALL)
    done = kinkvpn("block", "-c", str(tmp_path / "k.toml"), before=())
    assert done.returncode == 2
    assert done.stderr.endswith('clear.block = "nothing": expected "protected" or "everything"\n')
