from __future__ import annotations

from pathlib import Path

import pytest

from kinkvpn.config.dns import NO_DNS, DnsSettings, read_dns
from kinkvpn.document import Document, DocumentError, Table


def read(text: str) -> DnsSettings:
    document = Document.parse(text, "/etc/kinkvpn/here.toml")
    settings = read_dns(Table(document, (), document.root).table("dns"))
    document.raise_problems()
    return settings


def test_what_is_written_arrives() -> None:
    assert read("") == NO_DNS
    text = '[dns]\nservers = ["10.1.0.53", "fd00:1::53"]\ndomains = "Example.COM."\nfile = "resolv.conf"\n'
    expected = DnsSettings(("10.1.0.53", "fd00:1::53"), ("example.com",), Path("/etc/kinkvpn/resolv.conf"))
    assert read(text) == expected


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ('domains = "example.com"', 'dns.domains = "example.com": expected servers beside it'),
        ('servers = "ns.example.com"', "expected an IPv4 or IPv6 address"),
        (f"servers = {[f'10.1.0.{n}' for n in range(9)]}", "expected at most 8"),
        ('servers = "10.1.0.53"\ndomains = "a b"', "expected a DNS name"),
        ('server = "10.1.0.53"', "unknown key; did you mean servers?"),
    ],
)
def test_mistakes_are_named(lines: str, words: str) -> None:
    with pytest.raises(DocumentError) as caught:
        read(f"[dns]\n{lines}\n")
    assert words in str(caught.value)
