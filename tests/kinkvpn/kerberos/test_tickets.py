"""Service tickets from a real KDC, from one that is silent, and from none."""

from __future__ import annotations

import collections
import math
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import trio
from support.kdc import ALICE, BOB, Lab, black_hole, free_port

from kinkvpn.demo.realm import Realm
from kinkvpn.kerberos import tickets
from kinkvpn.kerberos.credentials import Credentials
from kinkvpn.kerberos.libkrb5 import ERROR_TABLE_BASE, Context, Krb5Error
from kinkvpn.kerberos.tickets import (
    KRB5_KDC_UNREACH,
    MAX_RENEWALS,
    MAX_TICKETS,
    MAX_TRIPS,
    RETRY_SECONDS,
    TicketSource,
    TicketUnavailable,
    Wanted,
    fetch_ticket,
    retry_after,
)
from kinkvpn.proto.gettgt import KDC_HAS_NO_KEY

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.kdc

# Long enough for a machine under load; reached only by a test that fails.
PATIENCE = 20.0
OFTEN = 0.005


class Fetch:
    """The real trip to the real KDC, counted, and held at a gate for as long as a test wants."""

    def __init__(self, *, closed: bool = False) -> None:
        self.servers: list[str] = []
        self.returned = threading.Semaphore(0)
        self.gate = threading.Event()
        if not closed:
            self.gate.set()

    def __call__(self, credentials: Credentials, server: str) -> tuple[Any, float]:
        self.servers.append(server)
        assert self.gate.wait(PATIENCE)
        try:
            return fetch_ticket(credentials, server)
        finally:
            self.returned.release()


async def refusal(source: TicketSource, server: str = BOB, *, deadline: float = PATIENCE) -> TicketUnavailable:
    with pytest.raises(TicketUnavailable) as caught:
        await source.get(server, deadline=deadline)
    assert "\n" not in str(caught.value)
    assert caught.value.refusal.reason == str(caught.value)
    return caught.value


async def wait_until(condition: Any) -> None:
    with trio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what a thread does, which knows no events of Trio
            await trio.sleep(0.001)


async def settle() -> None:
    """The source looks at the clock ten times meanwhile."""
    await trio.sleep(10 * OFTEN)


