from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest
import trio
from support.kdc import free_port

from kinkvpn.demo.realm import Realm
from kinkvpn.kerberos.credentials import Credentials
from kinkvpn.kerberos.libkrb5 import Context
from kinkvpn.kerberos.tickets import TicketSource
from kinkvpn.people.identity import (
    Identity,
    default_ccache,
    find_identity,
    gateway_principal,
    likely_principal,
    machine_of,
    this_machine,
)
from kinkvpn.service.obstacles import StartRefused

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.kdc import Lab

DEADLINE = 60.0
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
    assert likely_principal("GW.example.com", ALICE) == "kink/gw.example.com@EXAMPLE.COM"
    assert likely_principal("gw.example.net", ALICE) == "kink/gw.example.net@KINKVPN.TEST"


@pytest.fixture(scope="module")
def elsewhere(running_lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Realm]:
    """A realm that alice's trusts, with a gateway; alice's KDC alone knows which hosts are there."""
    home = running_lab.realm
    with Realm(tmp_path_factory.mktemp("elsewhere"), free_port(), name="OTHER.EXAMPLE") as other:
        other.add_service("kink/gw.other.example")
        other.add_service("kink/gw.moved.example")
        home.trust(other)
        home.stop()
        kdc_conf = home.directory / "kdc.conf"
        kdc_conf.write_text(kdc_conf.read_text() + "[domain_realm]\n    .other.example = OTHER.EXAMPLE\n")
        home.start()
        yield other


@pytest.fixture
def tickets(elsewhere: Realm, lab: Lab, ccache: str) -> TicketSource:
    assert "domain_realm" not in lab.realm.krb5_conf.read_text()
    return TicketSource(Credentials(f"alice@{lab.realm.name}", ccache=ccache))


def asked(tickets: TicketSource, gateway: str) -> str:
    """The gateway's principal, or why there is none."""
    try:
        return trio.run(gateway_principal, gateway, tickets, DEADLINE)
    except StartRefused as refused:
        return str(refused)


@pytest.mark.kdc
def test_the_kdc_knows_which_realm_a_gateway_is_in(tickets: TicketSource, lab: Lab) -> None:
    lab.keytab("kink/gw.home.test@KINKVPN.TEST")
    assert asked(tickets, "gw.other.example") == "kink/gw.other.example@OTHER.EXAMPLE"
    assert asked(tickets, "GW.Other.example.") == "kink/gw.other.example@OTHER.EXAMPLE"
    assert asked(tickets, "gw.home.test") == "kink/gw.home.test@KINKVPN.TEST"
    conf = lab.realm.krb5_conf.read_text()
    # What only krb5.conf knows is asked for there; and a name without dots is made whole.
    lab.realm.krb5_conf.write_text(f"{conf}[domain_realm]\n    gw.moved.example = OTHER.EXAMPLE\n")
    try:
        assert asked(tickets, "gw.moved.example") == "kink/gw.moved.example@OTHER.EXAMPLE"
        lab.realm.krb5_conf.write_text(
            conf.replace("[libdefaults]", "[libdefaults]\n    qualify_shortname = home.test")
        )
        assert asked(tickets, "gw") == "kink/gw.home.test@KINKVPN.TEST"
    finally:
        lab.realm.krb5_conf.write_text(conf)


@pytest.mark.kdc
@pytest.mark.parametrize(
    ("gateway", "hint"),
    [
        ("none.other.example", "; --principal says which it has"),
        ("192.0.2.1", "; a gateway's principal has its host name: use that, or --principal says which it has"),
        ("2001:db8::1", "; a gateway's principal has its host name: use that, or --principal says which it has"),
        ("gw", "; use its whole name, such as gw.example.com, or --principal says which it has"),
    ],
)
def test_a_gateway_that_no_kdc_knows(tickets: TicketSource, lab: Lab, gateway: str, hint: str) -> None:
    unknown = f"the KDC of KINKVPN.TEST (127.0.0.1:{lab.realm.port}) knows no such principal, nor whom to ask"
    assert asked(tickets, gateway) == f"no ticket for kink/{gateway}: {unknown}{hint}"


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


def test_one_of_several_on_this_host_is_the_same_for_what_was_kept_of_it(tmp_path: Path) -> None:
    ids = tmp_path / "machine-id"
    one, without = machine_of(b"one", ids), machine_of(b"other", ids)
    assert one == machine_of(b"one", ids)
    assert len({one, without}) == 2
    ids.write_text(f"{'5a' * 16}\n")
    assert len({one, machine_of(b"one", ids), this_machine(ids)}) == 3


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
