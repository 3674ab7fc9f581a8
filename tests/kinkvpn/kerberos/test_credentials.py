"""Keytabs and caches before the daemon starts, and getting ticket-granting tickets with them."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest
from support.kdc import ALICE, BOB, Lab, free_port

from kinkvpn.kerberos.credentials import (
    CcacheUnusable,
    Credentials,
    CredentialsUnusable,
    KeytabEnctypesRefused,
    KeytabLacksPrincipal,
    KeytabMissing,
    KeytabUnreadable,
    check_ccache,
    check_keytab,
    some,
)
from kinkvpn.kerberos.libkrb5 import ERROR_TABLE_BASE, Context, Krb5Error
from kinkvpn.kerberos.tickets import fetch_with

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextlib.contextmanager
def another_user() -> Iterator[None]:
    """root reads everything; so be nobody for a moment."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


class TestCheckKeytab:
    def test_a_missing_one(self, tmp_path: Path) -> None:
        with pytest.raises(KeytabMissing, match=r"^keytab /.*/none does not exist$"):
            check_keytab(tmp_path / "none", ALICE)

    def test_one_that_may_not_be_read(self, tmp_path: Path) -> None:
        path = tmp_path / "secret.keytab"
        path.touch(mode=0)
        with another_user(), pytest.raises(KeytabUnreadable, match=r"cannot be read by uid \d+: Permission denied$"):
            check_keytab(path, ALICE)

    def test_a_directory(self, tmp_path: Path) -> None:
        with pytest.raises(KeytabUnreadable, match=r"Is a directory$"):
            check_keytab(tmp_path, ALICE)

    @pytest.mark.parametrize("content", [b"", b"\x05", b"not a keytab", b"\x05\x02\x00\x00\x00\x20short"])
    def test_a_file_that_is_none(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "garbage"
        path.write_bytes(content)
        with pytest.raises((KeytabUnreadable, KeytabLacksPrincipal)) as caught:
            check_keytab(path, ALICE)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)

    @pytest.mark.kdc
    def test_a_good_one_tells_its_enctypes(self, lab: Lab) -> None:
        assert check_keytab(lab.keytab(ALICE), ALICE) == {17, 18, 19, 20}

    @pytest.mark.kdc
    def test_the_default_realm_is_understood(self, lab: Lab) -> None:
        assert check_keytab(lab.keytab(ALICE), ALICE.partition("@")[0]) == {17, 18, 19, 20}

    @pytest.mark.kdc
    def test_one_of_somebody_else(self, lab: Lab) -> None:
        with pytest.raises(KeytabLacksPrincipal, match=rf"has no key of {ALICE}, only of {BOB}$"):
            check_keytab(lab.keytab(BOB), ALICE)

    @pytest.mark.kdc
    def test_names_are_case_sensitive(self, lab: Lab) -> None:
        """RFC 4430 §4.2.1."""
        with pytest.raises(KeytabLacksPrincipal):
            check_keytab(lab.keytab(ALICE), ALICE.replace("alice", "Alice"))

    @pytest.mark.kdc
    def test_one_with_refused_enctypes_only(self, lab: Lab, tmp_path: Path) -> None:
        lab.realm.add_service("kink/old.test", "-e", "arcfour-hmac:normal,des3-cbc-sha1:normal")
        lab.realm.write_keytab("kink/old.test", tmp_path / "old.keytab")
        with pytest.raises(
            KeytabEnctypesRefused,
            match=r"only: arcfour-hmac \(23\), des3-cbc-sha1 \(16\); expected one such as aes256-",
        ):
            check_keytab(tmp_path / "old.keytab", "kink/old.test@KINKVPN.TEST")

    @pytest.mark.kdc
    def test_old_enctypes_beside_good_ones_do_no_harm(self, lab: Lab, tmp_path: Path) -> None:
        lab.realm.add_service("kink/mixed.test", "-e", "arcfour-hmac:normal,aes256-cts-hmac-sha1-96:normal")
        lab.realm.write_keytab("kink/mixed.test", tmp_path / "mixed.keytab")
        assert check_keytab(tmp_path / "mixed.keytab", "kink/mixed.test@KINKVPN.TEST") == {18}

    def test_many_names_stay_one_line(self) -> None:
        assert some({f"kink/{n}" for n in range(9)}) == "kink/0, kink/1, kink/2, kink/3 and 5 more"
        assert some(set()) == "nobody"