class TestRenewal:
    """The KDC is real; the clock that tickets grow old by is the test's."""

    @pytest.fixture(autouse=True)
    def _looks_at_the_clock_often(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tickets, "LONGEST_SLEEP", OFTEN)

    async def test_a_ticket_is_fetched_anew_when_half_of_it_is_spent(self, lab: Lab, nursery: trio.Nursery) -> None:
        lab.keytab(BOB)
        fetch, now = Fetch(), [time.time()]
        source = TicketSource(lab.credentials(), clock=lambda: now[0], fetch=fetch)
        await nursery.start(source.run)
        first = await source.get(BOB, deadline=PATIENCE)
        now[0] += 0.49 * (first.endtime - now[0])
        await settle()
        assert fetch.servers == [BOB]
        now[0] += 0.51 * (first.endtime - now[0])
        await wait_until(lambda: fetch.servers == [BOB, BOB])
        await wait_until(lambda: source._tickets[Wanted(BOB)].ticket is not first)
        assert await source.get(BOB, deadline=PATIENCE) is source._tickets[Wanted(BOB)].ticket
        assert source.status()["kept"] == 1
        assert source.status()["not_renewed"] == 0
        assert fetch.servers == [BOB, BOB]

    async def test_moments_differ(self, lab: Lab) -> None:
        lab.keytab(BOB)
        ticket = await TicketSource(lab.credentials()).get(BOB, deadline=PATIENCE)
        moments = set()
        for _ in range(20):
            source = TicketSource(lab.credentials())
            source._keep(Wanted(BOB), ticket)
            moments.add(source._tickets[Wanted(BOB)].renew_at)
        assert len(moments) == 20
        assert max(moments) - min(moments) > 0.05 * 36000

    async def test_a_failure_is_told_once_and_tried_again_until_it_works(
        self, lab: Lab, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO")
        lab.keytab(BOB)
        fetch, now, kdc = Fetch(), [time.time()], [True]

        def trip(credentials: Credentials, server: str) -> tuple[Any, float]:
            fetched = fetch(credentials, server)
            if not kdc[0]:
                raise Krb5Error(KRB5_KDC_UNREACH, "silence")
            return fetched

        source = TicketSource(lab.credentials(), clock=lambda: now[0], fetch=trip)
        await nursery.start(source.run)
        first = await source.get(BOB, deadline=PATIENCE)
        kdc[0] = False
        for part in (0.76, 0.5, 0.5):
            trips = len(fetch.servers)
            now[0] += part * (first.endtime - now[0])
            await wait_until(lambda trips=trips: len(fetch.servers) > trips)
            await wait_until(lambda: not source._trips)
            # When to try again is reckoned from the clock as it is then: it must not be put on before.
            await wait_until(lambda: source._tickets[Wanted(BOB)].renew_at < math.inf)
            assert await source.get(BOB, deadline=PATIENCE) is first, "it is good to its end"
        assert source.status()["not_renewed"] == 1
        kdc[0] = True
        now[0] += 0.5 * (first.endtime - now[0])
        await wait_until(lambda: source._tickets[Wanted(BOB)].ticket is not first)
        await settle()
        assert [record.message for record in caplog.records] == ["ticket_not_renewed", "ticket_renewed"]

    async def test_who_wants_a_ticket_now_does_not_queue_behind_renewals(self, lab: Lab, nursery: trio.Nursery) -> None:
        lab.keytab(BOB)
        now, gate, asked = [time.time()], threading.Event(), []
        gate.set()
        fetched = fetch_ticket(lab.credentials(), BOB)

        def trip(_: Credentials, server: str) -> tuple[Any, float]:
            asked.append(server)
            assert server == "wanted" or gate.wait(PATIENCE)
            return fetched

        source = TicketSource(lab.credentials(), clock=lambda: now[0], fetch=trip)
        for number in range(2 * MAX_TRIPS):
            await source.get(str(number), deadline=PATIENCE)
        gate.clear()
        asked.clear()
        await nursery.start(source.run)
        now[0] += 0.76 * (source._tickets[Wanted("0")].ticket.endtime - now[0])
        await wait_until(lambda: len(asked) == MAX_RENEWALS)
        try:
            await source.get("wanted", deadline=PATIENCE)
            assert len(asked) == MAX_RENEWALS + 1
        finally:
            gate.set()
        await wait_until(lambda: len(asked) == 2 * MAX_TRIPS + 1)

    async def test_what_has_ended_and_the_kdc_refuses_is_forgotten(self, lab: Lab, nursery: trio.Nursery) -> None:
        fetched, now, gone = fetch_ticket(lab.credentials(), BOB), [time.time()], [False]

        def trip(_: Credentials, __: str) -> tuple[Any, float]:
            if gone[0]:
                raise Krb5Error(ERROR_TABLE_BASE + 7, "no such principal")
            return fetched

        source = TicketSource(lab.credentials(), clock=lambda: now[0], fetch=trip)
        await nursery.start(source.run)
        ticket = await source.get(BOB, deadline=PATIENCE)
        gone[0] = True
        now[0] = ticket.endtime - 1
        await settle()
        assert Wanted(BOB) in source._tickets
        now[0] = ticket.endtime + RETRY_SECONDS
        await wait_until(lambda: Wanted(BOB) not in source._tickets)


async def test_a_host_without_a_thread_to_spare_has_no_ticket_for_the_moment(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.keytab(BOB)
    source = TicketSource(lab.credentials())

    def none(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(trio.lowlevel, "start_thread_soon", none)
        for _ in range(MAX_TRIPS + 1):
            assert "can't start new thread" in str(await refusal(source))
    assert (await source.get(BOB, deadline=PATIENCE)).server.startswith(BOB)


@pytest.mark.parametrize(("remaining", "after"), [(36000.0, 3600.0), (20.0, 2.0), (5.0, 1.0), (-1.0, 60.0)])
def test_retries_come_closer_towards_the_end(remaining: float, after: float) -> None:
    assert retry_after(remaining) == after


class TestUserToUser:
    async def test_a_ticket_for_each_tgt_is_kept(self, lab: Lab) -> None:
        lab.keytab(BOB)
        source, theirs = TicketSource(lab.credentials()), TicketSource(lab.credentials(BOB))
        tgt = (await theirs.own_tgt(deadline=PATIENCE)).ticket
        first = await source.get(BOB, deadline=PATIENCE, tgt=tgt)
        assert (first.client, first.server, first.tgt) == (ALICE, BOB, tgt)
        assert await source.get(BOB, deadline=PATIENCE, tgt=tgt) is first
        assert await source.get(BOB, deadline=PATIENCE, tgt=tgt, fresh=True) is not first
        other = (await TicketSource(lab.credentials(BOB)).own_tgt(deadline=PATIENCE)).ticket
        assert (await source.get(BOB, deadline=PATIENCE, tgt=other)).tgt == other != tgt
        assert (await source.get(BOB, deadline=PATIENCE)).tgt is None

    async def test_our_tgt_is_the_one_of_the_credential_cache(self, lab: Lab) -> None:
        lab.keytab(BOB)
        credentials = lab.credentials(BOB)
        source = TicketSource(credentials)
        first = await source.own_tgt(deadline=PATIENCE)
        assert (first.client, first.endtime) == (BOB, pytest.approx(credentials.acquire().endtime, abs=2))
        assert (await source.own_tgt(deadline=PATIENCE)).ticket == first.ticket

    async def test_another_principal_s_tgt_is_refused_by_the_kdc(self, lab: Lab) -> None:
        lab.keytab(BOB)
        source = TicketSource(lab.credentials())
        mine = (await source.own_tgt(deadline=PATIENCE)).ticket
        with pytest.raises(TicketUnavailable, match="another principal's ticket-granting ticket") as unavailable:
            await source.get(BOB, deadline=PATIENCE, tgt=mine)
        assert unavailable.value.refusal.code == 26

    @pytest.mark.parametrize("tgt", [b"", b"garbage", bytes(600)])
    async def test_octets_that_are_no_ticket(self, lab: Lab, tgt: bytes) -> None:
        lab.keytab(BOB)
        with pytest.raises(TicketUnavailable):
            await TicketSource(lab.credentials()).get(BOB, deadline=PATIENCE, tgt=tgt)

    @pytest.mark.parametrize(("options", "code"), [(("-randkey", "-allow_svr"), 27), (("-nokey",), 60)])
    async def test_a_service_that_wants_user_to_user(self, lab: Lab, options: tuple[str, ...], code: int) -> None:
        name = f"wants{code}@KINKVPN.TEST"
        lab.realm.kadmin("addprinc", *options, name)
        with pytest.raises(TicketUnavailable) as unavailable:
            await TicketSource(lab.credentials()).get(name, deadline=PATIENCE)
        assert unavailable.value.refusal.code == code
        assert code in KDC_HAS_NO_KEY


class TestCache:
    async def test_a_ticket_is_fetched_once(self, lab: Lab) -> None:
        lab.keytab(BOB)
        fetch = Fetch()
        source = TicketSource(lab.credentials(), fetch=fetch)
        first = await source.get(BOB, deadline=PATIENCE)
        assert (first.client, first.server) == (ALICE, BOB)
        assert await source.get(BOB, deadline=PATIENCE) is first
        assert fetch.servers == [BOB]

    async def test_a_fresh_one_passes_the_cache(self, lab: Lab) -> None:
        lab.keytab(BOB)
        source = TicketSource(lab.credentials())
        first = await source.get(BOB, deadline=PATIENCE)
        fresh = await source.get(BOB, deadline=PATIENCE, fresh=True)
        assert fresh.key.prf(b"seed") != first.key.prf(b"seed")
        assert await source.get(BOB, deadline=PATIENCE) is fresh

    async def test_a_rekey_needs_no_kdc_while_the_ticket_lives(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with Realm(tmp_path / "realm", free_port()) as realm:
            monkeypatch.setenv("KRB5_CONFIG", str(realm.krb5_conf))
            lab = Lab(realm, tmp_path)
            lab.keytab(BOB)
            source = TicketSource(lab.credentials())
            await source.get(BOB, deadline=PATIENCE)
            realm.stop()
            ticket = await source.get(BOB, deadline=PATIENCE)
            request = ticket.make_request()
            request.verify_reply(lab.acceptor().accept(request.ap_req).make_reply())
            assert "no answer" in str(await refusal(source, "kink/carol.test@KINKVPN.TEST"))

    @pytest.mark.parametrize(("before_end", "trips"), [(70.0, 1), (50.0, 2)])
    async def test_one_that_would_end_in_mid_exchange_is_renewed(self, lab: Lab, before_end: float, trips: int) -> None:
        lab.keytab(BOB)
        fetch, now = Fetch(), [time.time()]
        source = TicketSource(lab.credentials(), clock=lambda: now[0], fetch=fetch)
        assert source.at_hand(BOB) is None
        ticket = await source.get(BOB, deadline=PATIENCE)
        assert source.at_hand(BOB) is ticket
        now[0] = ticket.endtime - before_end
        assert source.at_hand(BOB) is (ticket if trips == 1 else None)
        await source.get(BOB, deadline=PATIENCE)
        assert len(fetch.servers) == trips

    async def test_a_short_lived_one_is_used_all_the_same(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with Realm(tmp_path / "realm", free_port(), max_life=50) as realm:
            monkeypatch.setenv("KRB5_CONFIG", str(realm.krb5_conf))
            lab, fetch = Lab(realm, tmp_path), Fetch()
            lab.keytab(BOB)
            source = TicketSource(lab.credentials(), fetch=fetch)
            for _ in range(3):
                await source.get(BOB, deadline=PATIENCE)
            assert fetch.servers == [BOB]

    async def test_the_cache_is_bounded_and_the_oldest_goes(self, lab: Lab) -> None:
        lab.keytab(BOB)
        fetched = fetch_ticket(lab.credentials(), BOB)
        servers: list[str] = []

        def fetch(credentials: Credentials, server: str) -> tuple[Any, float]:
            servers.append(server)
            return fetched

        source = TicketSource(lab.credentials(), fetch=fetch)
        for number in range(MAX_TICKETS + 1):
            await source.get(f"kink/{number}", deadline=PATIENCE)
        await source.get("kink/1", deadline=PATIENCE)
        assert len(servers) == MAX_TICKETS + 1
        await source.get("kink/0", deadline=PATIENCE)
        assert servers[-1] == "kink/0"


class TestSharing:
    async def test_many_callers_share_one_trip(self, lab: Lab) -> None:
        lab.keytab(BOB)
        fetch, tickets = Fetch(closed=True), []
        source = TicketSource(lab.credentials(), fetch=fetch)

        async def ask() -> None:
            tickets.append(await source.get(BOB, deadline=PATIENCE))

        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(ask)
            await wait_until(lambda: fetch.servers)
            fetch.gate.set()
        assert len(tickets) == 100
        assert len(set(map(id, tickets))) == 1
        assert fetch.servers == [BOB]

    async def test_who_leaves_takes_the_trip_from_nobody(self, lab: Lab) -> None:
        lab.keytab(BOB)
        fetch, tickets = Fetch(closed=True), []
        source = TicketSource(lab.credentials(), fetch=fetch)

        async def stay() -> None:
            tickets.append(await source.get(BOB, deadline=PATIENCE))

        async with trio.open_nursery() as nursery:
            await refusal(source, deadline=0.05)  # it was this caller who started the thread
            nursery.start_soon(stay)
            await trio.testing.wait_all_tasks_blocked()
            fetch.gate.set()
        assert len(tickets) == 1
        assert fetch.servers == [BOB]

    async def test_what_comes_too_late_is_kept_for_the_next(self, lab: Lab) -> None:
        lab.keytab(BOB)
        fetch = Fetch(closed=True)
        source = TicketSource(lab.credentials(), fetch=fetch)
        await refusal(source, deadline=0.05)
        fetch.gate.set()
        with trio.fail_after(PATIENCE):
            await source.get(BOB, deadline=PATIENCE)
        assert fetch.servers == [BOB]

    async def test_threads_are_bounded_and_the_queue_moves_on(self, lab: Lab) -> None:
        names = [f"kink/many{n}.test@KINKVPN.TEST" for n in range(MAX_TRIPS + 4)]
        for name in names:
            lab.keytab(name)
        fetch = Fetch(closed=True)
        source = TicketSource(lab.credentials(), fetch=fetch)
        got: collections.Counter[str] = collections.Counter()

        async def ask(name: str) -> None:
            got[(await source.get(name, deadline=PATIENCE)).server] += 1

        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(ask, name)
            await wait_until(lambda: len(fetch.servers) == MAX_TRIPS)
            await trio.testing.wait_all_tasks_blocked()
            assert len(fetch.servers) == MAX_TRIPS
            fetch.gate.set()
        assert got == collections.Counter(names)

    async def test_a_caller_who_gives_up_in_the_queue_leaves_no_trace(self, lab: Lab) -> None:
        names = [f"kink/many{n}.test@KINKVPN.TEST" for n in range(MAX_TRIPS)]
        for name in [*names, BOB]:
            lab.keytab(name)
        fetch = Fetch(closed=True)
        source = TicketSource(lab.credentials(), fetch=fetch)
        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(lambda name=name: source.get(name, deadline=PATIENCE))
            await wait_until(lambda: len(fetch.servers) == MAX_TRIPS)
            await refusal(source, deadline=0.05)
            fetch.gate.set()
        assert (await source.get(BOB, deadline=PATIENCE)).server == BOB


class TestSilence:
    async def test_a_kdc_that_never_answers_ends_at_the_deadline(
        self, lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """libkrb5 alone stays for 27 s. The loop goes on all the while."""
        port = free_port()
        config = tmp_path / "krb5.conf"
        config.write_text(lab.realm.krb5_conf.read_text().replace(f":{lab.realm.port}", f":{port}"))
        monkeypatch.setenv("KRB5_CONFIG", str(config))
        longest = 0.0

        async def tick() -> None:
            nonlocal longest
            while True:
                before = trio.current_time()
                await trio.sleep(0.005)
                longest = max(longest, trio.current_time() - before)

        with black_hole(port):
            source = TicketSource(lab.credentials())
            async with trio.open_nursery() as nursery:
                nursery.start_soon(tick)
                for _ in range(2):  # the second one finds the first one's thread still away
                    before = trio.current_time()
                    found = await refusal(source, deadline=0.3)
                    assert 0.3 <= trio.current_time() - before < 2.0
                    assert f"no answer from the KDC of KINKVPN.TEST (127.0.0.1:{port}) in 0.3 s" in str(found)
                    assert found.refusal.code is None
                nursery.cancel_scope.cancel()
        assert longest < 1.0

    async def test_a_kdc_that_is_down_is_told_at_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        realm = Realm(tmp_path / "realm", free_port())
        with realm:
            monkeypatch.setenv("KRB5_CONFIG", str(realm.krb5_conf))
            credentials = Lab(realm, tmp_path).credentials()
        found = await refusal(TicketSource(credentials))
        assert f"no answer from the KDC of KINKVPN.TEST (127.0.0.1:{realm.port}) in " in str(found)

    async def test_it_works_again_when_the_kdc_is_back(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        realm = Realm(tmp_path / "realm", free_port())
        with realm:
            monkeypatch.setenv("KRB5_CONFIG", str(realm.krb5_conf))
            lab = Lab(realm, tmp_path)
            lab.keytab(BOB)
            source = TicketSource(lab.credentials())
        await refusal(source)
        with realm:
            assert (await source.get(BOB, deadline=PATIENCE)).server == BOB

    def test_a_thread_that_outlives_the_daemon_ends_in_peace(self, lab: Lab) -> None:
        """What it raised would come out as a warning, and warnings are errors here."""
        lab.keytab(BOB)
        fetch = Fetch(closed=True)

        async def daemon() -> None:
            await refusal(TicketSource(lab.credentials(), fetch=fetch), deadline=0.05)

        trio.run(daemon)
        fetch.gate.set()
        assert fetch.returned.acquire(timeout=PATIENCE)


class TestReasons:
    async def test_the_peer_s_principal_is_unknown(self, lab: Lab) -> None:
        found = await refusal(TicketSource(lab.credentials()), "kink/nobody.test@KINKVPN.TEST")
        assert found.refusal.code == 7
        where = f"the KDC of KINKVPN.TEST (127.0.0.1:{lab.realm.port})"
        expected = f"no ticket for kink/nobody.test@KINKVPN.TEST: {where} does not know that principal"
        assert str(found) == expected

    async def test_our_principal_is_unknown(self, lab: Lab) -> None:
        gone = "kink/gone.test@KINKVPN.TEST"
        credentials = lab.credentials(gone)
        lab.realm.kadmin("delprinc", "-force", gone)
        found = await refusal(TicketSource(credentials))
        assert found.refusal.code == 6
        assert f"does not know us as {gone}" in str(found)

    @pytest.mark.parametrize("preauthentication", ["-requires_preauth", "+requires_preauth"])
    async def test_our_key_is_another_one(self, lab: Lab, preauthentication: str) -> None:
        changed = f"kink/changed{preauthentication[0]}.test@KINKVPN.TEST"
        credentials = lab.credentials(changed)
        lab.realm.kadmin("modprinc", preauthentication, changed)
        lab.realm.kadmin("cpw", "-randkey", changed)
        found = await refusal(TicketSource(credentials))
        assert found.refusal.code in (24, 31)
        assert f"has another key for {changed} than keytab " in str(found)

    async def test_our_keytab_lacks_us(self, lab: Lab) -> None:
        found = await refusal(TicketSource(Credentials(ALICE, keytab=lab.keytab(BOB))))
        assert str(found).startswith(f"no ticket for {BOB}: ")

    async def test_the_clocks_differ(self, lab: Lab) -> None:
        def fetch_by_another_clock(credentials: Credentials, server: str) -> tuple[Any, float]:
            context = Context(clock_offset=-3600.0)
            ccache = context.ccache(credentials.acquire().ccache)
            client, peer = context.ccache_principal(ccache), context.principal(server)
            return context.credentials(ccache, client, peer), 0.0

        lab.keytab(BOB)
        found = await refusal(TicketSource(lab.credentials(), fetch=fetch_by_another_clock))
        assert found.refusal.code == 37
        assert "clock skew: the clocks of this host and of the KDC of KINKVPN.TEST" in str(found)

    async def test_the_peer_takes_other_enctypes_only(self, lab: Lab) -> None:
        peer = "kink/rc4.test@KINKVPN.TEST"
        lab.keytab(peer)
        lab.realm.kadmin("setstr", peer, "session_enctypes", "arcfour-hmac")
        found = await refusal(TicketSource(lab.credentials()), peer)
        assert found.refusal.code == 14
        assert "unsupported enctype: KDC has no support for encryption type" in str(found)

    async def test_a_session_key_of_a_refused_enctype_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with Realm(tmp_path / "realm", free_port(), enctypes=(18, 23)) as realm:
            monkeypatch.setenv("KRB5_CONFIG", str(realm.krb5_conf))
            lab = Lab(realm, tmp_path)
            lab.keytab(BOB)
            realm.kadmin("setstr", BOB, "session_enctypes", "arcfour-hmac")
            found = await refusal(TicketSource(lab.credentials()))
        assert "unsupported enctype: the session key has the refused enctype arcfour-hmac (23)" in str(found)

    async def test_a_realm_that_nobody_knows(self, lab: Lab, tmp_path: Path) -> None:
        stranger = "kink/x.test@ELSEWHERE.TEST"
        lab.realm.add_service(stranger)
        lab.realm.write_keytab(stranger, tmp_path / "x.keytab")
        found = await refusal(TicketSource(Credentials(stranger, keytab=tmp_path / "x.keytab")))
        assert 'Cannot find KDC for realm "ELSEWHERE.TEST"' in str(found)

    async def test_a_name_that_is_none(self, lab: Lab) -> None:
        assert "Malformed representation of principal" in str(await refusal(TicketSource(lab.credentials()), "a@b@c"))

    async def test_what_nobody_thought_of_is_told_too(self, lab: Lab) -> None:
        def fetch(credentials: Credentials, server: str) -> tuple[Any, float]:
            raise MemoryError("as an example")

        found = await refusal(TicketSource(lab.credentials(), fetch=fetch))
        assert str(found) == f"no ticket for {BOB}: MemoryError: as an example"


@pytest.mark.parametrize(
    ("offset", "said"), [(600.0, "600 s behind that of"), (-600.0, "600 s ahead of that of"), (299.0, ""), (-299.0, "")]
)
async def test_a_clock_that_libkrb5_makes_up_for_is_told_at_the_start(lab: Lab, offset: float, said: str) -> None:
    """Our own requests would be good, for they are made by the KDC's clock; those of peers are judged by ours."""

    def fetch(credentials: Credentials, server: str) -> tuple[Any, float]:
        return fetch_ticket(credentials, server)[0], offset

    lab.keytab(BOB)
    tickets = TicketSource(lab.credentials(), fetch=fetch)
    if not said:
        await tickets.reach_kdc(deadline=PATIENCE)
        return
    with pytest.raises(TicketUnavailable, match=f"clock skew: this host's clock is {said} the KDC of KINKVPN.TEST"):
        await tickets.reach_kdc(deadline=PATIENCE)


async def test_a_ticket_keeps_the_clock_offset_that_the_kdc_taught(lab: Lab) -> None:
    """A host whose clock is an hour behind, and whose libkrb5 has learned so from the KDC (kdc_timesync)."""

    def fetch(credentials: Credentials, server: str) -> tuple[Any, float]:
        return fetch_ticket(credentials, server)[0], 3600.0

    lab.keytab(BOB)
    ticket = await TicketSource(lab.credentials(), fetch=fetch).get(BOB, deadline=PATIENCE)
    lab.acceptor(clock_offset=3600.0).accept(ticket.make_request().ap_req)
    lab.acceptor(clock_offset=500.0).accept(ticket.make_request(-3100.0).ap_req)  # what the peer says comes on top


def test_unreachable_is_libkrb5_s_own_code() -> None:
    assert KRB5_KDC_UNREACH == ERROR_TABLE_BASE + 156 == -1765328228
    assert Krb5Error(KRB5_KDC_UNREACH, "").protocol_code is None
