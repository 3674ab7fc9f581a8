"""What OpenVPN is told, and the certificates that it is told with."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from bench.contestants.contestant import Setting
from bench.contestants.openvpn import certificate, command

if TYPE_CHECKING:
    from pathlib import Path


def test_the_fingerprint_is_that_of_the_certificate_and_the_key_is_private(tmp_path: Path) -> None:
    fingerprint = certificate(tmp_path, 0)
    read = x509.load_pem_x509_certificate((tmp_path / "0.crt").read_bytes())
    assert bytes.fromhex(fingerprint.replace(":", "")) == read.fingerprint(hashes.SHA256())
    key = serialization.load_pem_private_key((tmp_path / "0.key").read_bytes(), None)
    assert key.public_key() == read.public_key()
    assert stat.S_IMODE((tmp_path / "0.key").stat().st_mode) == 0o600


@pytest.mark.parametrize(("outer", "mtu"), [(4, "1448"), (6, "1428")])
def test_the_two_sides_fit_together(outer: int, mtu: str, tmp_path: Path) -> None:
    client, server = (command(Setting("aes256-gcm16", outer), tmp_path, side, "ab:cd") for side in (0, 1))
    assert "--tls-client" in client
    assert "--tls-server" in server
    for ours, theirs in ((client, server), (server, client)):
        assert option(ours, "--local") == option(theirs, "--remote")
        assert option(ours, "--tun-mtu") == mtu
        assert option(ours, "--data-ciphers") == "AES-256-GCM"
        assert "--disable-dco" in ours


def option(words: list[str], name: str) -> str:
    return words[words.index(name) + 1]
