"""What a real KDC says when something is wrong: with it, with us, with our key or with a clock."""

from __future__ import annotations

import re
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from support.doctor import configuration, examined, host_section, keytab_by_hand, patient
from support.faketime import by_clock, sweep
from support.kdc import ALICE, Lab, black_hole, free_port

from kinkvpn.demo.realm import Realm, client_conf
from kinkvpn.doctor import kdc
from kinkvpn.doctor.examination import Look
from kinkvpn.doctor.finding import Severity

if TYPE_CHECKING:
    from pathlib import Path

    from kinkvpn.doctor.finding import Finding

pytestmark = pytest.mark.kdc

LOOKS = (Look("the KDC", kdc.granting, 300.0), Look("our own key", kdc.own_key, 300.0, needs=("the KDC",)))


def seen(principal: str = ALICE, **host: object) -> dict[str, Finding]:
    return examined(patient(configuration(host_section(principal, **host))), *LOOKS)


def service(lab: Lab, name: str, *options: str) -> str:
    """A new principal of its own for a test."""
    principal = f"kink/{name}.test@{lab.realm.name}"
    lab.realm.add_service(principal, *options)
    return principal


def keytab(lab: Lab, principal: str, path: Path) -> Path:
    lab.realm.write_keytab(principal, path)
    return path


@pytest.mark.provokes("kdc", "clock", "keytab-kvno-fits")
def test_all_is_well(lab: Lab) -> None:
    answer = seen(keytab=lab.keytab(ALICE))
    assert set(answer) == {"kdc", "clock", "keytab-kvno-fits"}
    assert answer["clock"].line == "the clock is that of the KDC of KINKVPN.TEST"
    assert examined(patient(None), *LOOKS) == {}


@pytest.mark.provokes("principal-unknown")
def test_the_kdc_does_not_know_us(lab: Lab, tmp_path: Path) -> None:
    principal = "kink/nobody.test@KINKVPN.TEST"
    by_hand = keytab_by_hand(tmp_path / "keytab", principal, "word", 1, "aes256-cts-hmac-sha1-96")
    unknown = seen(principal, keytab=by_hand)["principal-unknown"]
    assert unknown.command == "kadmin -q 'addprinc -randkey kink/nobody.test'"


@pytest.mark.provokes("keytab-stale", "keytab-kvno")
def test_the_keys_of_the_kdc_are_newer(lab: Lab, tmp_path: Path) -> None:
    principal = service(lab, "stale")
    old = keytab(lab, principal, tmp_path / "old")
    lab.realm.kadmin("cpw", "-randkey", principal)
    assert "keytab-stale" in seen(principal, keytab=old)
    new = keytab(lab, principal, tmp_path / "new")
    # Who logs in with the new one and takes tickets with the old one.
    refused = seen(principal, keytab=old, client_keytab=new)["keytab-kvno"]
    assert refused.line == f"keytab {old} has kvno 1, the KDC makes tickets with kvno 2"
    assert refused.severity is Severity.ERROR
    assert "keytab-kvno-fits" in seen(principal, keytab=new)


@pytest.mark.provokes("keytab-key", "keytab-enctype")
def test_the_same_number_and_another_key(lab: Lab, tmp_path: Path) -> None:
    principal = service(lab, "another")
    good = keytab(lab, principal, tmp_path / "good")
    other = keytab_by_hand(tmp_path / "other", principal, "word", 1, "aes256-cts-hmac-sha384-192")
    assert "keytab-key" in seen(principal, keytab=other, client_keytab=good)
    short = keytab_by_hand(tmp_path / "short", principal, "word", 1, "aes128-cts-hmac-sha1-96")
    assert "keytab-enctype" in seen(principal, keytab=short, client_keytab=good)


@pytest.mark.parametrize(
    ("kvno", "name"),
    [
        pytest.param(0, "keytab-kvno-zero", marks=pytest.mark.provokes("keytab-kvno-zero")),
        pytest.param(9, "keytab-kvno-odd", marks=pytest.mark.provokes("keytab-kvno-odd")),
    ],
)
def test_another_number_and_the_same_key(lab: Lab, tmp_path: Path, kvno: int, name: str) -> None:
    """As tools for Active Directory write keytabs."""
    principal = f"kink/number{kvno}.test@{lab.realm.name}"
    lab.realm.kadmin("addprinc", "-pw", "word", principal)
    by_hand = keytab_by_hand(tmp_path / "keytab", principal, "word", kvno, "aes256-cts-hmac-sha384-192")
    assert seen(principal, keytab=by_hand)[name].severity is Severity.NOTE


