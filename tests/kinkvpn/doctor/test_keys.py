"""Keys of a host that does not get as far as the KDC with them."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from support.doctor import configuration, examined, found, host_section, keytab_by_hand, look, patient
from support.kdc import ALICE, BOB, Lab

from kinkvpn.doctor import keys

if TYPE_CHECKING:
    from pathlib import Path

    from kinkvpn.doctor.finding import Finding

pytestmark = pytest.mark.kdc


def seen(principal: str = ALICE, **host: object) -> dict[str, Finding]:
    return found(keys.found_here(patient(configuration(host_section(principal, **host)))))


@pytest.mark.provokes("keytab")
def test_good_keys(lab: Lab) -> None:
    answer = seen(keytab=lab.keytab(ALICE))
    assert set(answer) == {"keytab"}
    assert "aes256-cts-hmac-sha384-192 (20)" in answer["keytab"].line
    assert list(keys.found_here(patient(None))) == []


@pytest.mark.provokes("krb5-config")
def test_a_krb5_conf_that_is_none(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "krb5.conf").write_text("[libdefaults\n")
    answer = seen(keytab=lab.keytab(ALICE), krb5_config=tmp_path / "krb5.conf")
    assert set(answer) == {"krb5-config"}
    assert answer["krb5-config"].command == f"${{EDITOR:-vi}} {tmp_path}/krb5.conf"


@pytest.mark.provokes("keytab-missing", "keytab-unreadable", "keytab-lacks-principal")
def test_keytabs_that_do_not_do(lab: Lab, tmp_path: Path) -> None:
    missing = seen(keytab=tmp_path / "none")["keytab-missing"]
    assert missing.command == f"kadmin -q 'ktadd -k {tmp_path}/none kink/alice.test'"
    (tmp_path / "garbage").write_text("this is no keytab")
    garbage = seen(keytab=tmp_path / "garbage")["keytab-unreadable"].command
    assert garbage.startswith(f"mv {tmp_path}/garbage {tmp_path}/garbage.bad && kadmin -q 'ktadd ")
    lacking = seen(keytab=lab.keytab(BOB))["keytab-lacks-principal"]
    assert BOB in lacking.line


@pytest.mark.provokes("keytab-enctypes", "keytab-weak-keys")
def test_keys_of_broken_enctypes(lab: Lab, tmp_path: Path) -> None:
    only = keytab_by_hand(tmp_path / "only", ALICE, "word", 2, "arcfour-hmac")
    assert "keytab-enctypes" in seen(keytab=only)
    beside = keytab_by_hand(tmp_path / "beside", ALICE, "word", 2, "aes256-cts-hmac-sha1-96", "arcfour-hmac")
    assert seen(keytab=beside).keys() == {"keytab", "keytab-weak-keys"}


@pytest.mark.provokes("enctypes-apart", "enctypes-excluded")
def test_what_krb5_conf_permits(lab: Lab, tmp_path: Path) -> None:
    keytab, conf = keytab_by_hand(tmp_path / "keytab", ALICE, "word", 2, "aes128-cts-hmac-sha1-96"), tmp_path / "conf"
    conf.write_text("[libdefaults]\npermitted_enctypes = aes256-cts-hmac-sha384-192\n")
    assert "enctypes-apart" in seen(keytab=keytab, krb5_config=conf)
    conf.write_text("[libdefaults]\npermitted_enctypes = arcfour-hmac\nallow_weak_crypto = true\nallow_rc4 = true\n")
    excluded = seen(keytab=keytab, krb5_config=conf)["enctypes-excluded"]
    assert excluded.setting is not None
    conf.write_text(f"{excluded.setting.section}\n{excluded.setting.line}\n")
    assert set(seen(keytab=keytab, krb5_config=conf)) == {"keytab"}


@pytest.mark.provokes("keytab-permissions")
def test_a_keytab_that_others_can_read(lab: Lab, tmp_path: Path) -> None:
    keytab = tmp_path / "keytab"
    keytab.write_bytes(lab.keytab(ALICE).read_bytes())
    keytab.chmod(0o644)
    mend = seen(keytab=keytab)["keytab-permissions"].command
    assert mend == f"chmod o= {keytab}"
    subprocess.run(mend.split(), check=True)
    assert set(seen(keytab=keytab)) == {"keytab"}


@pytest.mark.provokes("late")
def test_a_keytab_that_hangs(tmp_path: Path) -> None:
    """As a file does on a server that has gone."""
    os.mkfifo(tmp_path / "keytab")
    who = patient(configuration(host_section(ALICE, keytab=tmp_path / "keytab")))
    late = examined(who, look(keys.found_here, seconds=0.1))["late"]
    os.close(os.open(tmp_path / "keytab", os.O_RDWR))  # lets go who reads it
    assert "no answer within 0.1 s" in late.line


@pytest.mark.provokes("ccache", "ccache-unusable", "ccache-not-a-file")
def test_credential_caches(lab: Lab, tmp_path: Path) -> None:
    cache = f"FILE:{tmp_path}/cache"
    assert seen(ccache=cache)["ccache-unusable"].command == f"kinit -c {cache} {ALICE}"
    lab.keytab(ALICE)
    command = ["kinit", "-c", cache, "-k", "-t", str(lab.keytab(ALICE)), ALICE]
    subprocess.run(command, check=True, env=lab.realm.environment, timeout=60)
    assert set(seen(ccache=cache)) == {"ccache"}
    assert {"ccache-not-a-file", "ccache-unusable"} <= set(seen(ccache="KEYRING:session:kinkvpn-doctor-none"))
