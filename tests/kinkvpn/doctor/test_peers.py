"""Peers whom the KDC does not know, knows by another name, without a key, or in another realm."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.doctor import configuration, examined, host_section, patient, written
from support.kdc import ALICE, BOB, Lab, black_hole, free_port

from kinkvpn.demo.realm import Realm
from kinkvpn.doctor import kdc, peers
from kinkvpn.doctor.examination import Look

if TYPE_CHECKING:
    from pathlib import Path

    from kinkvpn.doctor.finding import Finding

pytestmark = pytest.mark.kdc

LOOKS = (Look("the KDC", kdc.granting, 300.0), Look("tickets", peers.tickets, 300.0, needs=("the KDC",)))


def seen(lab: Lab, peer: str, *, address: str = "127.0.0.1", more: str = "") -> dict[str, Finding]:
    """What is found of a peer with that principal."""
    host = host_section(ALICE, keytab=lab.keytab(ALICE))
    answer = examined(patient(written(lab.directory, host, peer=peer, address=address, more=more)), *LOOKS)
    assert {"kdc", "clock"} <= set(answer)
    return {name: finding for name, finding in answer.items() if finding.peer}


def mend_of(finding: Finding) -> str:
    """The line that it has for a configuration."""
    assert finding.setting is not None
    return finding.setting.line


@pytest.mark.provokes("peer-ticket")
def test_all_is_well(lab: Lab) -> None:
    lab.keytab(BOB)
    answer = seen(lab, BOB)
    assert answer["peer-ticket"].line == f"a ticket for {BOB}, aes256-cts-hmac-sha384-192 (20)"
    assert examined(patient(None), *LOOKS) == {}


@pytest.mark.provokes("peer-unknown")
def test_a_peer_whom_nobody_knows(lab: Lab) -> None:
    answer = seen(lab, "kink/stranger.test@KINKVPN.TEST")
    assert answer["peer-unknown"].command == "kadmin -q 'addprinc -randkey kink/stranger.test'"


@pytest.mark.provokes("principal-as-dns", "principal-dns")
def test_a_peer_known_by_the_name_that_dns_has(lab: Lab) -> None:
    """/etc/hosts is DNS enough: 127.0.0.1 is localhost everywhere."""
    lab.keytab("kink/localhost@KINKVPN.TEST")
    answer = seen(lab, "kink/gateway.test@KINKVPN.TEST", address="localhost")
    assert mend_of(answer["principal-as-dns"]) == 'principal = "kink/localhost@KINKVPN.TEST"'
    lab.keytab(BOB)
    both = seen(lab, BOB, address="localhost")
    assert set(both) == {"peer-ticket", "principal-dns"}
    assert both["principal-dns"].line.startswith("DNS calls localhost localhost")
    assert mend_of(both["principal-dns"]) == "dns_canonicalize_hostname = false"


@pytest.mark.provokes("principal-case")
def test_capital_letters(lab: Lab) -> None:
    lab.keytab(BOB)
    answer = seen(lab, "kink/Bob.test@KINKVPN.TEST")
    assert {"principal-case", "principal-as-dns"} <= set(answer)
    assert mend_of(answer["principal-as-dns"]) == f'principal = "{BOB}"'


@pytest.mark.provokes("user-to-user", "user-to-user-forbidden")
def test_a_peer_without_a_key(lab: Lab) -> None:
    carol = "kink/carol.test@KINKVPN.TEST"
    lab.realm.add_service(carol, "-allow_svr")
    erin = "kink/erin.test@KINKVPN.TEST"
    lab.realm.add_service(erin, "-e", "arcfour-hmac:normal")  # as good as none at a KDC that permits AES only
    assert "user-to-user" in seen(lab, carol).keys() & seen(lab, erin).keys()
    forbidden = seen(lab, carol, more='user_to_user = "never"')["user-to-user-forbidden"]
    assert mend_of(forbidden) == 'user_to_user = "auto"'
    assert forbidden.setting is not None
    assert (forbidden.command, forbidden.setting.section) == ("", "[[peer]]")


@pytest.mark.provokes("enctype-peer")
def test_a_peer_whose_key_is_of_a_broken_enctype(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A KDC that still makes such tickets; one that does not says that there is no key."""
    old = "kink/old.test@KINKVPN.TEST"
    with Realm(tmp_path / "realm", free_port(), enctypes=(20, 18, 23)) as realm:
        monkeypatch.setenv("KRB5_CONFIG", str(realm.krb5_conf))
        realm.add_service(old, "-e", "arcfour-hmac:normal")
        assert seen(Lab(realm, tmp_path), old)["enctype-peer"].command == "kadmin -q 'cpw -randkey kink/old.test'"


@pytest.mark.provokes("no-peer-ticket")
def test_a_kdc_that_does_not_want_to(lab: Lab) -> None:
    dave = "kink/dave.test@KINKVPN.TEST"
    lab.realm.add_service(dave, "-allow_tgs_req")
    assert seen(lab, dave)["no-peer-ticket"].command == f"kvno {dave}"


@pytest.mark.provokes("realm-path", "realm-unknown")
def test_realms_without_a_way_between_them(lab: Lab) -> None:
    answer = seen(lab, "kink/far.test@ELSEWHERE.TEST")
    assert "krbtgt/ELSEWHERE.TEST@KINKVPN.TEST is missing" in answer["realm-path"].line
    lab.realm.kadmin("addprinc", "-randkey", "krbtgt/ELSEWHERE.TEST@KINKVPN.TEST")
    assert "realm-unknown" in seen(lab, "kink/far.test@ELSEWHERE.TEST")


@pytest.mark.provokes("realm-path", "kdc-silent")
def test_another_realm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is trusted, one behind it that is not, and the first one's KDC gone."""
    ours, theirs = (Realm(tmp_path / name, free_port(), name=f"{name}.TEST") for name in ("OURS", "THEIRS"))
    with ours:
        monkeypatch.setenv("KRB5_CONFIG", str(ours.krb5_conf))
        with theirs:
            ours.trust(theirs)
            ours.add_service("kink/us.test@OURS.TEST")
            theirs.add_service("kink/them.test@THEIRS.TEST")
            ours.write_keytab("kink/us.test@OURS.TEST", tmp_path / "keytab")
            host = host_section("kink/us.test@OURS.TEST", keytab=tmp_path / "keytab") + "kdc_timeout = 3\n"

            def look(peer: str) -> set[str]:
                found = examined(patient(configuration(host, peer=peer, address="127.0.0.1")), *LOOKS)
                return {name for name, finding in found.items() if finding.peer} - {"principal-dns"}

            assert look("kink/them.test@THEIRS.TEST") == {"peer-ticket"}
            assert look("kink/nobody.test@THEIRS.TEST") == {"peer-unknown"}
            capaths = "[capaths]\n  OURS.TEST = {\n    THIRD.TEST = THEIRS.TEST\n  }\n"
            ours.krb5_conf.write_text(ours.krb5_conf.read_text() + capaths)
            assert peers.path("OURS.TEST", "THIRD.TEST") == ["OURS.TEST", "THEIRS.TEST", "THIRD.TEST"]
            found = examined(patient(configuration(host, peer="kink/x.test@THIRD.TEST")), *LOOKS)
            assert "krbtgt/THIRD.TEST@THEIRS.TEST is missing" in found["realm-path"].line
        with black_hole(theirs.port):
            assert look("kink/them.test@THEIRS.TEST") == {"kdc-silent"}
