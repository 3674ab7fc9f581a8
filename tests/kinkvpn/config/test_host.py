"""This host in Kerberos."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.configuration import SOURCE, edited
from support.keytabs import write_keytab

from kinkvpn import config
from kinkvpn.config import host as host_module
from kinkvpn.document import DocumentError

if TYPE_CHECKING:
    from pathlib import Path

WEST = "kink/west.example.com@EXAMPLE.COM"
PEER = '[[peer]]\naddress = "East.Example.com"\nlocal = "10.1.0.0/24"\nremote = "10.2.0.0/24"\n'


@pytest.mark.parametrize(
    ("stores", "keytab"),
    [
        ('keytab = "a"', "a"),
        ('keytab = "a"\nclient_keytab = "c"', "c"),
        ('keytab = "a"\nccache = "KCM:"', None),
        ('client_keytab = "c"\nccache = "KCM:"', "c"),
    ],
)
def test_which_keytab_credentials_are_got_with(stores: str, keytab: str | None) -> None:
    host = config.parse(edited('keytab = "/etc/krb5.keytab"', stores), SOURCE).host
    assert host.initiator_keytab == (SOURCE.parent / keytab if keytab else None)


def test_four_lines_are_a_gateway(tmp_path: Path) -> None:
    keytab = write_keytab(tmp_path / "keytab", "host/west.example.com@EXAMPLE.COM", WEST)
    found = config.parse(PEER, tmp_path / "k.toml")
    assert (found.host.principal, found.host.keytab) == (WEST, keytab)
    (peer,) = found.peers
    assert (peer.name, peer.principal) == ("east", "kink/east.example.com@EXAMPLE.COM")
    assert [policy.name for policy in peer.policies] == ["east/1"]


def test_the_system_s_keytab_is_taken_where_there_is_none_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_module, "SYSTEM_KEYTAB", write_keytab(tmp_path / "krb5.keytab", WEST))
    assert config.parse(PEER, tmp_path / "k.toml").host.keytab == tmp_path / "krb5.keytab"
    (tmp_path / "krb5.keytab").unlink()
    with pytest.raises(DocumentError) as caught:
        config.parse(PEER, tmp_path / "k.toml")
    assert [line.partition(": ")[2].partition(":")[0] for line in str(caught.value).splitlines()] == [
        "host.keytab is missing",
        "host.principal is missing",
        "peer[1].principal is missing",
    ]


@pytest.mark.parametrize(
    ("principals", "reason"),
    [
        (("alice@R",), "has no kink/ entry"),
        ((WEST, "kink/other@R"), f"has {WEST}, kink/other@R"),
    ],
)
def test_which_principal_is_not_guessed(tmp_path: Path, principals: tuple[str, ...], reason: str) -> None:
    keytab = write_keytab(tmp_path / "keytab", *principals)
    with pytest.raises(DocumentError) as caught:
        config.parse(PEER, tmp_path / "k.toml")
    assert f"such as kink/gw.example.com@EXAMPLE.COM, for {keytab} {reason}" in str(caught.value)
    keytab.write_bytes(b"none")
    with pytest.raises(DocumentError, match="is no keytab"):
        config.parse(PEER, tmp_path / "k.toml")
    written = f'[host]\nprincipal = "{WEST}"\n{PEER}'
    assert config.parse(written, tmp_path / "k.toml").host.principal == WEST, "nobody looks where nobody has to"
