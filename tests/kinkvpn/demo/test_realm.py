"""The throwaway realm: real krb5kdc processes on loopback."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.kdc import free_port

from kinkvpn.demo.realm import ENCTYPE_NAMES, Realm, RealmFailed, tool

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.kdc


@pytest.fixture
def realm(tmp_path: Path) -> Iterator[Realm]:
    with Realm(tmp_path / "realm", free_port()) as realm:
        yield realm


def run(realm: Realm, *command: str) -> str:
    done = subprocess.run(command, env=realm.environment, text=True, capture_output=True, check=True)
    return done.stdout


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_answers_over_tcp_as_soon_as_started(realm: Realm) -> None:
    with socket.create_connection(("127.0.0.1", realm.port), timeout=30):
        pass


def test_a_service_gets_its_ticket_with_its_keytab(realm: Realm, tmp_path: Path) -> None:
    realm.add_service("kink/a.test")
    realm.write_keytab("kink/a.test", tmp_path / "a.keytab")
    cache = f"FILE:{tmp_path}/ccache"
    run(realm, "kinit", "-c", cache, "-k", "-t", str(tmp_path / "a.keytab"), "kink/a.test")
    assert "krbtgt/KINKVPN.TEST@KINKVPN.TEST" in run(realm, "klist", "-c", cache)


def test_keytab_is_private_and_holds_the_default_enctypes_in_order(realm: Realm, tmp_path: Path) -> None:
    realm.add_service("kink/a.test")
    realm.write_keytab("kink/a.test", tmp_path / "a.keytab")
    assert stat.S_IMODE((tmp_path / "a.keytab").stat().st_mode) == 0o600
    listed = run(realm, "klist", "-ke", str(tmp_path / "a.keytab"))
    found = [line.rpartition("(")[2].rstrip(") ") for line in listed.splitlines() if "kink/a.test" in line]
    assert found == [ENCTYPE_NAMES[enctype] for enctype in (20, 19, 18, 17)]


def test_two_realms_draw_different_keys(tmp_path: Path) -> None:
    keytabs = []
    for name in ("one", "two"):
        with Realm(tmp_path / name, free_port(), enctypes=(18,)) as realm:
            realm.add_service("kink/a.test")
            realm.write_keytab("kink/a.test", tmp_path / f"{name}.keytab")
            keytabs.append(run(realm, "klist", "-kK", str(tmp_path / f"{name}.keytab")).rpartition("0x")[2])
    assert keytabs[0] != keytabs[1]


def test_goes_on_with_its_database_after_a_restart(realm: Realm) -> None:
    realm.add_service("kink/a.test")
    realm.stop()
    realm.start()
    assert "kink/a.test@KINKVPN.TEST" in realm.kadmin("listprincs")


def test_stop_ends_the_kdc_and_may_be_repeated(realm: Realm) -> None:
    pid = realm.pid
    assert pid is not None
    assert alive(pid)
    realm.stop()
    assert not alive(pid)
    assert realm.pid is None
    realm.stop()


def test_the_caller_s_kerberos_does_not_leak_in(realm: Realm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KRB5CCNAME", "FILE:/nowhere")
    monkeypatch.setenv("KRB5_CONFIG", "/nowhere")
    kerberos = {name: value for name, value in realm.environment.items() if name.startswith("KRB5")}
    assert kerberos == {
        "KRB5_CONFIG": str(realm.krb5_conf),
        "KRB5_KDC_PROFILE": str(realm.directory / "kdc.conf"),
        "KRB5RCACHEDIR": str(realm.directory),
    }


def test_prefix_starts_the_kdc(tmp_path: Path) -> None:
    with Realm(tmp_path / "realm", free_port(), prefix=("env", "KINKVPN_PREFIX=seen")) as realm:
        assert b"KINKVPN_PREFIX=seen" in Path(f"/proc/{realm.pid}/environ").read_bytes().split(b"\0")


def test_listens_on_every_address(tmp_path: Path) -> None:
    with Realm(tmp_path / "realm", free_port(), addresses=("127.0.0.1", "::1")) as realm:
        for address in realm.addresses:
            with socket.create_connection((address, realm.port), timeout=30):
                pass


def test_a_taken_port_is_refused(realm: Realm, tmp_path: Path) -> None:
    with pytest.raises(RealmFailed, match=f"127.0.0.1 port {realm.port}: Address already in use"):
        Realm(tmp_path / "second", realm.port).start()


def test_an_address_of_somebody_else_is_refused(tmp_path: Path) -> None:
    second = Realm(tmp_path / "realm", free_port(), addresses=("192.0.2.1",))
    with pytest.raises(RealmFailed, match="Cannot assign requested address"):
        second.start()
    assert second.pid is None


def test_a_kdc_that_ends_at_once_says_why(tmp_path: Path) -> None:
    realm = Realm(tmp_path / "realm", free_port())
    realm.start()
    realm.stop()
    (realm.directory / "stash").unlink()
    with pytest.raises(RealmFailed, match=r"krb5kdc ended: .*master key"):
        realm.start()


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("addprinc", "-randkey", "twice"), "already exists"),
        (("ktadd", "-norandkey", "-k", "/dev/null", "nobody"), "nobody does not exist"),
        (("no-such-command",), "Command not found"),
    ],
)
def test_what_kadmin_says_is_the_error(realm: Realm, command: tuple[str, ...], said: str) -> None:
    realm.add_service("twice")
    with pytest.raises(RealmFailed, match=said):
        realm.kadmin(*command)


def test_a_missing_tool_names_its_package() -> None:
    with pytest.raises(RealmFailed, match="krb5-no-such-tool not found: apt-get install krb5-kdc"):
        tool("krb5-no-such-tool")
