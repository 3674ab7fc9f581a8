"""[metrics]: where it may listen, and what has to be said before others may read."""

from __future__ import annotations

from pathlib import Path

import pytest

from kinkvpn import config
from kinkvpn.config import Listen
from kinkvpn.document import DocumentError

REST = """
[host]
principal = "kink/a@R"
keytab = "k"
[[peer]]
name = "b"
principal = "kink/b@R"
address = "192.0.2.2"
[[peer.policy]]
local = "10.1.0.1/32"
remote = "10.2.0.1/32"
"""


def read(*lines: str) -> config.MetricsSettings:
    return config.parse("\n".join(["[metrics]", *lines, REST]), Path("/x/k.toml")).metrics


def test_without_it_nothing_listens() -> None:
    assert read() == config.parse(REST, Path("/x/k.toml")).metrics == config.MetricsSettings()


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("127.0.0.1:9910", Listen("127.0.0.1", 9910)),
        ("127.3.2.1:1", Listen("127.3.2.1", 1)),
        ("[::1]:65535", Listen("::1", 65535)),
    ],
)
def test_loopback(written: str, found: Listen) -> None:
    assert read(f'listen = "{written}"').listen == found


def test_names_are_in_lower_case() -> None:
    assert read('hosts = ["GW.Example.com"]').hosts == ("gw.example.com",)


@pytest.mark.parametrize("address", ["0.0.0.0", "192.0.2.1", "[::]", "[fd00::1]"])
def test_beyond_loopback_has_to_be_said(address: str) -> None:
    listen = f'listen = "{address}:9910"'
    with pytest.raises(DocumentError, match=r"metrics\.listen = .*: expected a loopback address, or anywhere = true"):
        read(listen)
    assert read(listen, "anywhere = true").listen == Listen(address.strip("[]"), 9910)


@pytest.mark.parametrize(
    "written", ["127.0.0.1", "9910", ":9910", "::1:9910", "[127.0.0.1]:80", "127.0.0.1:0", "127.0.0.1:65536", "a:1"]
)
def test_what_is_no_address_and_port(written: str) -> None:
    with pytest.raises(DocumentError, match="expected an address and a TCP port"):
        read(f'listen = "{written}"')
