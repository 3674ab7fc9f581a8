"""What is proposed in comments is good as it stands."""

from __future__ import annotations

import re
from ipaddress import ip_network
from pathlib import Path

import pytest

from kinkvpn import config
from kinkvpn.config.template import Answers, write
from kinkvpn.proto.settings import Start

WEST = "kink/west.example.com@EXAMPLE.COM"
PROPOSED = re.compile(r"^# (?=\[[a-z]+\]$|[a-z_]+ = )", re.MULTILINE)


@pytest.mark.parametrize("boot", [False, True])
@pytest.mark.parametrize("subnet", ["10.1.0.0/24", "10.1.0.1/32", "fd00:1::/64", "10.1.0.0/31"])
def test_every_comment_may_be_taken_at_its_word(subnet: str, *, boot: bool) -> None:
    six = ":" in subnet
    answers = Answers(
        principal=WEST,
        keytab=Path("/etc/krb5.keytab"),
        found=True,
        peer="east.example.com",
        peer_principal="",
        local=(ip_network(subnet),),
        remote=(ip_network("fd00:2::/64" if six else "10.2.0.0/24"),),
        boot=boot,
    )
    text = write(answers)
    assert all(len(line) <= 80 for line in text.splitlines())
    whole, proposals = PROPOSED.subn("", text)
    assert proposals >= 7
    found = config.parse(whole, Path("/x/k.toml"))
    assert found.host.principal == WEST
    assert {policy.start for policy in found.policies} == {Start.BOOT}
    assert found.tun.addresses[0].ip in ip_network(subnet)
