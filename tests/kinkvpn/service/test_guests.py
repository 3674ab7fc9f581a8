from __future__ import annotations

import itertools
import secrets
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Address, ip_address, ip_network
from typing import TYPE_CHECKING, Any, cast

import pytest
import trio

from esp.engine import Engine
from esp.errors import InvalidPolicy
from kinkvpn.admission import NO_GROUPS, Rule
from kinkvpn.config import PeopleSettings
from kinkvpn.errors import AuthenticationFailed
from kinkvpn.kerberos.fake import FakeAccepted, FakeKerberos, FakeRealm
from kinkvpn.proto.lease import Lease
from kinkvpn.proto.peer import Peer
from kinkvpn.proto.ports import NotAdmitted
from kinkvpn.proto.settings import PeerSettings, UserToUser
from kinkvpn.service.guests import LINGER_SECONDS, LOOK_SECONDS, SILENT_SECONDS, Guests

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from esp.policy import Policy

GATEWAY, STAFF = "kink/gw@A.COM", "S-1-5-21-1-2-3-1105"
ROUTES = (ip_network("10.1.0.0/16"), ip_network("10.2.0.0/16"), ip_network("fd00:1::/48"))
LEASE = Lease((), ROUTES, (ip_address("10.1.0.53"),), ("a.com",))
TICKET_ENDS = 10_000.0


def settings(*rules: Rule, pool: tuple[str, ...] = ("10.8.0.0/24", "fd00:8::/64"), most: int = 100) -> PeopleSettings:
    return PeopleSettings(tuple(map(ip_network, pool)), {}, rules, most)


EVERYBODY = Rule(("*@A.COM",), frozenset(), (), LEASE)
MEMBERS = Rule((), frozenset({STAFF}), (), LEASE)


class Host:
    """A gateway's data plane, which is an engine, and its peers; the time is the test's.

    Args:
        people: its configuration.
    """

    def __init__(self, people: PeopleSettings) -> None:
        self.engine = Engine(random=secrets.token_bytes)
        self.realm = FakeRealm(["x@A.COM", GATEWAY], clock=lambda: 0.0, random=secrets.token_bytes)
        self.key = self.realm.issue("x@A.COM", GATEWAY).key
        self.now = 0.0
        self.peers: dict[str, Peer] = {}
        self.left: list[str] = []
        self.packets: dict[str, float] = {}
        self.guests = Guests(people, [ip_address("10.8.0.1")], cast("Any", self), clock=lambda: self.now)

    def change_policies(self, gone: Iterable[str], come: Iterable[Policy]) -> None:
        """As Dataplane's."""
        for name in gone:
            self.engine.remove_policy(name)
        for policy in come:
            self.engine.add_policy(policy)

    def remove_peer(self, name: str) -> None:
        """As Keying's."""
        del self.peers[name]
        self.left.append(name)

    def last_heard(self, peer: str) -> float | None:
        """As Dataplane's: of packets."""
        return self.packets.get(peer)

    def request(self, principal: str, *sids: str) -> FakeAccepted:
        return FakeAccepted(principal, GATEWAY, TICKET_ENDS, self.key, 0.0, 0, sids=frozenset(sids))

    def admit(self, principal: str, *sids: str, machine: bytes = b"", wished: Sequence[str] = ()) -> PeerSettings:
        """As Keying does it at a command."""
        addresses = tuple(map(ip_address, wished))
        guest = self.guests.admit(cast("Any", self), self.request(principal, *sids), machine, addresses)
        numbers = itertools.count(1)
        peer = Peer(
            guest,
            principal=GATEWAY,
            epoch=1,
            kerberos=FakeKerberos(self.realm, GATEWAY),
            random=secrets.token_bytes,
            allocate_spi=lambda: next(numbers),
            next_xid=lambda: next(numbers),
        )
        peer.ticket_ends, peer.last_heard = TICKET_ENDS, trio.current_time()
        self.peers[guest.name] = peer
        return guest


async def test_a_guest_is_a_peer_with_a_policy_for_each_route_of_its_addresses_families() -> None:
    host = Host(settings(EVERYBODY))
    guest = host.admit("alice@A.COM")
    assert (guest.name, guest.principal, guest.user_to_user) == ("alice@A.COM", "alice@A.COM", UserToUser.ALWAYS)
    assert not guest.kink.address
    assert not guest.esp.address
    assert guest.lease is not None
    four, six = guest.lease.addresses
    assert [(one.selector.local, one.selector.remote) for one in guest.policies] == [
        (ROUTES[0], ip_network(four)),
        (ROUTES[1], ip_network(four)),
        (ROUTES[2], ip_network(six)),
    ]
    assert (guest.lease.routes, guest.lease.servers, guest.lease.domains) == (ROUTES, LEASE.servers, LEASE.domains)
    host.engine.remove_policy("alice@A.COM/3")  # it is there