@pytest.mark.provokes("own-user-to-user", "no-own-ticket", "no-ticket")
def test_policies_of_the_kdc(lab: Lab, tmp_path: Path) -> None:
    """No service tickets, no tickets at all."""
    principal = service(lab, "policy", "-allow_svr")
    keys = keytab(lab, principal, tmp_path / "keytab")
    assert "own-user-to-user" in seen(principal, keytab=keys)
    lab.realm.kadmin("modprinc", "+allow_svr", "-allow_tgs_req", principal)
    assert "no-own-ticket" in seen(principal, keytab=keys)
    lab.realm.kadmin("modprinc", "-allow_tix", principal)
    assert "revoked" in seen(principal, keytab=keys)["no-ticket"].line


@pytest.mark.provokes("kdc-silent", "realm-unknown")
def test_a_kdc_that_is_silent_and_one_that_nobody_names(lab: Lab, tmp_path: Path) -> None:
    keys, conf, port = lab.keytab(ALICE), tmp_path / "krb5.conf", free_port()
    conf.write_text(client_conf(lab.realm.name, {lab.realm.name: [f"127.0.0.1:{port}"]}, (18, 17)))
    with black_hole(port), pytest.MonkeyPatch.context() as patch:
        patch.setenv("KRB5_CONFIG", str(conf))
        silent = examined(patient(configuration(host_section(ALICE, keytab=keys) + "kdc_timeout = 0.5\n")), *LOOKS)
    assert silent["kdc-silent"].command == f"nc -vz 127.0.0.1 {port}"
    assert set(silent) == {"kdc-silent"}
    conf.write_text(re.sub(r" +kdc = .*\n", "", conf.read_text()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KRB5_CONFIG", str(conf))
        assert seen(keytab=keys)["realm-unknown"].command == f"${{EDITOR:-vi}} {conf}"
        assert kdc.reach_kdc(lab.realm.name) == f"host -t SRV _kerberos._udp.{lab.realm.name}"


@pytest.mark.provokes("enctypes-refused")
def test_nothing_in_common_with_the_kdc(lab: Lab, tmp_path: Path) -> None:
    keys, conf = lab.keytab(ALICE), tmp_path / "krb5.conf"
    text = lab.realm.krb5_conf.read_text()
    conf.write_text(re.sub(r"permitted_enctypes = .*", "permitted_enctypes = camellia256-cts-cmac", text))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KRB5_CONFIG", str(conf))
        mend = seen(keytab=keys)["enctypes-refused"].setting
    assert mend is not None
    assert (mend.file, mend.line) == (str(conf), "permitted_enctypes = aes")


@pytest.mark.parametrize(
    ("seconds", "name"),
    [
        pytest.param(1000, "clock-skew", marks=pytest.mark.provokes("clock-skew")),
        pytest.param(-1000, "clock-skew", marks=pytest.mark.provokes("clock-skew")),
        pytest.param(150, "clock-drift", marks=pytest.mark.provokes("clock-drift")),
    ],
)
def test_clocks_that_disagree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: int, name: str) -> None:
    """The KDC's is the one that is off here; it is the same for whoever compares."""
    prefix = by_clock(FAKETIME=f"{seconds:+d}s")
    try:
        with Realm(tmp_path / "realm", free_port(), prefix=prefix) as realm:
            monkeypatch.setenv("KRB5_CONFIG", str(realm.krb5_conf))
            answer = seen(keytab=Lab(realm, tmp_path).keytab(ALICE))
    finally:
        sweep()
    said = re.match(r"this host's clock is (\d+) s (behind|ahead of) that of the KDC", answer[name].line)
    assert said is not None, answer[name].line
    assert abs(int(said[1]) - abs(seconds)) < 60  # as long as the exchange may take on a machine that is busy
    assert said[2] == ("behind" if seconds > 0 else "ahead of")


@pytest.mark.provokes("ccache-ends", "ccache-lasts")
def test_how_long_a_cache_lasts(lab: Lab, tmp_path: Path) -> None:
    cache = f"FILE:{tmp_path}/cache"
    for lifetime, name in (("10m", "ccache-ends"), ("9h", "ccache-lasts")):
        command = ["kinit", "-c", cache, "-l", lifetime, "-k", "-t", str(lab.keytab(ALICE)), ALICE]
        subprocess.run(command, check=True, env=lab.realm.environment, timeout=60)
        assert name in seen(ccache=cache)


@pytest.mark.provokes("ccache-expired")
def test_tickets_that_have_ended(lab: Lab, tmp_path: Path) -> None:
    cache = f"FILE:{tmp_path}/cache"
    command = ["kinit", "-c", cache, "-l", "2s", "-k", "-t", str(lab.keytab(ALICE)), ALICE]
    subprocess.run(command, check=True, env=lab.realm.environment, timeout=60)
    deadline = time.monotonic() + 60
    while "ccache-expired" not in (answer := seen(ccache=cache)):
        assert time.monotonic() < deadline, answer
        time.sleep(0.2)
    assert answer["ccache-expired"].command == f"kinit -c {cache} {ALICE}"