class TestCheckCcache:
    def test_a_missing_one(self, tmp_path: Path) -> None:
        with pytest.raises(CcacheUnusable, match=r"credential cache FILE:/.*/none: .*(not found|No credentials)"):
            check_ccache(f"FILE:{tmp_path}/none", ALICE)

    def test_a_type_that_nobody_knows(self) -> None:
        with pytest.raises(CcacheUnusable, match=r"credential cache SHELF:top: .*type"):
            check_ccache("SHELF:top", ALICE)

    @pytest.mark.kdc
    def test_ours_and_somebody_else_s(self, lab: Lab) -> None:
        ccache = lab.credentials(ALICE).acquire().ccache
        check_ccache(ccache, ALICE)
        with pytest.raises(CcacheUnusable, match=rf"is {ALICE}'s, not {BOB}'s$"):
            check_ccache(ccache, BOB)


class Clock:
    """POSIX seconds that a test moves."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


def test_credentials_out_of_nothing_are_refused() -> None:
    with pytest.raises(CredentialsUnusable, match="need a keytab or a credential cache"):
        Credentials(ALICE)


@pytest.mark.kdc
class TestAcquire:
    def test_a_keytab_gets_a_ticket_that_lasts(self, lab: Lab) -> None:
        acquired = lab.credentials().acquire()
        assert acquired.ccache.startswith("MEMORY:")
        assert acquired.endtime == pytest.approx(time.time() + 36000, abs=10)
        context = Context()
        assert context.unparse(context.ccache_principal(context.ccache(acquired.ccache))) == ALICE

    def test_the_kdc_is_asked_once_until_half_of_it_is_spent(self, lab: Lab) -> None:
        clock = Clock()
        credentials = Credentials(ALICE, keytab=lab.keytab(ALICE), clock=clock)
        first = credentials.acquire()
        clock.now += 17990
        assert credentials.acquire() is first
        clock.now += 20
        second = credentials.acquire()
        assert second.ccache != first.ccache

    def test_the_cache_before_the_last_stays_and_older_ones_go(self, lab: Lab) -> None:
        """A thread may be using it; two half lifetimes later none can."""
        clock = Clock()
        credentials = Credentials(ALICE, keytab=lab.keytab(ALICE), clock=clock)
        caches = []
        for _ in range(3):
            caches.append(credentials.acquire().ccache)
            clock.now += 20000
        with pytest.raises(CcacheUnusable):
            check_ccache(caches[0], ALICE)
        check_ccache(caches[1], ALICE)
        check_ccache(caches[2], ALICE)

    def test_a_person_s_cache_is_used_as_it_is(self, lab: Lab, tmp_path: Path) -> None:
        ccache = f"FILE:{tmp_path}/person"
        kinit(lab, ccache)
        acquired = Credentials(ALICE, ccache=ccache).acquire()
        assert acquired.ccache == ccache
        assert acquired.endtime == pytest.approx(time.time() + 36000, abs=10)

    def test_a_cache_without_tickets_says_so(self, tmp_path: Path, lab: Lab) -> None:
        with pytest.raises(Krb5Error, match=r"(?i)no .*credentials|not found"):
            Credentials(ALICE, ccache=f"FILE:{tmp_path}/empty").acquire()

    def test_a_person_who_logs_in_again_is_noticed(self, lab: Lab, tmp_path: Path) -> None:
        ccache = f"FILE:{tmp_path}/person"
        credentials = Credentials(ALICE, ccache=ccache)
        with pytest.raises(Krb5Error):
            credentials.acquire()
        kinit(lab, ccache)
        assert credentials.acquire().ccache == ccache

    def test_a_renewable_ticket_is_renewed_in_a_cache_of_our_own(self, lab: Lab, tmp_path: Path) -> None:
        """Past half of its life. The person's cache is as it was; when it goes, what was made of it goes too."""
        clock, person = Clock(), tmp_path / "person"
        kinit(lab, f"FILE:{person}", "-l", "1h", "-r", "1d")
        credentials, before = Credentials(ALICE, ccache=f"FILE:{person}", clock=clock), person.read_bytes()
        clock.now += 1700
        assert credentials.acquire().ccache == f"FILE:{person}"
        clock.now += 200
        time.sleep(1.1)  # times of tickets are whole seconds
        renewed = credentials.acquire()
        assert renewed.ccache.startswith("MEMORY:")
        assert renewed.endtime > Credentials(ALICE, ccache=f"FILE:{person}").acquire().endtime
        clock.now = time.time()
        assert credentials.acquire() == renewed
        lab.keytab(BOB)
        fetch_with(renewed, BOB)
        assert person.read_bytes() == before
        person.unlink()
        with pytest.raises(Krb5Error):
            credentials.acquire()

    def test_without_the_kdc_a_renewable_ticket_lives_to_its_end(
        self, lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock, person = Clock(), f"FILE:{tmp_path}/person"
        kinit(lab, person, "-l", "1h", "-r", "1d")
        conf = tmp_path / "krb5.conf"
        conf.write_text(re.sub(r"kdc = \S+", f"kdc = 127.0.0.1:{free_port()}", lab.realm.krb5_conf.read_text()))
        monkeypatch.setenv("KRB5_CONFIG", str(conf))
        clock.now += 2000
        assert Credentials(ALICE, ccache=person, clock=clock).acquire().ccache == person

    def test_a_cache_that_somebody_else_logged_into_is_not_ours(self, lab: Lab, tmp_path: Path) -> None:
        kinit(lab, f"FILE:{tmp_path}/person")
        lab.keytab(BOB)
        with pytest.raises(Krb5Error):
            Credentials(BOB, ccache=f"FILE:{tmp_path}/person").acquire()

    def test_a_keytab_with_a_named_cache_fills_it(self, lab: Lab, tmp_path: Path) -> None:
        ccache = f"FILE:{tmp_path}/kept"
        assert Credentials(ALICE, keytab=lab.keytab(ALICE), ccache=ccache).acquire().ccache == ccache
        check_ccache(ccache, ALICE)

    def test_a_keytab_of_somebody_else_is_an_error_of_libkrb5(self, lab: Lab) -> None:
        with pytest.raises(Krb5Error):
            Credentials(ALICE, keytab=lab.keytab(BOB)).acquire()

    def test_who_waited_for_a_failure_shares_it(
        self, lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The KDC sees one request: with one that hangs, each further one would take 27 s more."""
        credentials, port = lab.credentials(), free_port()
        config = tmp_path / "krb5.conf"
        config.write_text(lab.realm.krb5_conf.read_text().replace(f":{lab.realm.port}", f":{port}"))
        monkeypatch.setenv("KRB5_CONFIG", str(config))
        codes: list[int | None] = []

        def acquire() -> None:
            try:
                credentials.acquire()
            except Krb5Error as error:
                codes.append(error.protocol_code)

        with socket.socket(type=socket.SOCK_DGRAM) as kdc:
            kdc.bind(("127.0.0.1", port))
            first, second = threading.Thread(target=acquire), threading.Thread(target=acquire)
            first.start()
            _, client = kdc.recvfrom(65536)
            second.start()
            wait_asked(second)
            context = Context()
            kdc.sendto(context.make_error(18, context.principal("krbtgt/KINKVPN.TEST"), None), client)
            first.join()
            second.join()
            kdc.setblocking(False)
            late = requests(kdc)
        assert codes == [18, 18]
        assert set(late) <= {client}  # libkrb5 may have sent it again meanwhile, from the same socket


def requests(kdc: socket.socket) -> list[object]:
    """Who has sent something that was not read yet."""
    found: list[object] = []
    with contextlib.suppress(BlockingIOError):
        while True:
            found.append(kdc.recvfrom(65536)[1])
    return found


def wait_asked(thread: threading.Thread) -> None:
    """Until the thread is inside ``Credentials.acquire`` and has looked at the clock there."""
    for _ in itertools.count():
        assert thread.ident is not None
        frame = sys._current_frames().get(thread.ident)
        while frame is not None:
            if frame.f_code is Credentials.acquire.__code__ and "asked" in frame.f_locals:
                return
            frame = frame.f_back
        time.sleep(0)


def kinit(lab: Lab, ccache: str, *options: str) -> None:
    command = ["kinit", *options, "-c", ccache, "-k", "-t", str(lab.keytab(ALICE)), ALICE]
    subprocess.run(command, env=lab.realm.environment, check=True, capture_output=True)


def test_codes_of_the_mechanism_are_libkrb5_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """gssapi's minor codes are libkrb5's in an unsigned coat: here, that the realm has no KDC."""
    path = tmp_path / "none.conf"
    path.write_text("[libdefaults]\n dns_lookup_kdc = false\n")
    monkeypatch.setenv("KRB5_CONFIG", str(path))
    with pytest.raises(Krb5Error) as caught:
        Credentials("kink/x@NOWHERE.TEST", ccache=f"FILE:{tmp_path}/none").acquire()
    assert ERROR_TABLE_BASE <= caught.value.code < ERROR_TABLE_BASE + 256