async def test_who_is_not_let_in_leaves_nothing() -> None:
    host = Host(settings(MEMBERS))
    with pytest.raises(NotAdmitted, match=r"alice@A.COM, and no rule lets it in"):
        host.admit("alice@A.COM", "S-1-5-21-1-2-3-513")
    with pytest.raises(NotAdmitted, match=f"no rule lets it in: {NO_GROUPS}"):
        host.admit("alice@A.COM")
    assert host.admit("alice@A.COM", STAFF, "S-1-5-21-1-2-3-513").policies
    with pytest.raises(NotAdmitted, match="no rule lets it in"):
        Host(PeopleSettings()).admit("alice@A.COM")


class Unreadable(FakeAccepted):
    """With a PAC that does not verify."""

    def groups(self) -> frozenset[str]:
        raise AuthenticationFailed("the ticket's PAC tells no groups: Message stream modified")


async def test_a_pac_that_does_not_verify_lets_nobody_in() -> None:
    host = Host(settings(MEMBERS, EVERYBODY))
    with pytest.raises(NotAdmitted, match=r"mallory@A.COM: the ticket's PAC tells no groups"):
        host.guests.admit(cast("Any", host), Unreadable("mallory@A.COM", GATEWAY, TICKET_ENDS, host.key, 0.0, 0), b"")


async def test_there_is_an_end_of_people_and_of_addresses() -> None:
    host = Host(settings(EVERYBODY, most=1))
    host.admit("alice@A.COM")
    with pytest.raises(NotAdmitted, match=r"1 people already \(people.most\)"):
        host.admit("bob@A.COM")
    host = Host(settings(EVERYBODY, pool=("10.8.0.0/30",)))
    assert host.admit("alice@A.COM").lease.addresses == (IPv4Address("10.8.0.2"),)
    for _ in range(2):
        with pytest.raises(NotAdmitted, match=r"people.addresses has none left"):
            host.admit("bob@A.COM")


async def test_each_machine_of_somebody_is_a_peer_with_its_own_addresses_and_policies() -> None:
    host = Host(settings(EVERYBODY))
    laptop, desktop = (host.admit("alice@A.COM", machine=machine) for machine in (b"l" * 16, b"d" * 16))
    assert (laptop.name, desktop.name) == ("alice@A.COM", "alice@A.COM#2")
    assert laptop.principal == desktop.principal == "alice@A.COM"
    assert laptop.lease is not None
    assert desktop.lease is not None
    assert not {*laptop.lease.addresses} & {*desktop.lease.addresses}
    assert [policy.name for policy in desktop.policies] == [f"alice@A.COM#2/{number}" for number in (1, 2, 3)]
    host.guests.change(cast("Any", host), settings(EVERYBODY), {"alice@A.COM"})
    assert host.left == ["alice@A.COM", "alice@A.COM#2"], "it is a peer of the configuration, with all its machines"


async def test_who_comes_with_addresses_of_before_a_restart_has_them_if_nobody_else_has() -> None:
    host = Host(settings(EVERYBODY))
    bob = host.admit("bob@A.COM")
    assert bob.lease is not None
    taken, free = str(bob.lease.addresses[0]), ("10.8.0.77", "fd00:8::77")
    # At a STATUS, which names none, something was found for her; her CREATE says what she has.
    host.admit("alice@A.COM", machine=b"laptop")
    with pytest.raises(NotAdmitted, match=rf"alice@A.COM comes with {taken}, which it is not lent: kinkvpn up"):
        host.admit("alice@A.COM", machine=b"laptop", wished=[taken])
    assert host.left == []
    for foreign in ("10.8.0.1", "10.9.0.1", "0.0.0.0"):
        with pytest.raises(NotAdmitted, match="not lent"):
            host.admit("alice@A.COM", machine=b"laptop", wished=[foreign])
    alice = host.admit("alice@A.COM", machine=b"laptop", wished=free)
    assert alice.lease is not None
    assert alice.lease.addresses == tuple(map(ip_address, free))
    assert (alice.name, host.left) == ("alice@A.COM", ["alice@A.COM"])
    # At her first command, the same.
    assert host.admit("carol@A.COM", wished=["10.8.0.78"]).policies[0].selector.remote == ip_network("10.8.0.78")


