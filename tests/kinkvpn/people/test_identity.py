from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from kinkvpn.kerberos.libkrb5 import Context
from kinkvpn.people.identity import Identity, default_ccache, find_identity, gateway_principal, this_machine
from kinkvpn.service.obstacles import StartRefused

if TYPE_CHECKING:
    from pathlib import Path

    from support.kdc import Lab

ALICE = Identity("alice@KINKVPN.TEST", "MEMORY:alice")


@pytest.mark.kdc
def test_alice_is_who_kinit_says(lab: Lab, ccache: str, monkeypatch: pytest.MonkeyPatch) -> None:
    alice = f"alice@{lab.realm.name}"
    assert find_identity(ccache) == Identity(alice, ccache)
    monkeypatch.setenv("KRB5CCNAME", ccache)
    assert find_identity() == Identity(alice, ccache)
    assert find_identity().realm == lab.realm.name


def test_without_tickets_it_says_where_it_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KRB5CCNAME", f"FILE:{tmp_path}/nothing")
    with pytest.raises(StartRefused, match=r"no tickets in FILE:.*/nothing: .*; kinit gets some, --ccache names"):
        find_identity()


def test_under_sudo_the_caller_s_tickets_are_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KRB5CCNAME", raising=False)
    conf = tmp_path / "krb5.conf"
    monkeypatch.setenv("KRB5_CONFIG", str(conf))
    monkeypatch.setattr("os.geteuid", lambda: 0)
    built = subprocess.run(["krb5-config", "--defccname"], check=True, capture_output=True, text=True).stdout.strip()
    for line, expected in (
        ("", built.replace("%{uid}", "1000")),
        ("default_ccache_name = KEYRING:persistent:%{uid}\n", "KEYRING:persistent:1000"),
    ):
        conf.write_text(f"[libdefaults]\n{line}")
        assert default_ccache(Context(), {"SUDO_UID": "1000"}) == expected
    for environment in ({}, {"SUDO_UID": "1000", "KRB5CCNAME": "FILE:/x"}, {"SUDO_UID": "x/y"}):
        assert default_ccache(Context(), environment) == Context().default_ccache()


def test_the_gateway_s_realm_is_krb5_conf_s_or_one_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conf = tmp_path / "krb5.conf"
    monkeypatch.setenv("KRB5_CONFIG", str(conf))
    conf.write_text("[domain_realm]\n.example.com = EXAMPLE.COM\n")
    assert gateway_principal("GW.example.com", ALICE) == "kink/gw.example.com@EXAMPLE.COM"
    assert gateway_principal("gw.example.net", ALICE) == "kink/gw.example.net@KINKVPN.TEST"


def test_a_machine_is_the_same_at_every_start_and_does_not_give_its_id_away(tmp_path: Path) -> None:
    ids = tmp_path / "machine-id"
    assert this_machine(ids) != this_machine(ids)
    for unusable in ("", "uninitialized", "\xe9"):
        ids.write_text(f"{unusable}\n")
        assert this_machine(ids) != this_machine(ids)
    ids.write_text(f"{'5a' * 16}\n")
    assert this_machine(ids) == this_machine(ids)
    assert len(this_machine(ids)) == 16
    assert this_machine(ids) != b"\x5a" * 16


@pytest.mark.root
@pytest.mark.kdc
def test_tickets_that_somebody_else_has_put_there_are_refused(ccache: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = ccache.removeprefix("FILE:")
    monkeypatch.setenv("KRB5CCNAME", ccache)
    os.chown(path, 1001, 1001)
    with pytest.raises(StartRefused, match=rf"tickets in {ccache} are those of uid 1001, who has not asked: --ccache"):
        find_identity(environment=os.environ | {"SUDO_UID": "1000"})
    link = f"{path}.link"
    os.symlink(path, link)
    monkeypatch.setenv("KRB5CCNAME", f"FILE:{link}")
    with pytest.raises(StartRefused, match="uid 1001"):
        find_identity()
    assert find_identity(environment=os.environ | {"SUDO_UID": "1001"}).ccache == f"FILE:{link}"
    assert find_identity(ccache).ccache == ccache, "it was named"
