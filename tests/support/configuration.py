"""Configurations to test with, and what is wrong with one."""

from __future__ import annotations

from pathlib import Path

import pytest

from kinkvpn import config
from kinkvpn.document import DocumentError

SOURCE = Path("/etc/kinkvpn/kinkvpn.toml")

SMALL = """\
[host]
principal = "kink/west.example.com@EXAMPLE.COM"
keytab = "/etc/krb5.keytab"

[tun]
addresses = ["10.1.0.1/24", "fd00:1::1/64"]

[[peer]]
name = "east"
principal = "kink/east.example.com@EXAMPLE.COM"
address = "east.example.com"

[[peer.policy]]
local = ["10.1.0.0/24", "fd00:1::/64"]
remote = ["10.2.0.0/24", "fd00:2::/64"]
"""


def errors(text: str) -> list[str]:
    with pytest.raises(DocumentError) as caught:
        config.parse(text, SOURCE)
    return [line.removeprefix(f"{SOURCE}:") for line in str(caught.value).split("\n")]


def edited(old: str, new: str, text: str = SMALL) -> str:
    assert text.count(old) == 1, old
    return text.replace(old, new)