async def test_of_too_many_machines_the_one_goes_that_was_silent_the_longest(
    autojump_clock: trio.testing.MockClock,
) -> None:
    del autojump_clock
    host = Host(replace(settings(EVERYBODY), machines=3))
    for number in range(3):
        host.admit("alice@A.COM", machine=bytes([number]))
        await trio.sleep(1)
    with pytest.raises(NotAdmitted, match=r"is here with 3 machines \(people.machines\)"):
        host.admit("alice@A.COM", machine=b"new")
    assert host.left == []
    assert host.admit("bob@A.COM", machine=b"bob's").policies, "nobody else waits for them"
    await trio.sleep(SILENT_SECONDS)
    for spoken in ("alice@A.COM", "alice@A.COM#3"):
        host.packets[spoken] = trio.current_time()
    guest = host.admit("alice@A.COM", machine=b"new")
    assert host.left == ["alice@A.COM#2"]
    assert guest.name == "alice@A.COM#2"
    with pytest.raises(NotAdmitted, match="3 machines"):
        host.admit("alice@A.COM", machine=b"newer")


async def test_machines_by_the_thousand_are_no_more_than_a_few_peers(autojump_clock: trio.testing.MockClock) -> None:
    del autojump_clock
    host = Host(settings(EVERYBODY, pool=("10.8.0.0/28",)))
    bob = host.admit("bob@A.COM", machine=b"bob's")
    admitted = 0
    for number in range(1000):
        with suppress(NotAdmitted):
            host.admit("mallory@A.COM", machine=number.to_bytes(16))
            admitted += 1
        await trio.sleep(1)
    assert len(host.peers) == 1 + settings().machines
    assert admitted <= settings().machines * (1 + 1000 / SILENT_SECONDS)
    assert host.admit("carol@A.COM").policies
    assert host.peers["bob@A.COM"].settings == bob


async def seen_off(host: Host, seconds: float) -> list[str]:
    """Who has left by then."""
    with trio.move_on_after(seconds):
        await host.guests.see_off(cast("Any", host))
    return host.left


async def test_who_has_no_sas_goes_after_a_while_and_may_come_again(autojump_clock: trio.testing.MockClock) -> None:
    del autojump_clock
    host = Host(settings(EVERYBODY))
    first = host.admit("alice@A.COM")
    assert await seen_off(host, LINGER_SECONDS) == []
    host.peers["alice@A.COM"].last_heard = trio.current_time()
    assert await seen_off(host, LINGER_SECONDS) == []
    assert await seen_off(host, 3 * LOOK_SECONDS) == ["alice@A.COM"]
    with pytest.raises(InvalidPolicy):
        host.engine.remove_policy("alice@A.COM/1")
    assert host.admit("alice@A.COM").lease == first.lease


async def test_who_s_ticket_has_ended_goes_whatever_they_have(autojump_clock: trio.testing.MockClock) -> None:
    del autojump_clock
    host = Host(settings(EVERYBODY))
    host.admit("alice@A.COM")
    host.now = TICKET_ENDS
    assert await seen_off(host, 2 * LOOK_SECONDS) == []
    host.now = TICKET_ENDS + 1
    assert await seen_off(host, 2 * LOOK_SECONDS) == ["alice@A.COM"]


async def test_rules_that_change_count_for_those_who_are_here() -> None:
    host = Host(settings(MEMBERS, EVERYBODY))
    for name in ("alice@A.COM", "bob@A.COM", "carol@A.COM"):
        host.admit(name, *([STAFF] if name == "carol@A.COM" else []))
    barred = replace(EVERYBODY, barred=("bob@A.COM",))
    host.guests.change(cast("Any", host), settings(MEMBERS, EVERYBODY), {"alice@A.COM"})
    assert host.left == ["alice@A.COM"]
    with pytest.raises(NotAdmitted, match="about to be a peer of the configuration"):
        host.admit("alice@A.COM")
    host.guests.change(cast("Any", host), settings(MEMBERS, barred), ())
    assert host.left == ["alice@A.COM", "bob@A.COM"], "carol came by a rule that stays"
    with pytest.raises(NotAdmitted, match="no rule lets it in"):
        host.admit("bob@A.COM")
    assert host.admit("alice@A.COM").policies


async def test_who_has_an_address_that_is_another_s_now_goes_and_comes_again_with_its_own() -> None:
    host = Host(settings(EVERYBODY))
    here = {name: host.admit(name).lease for name in ("alice@A.COM", "bob@A.COM")}
    alices = here["alice@A.COM"]
    assert alices is not None
    fixed = replace(settings(EVERYBODY), fixed={"carol@A.COM": alices.addresses[:1]})
    host.guests.change(cast("Any", host), fixed, ())
    assert host.left == ["alice@A.COM"], "bob has what nobody else is to have"
    again, carols = host.admit("alice@A.COM").lease, host.admit("carol@A.COM").lease
    assert again is not None
    assert carols is not None
    assert again.addresses[0] != carols.addresses[0] == alices.addresses[0]
    host.guests.change(cast("Any", host), settings(EVERYBODY, pool=("10.9.0.0/24",)), ())
    assert sorted(host.left[1:]) == ["alice@A.COM", "bob@A.COM", "carol@A.COM"]
