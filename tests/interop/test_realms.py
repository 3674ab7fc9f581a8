"""Real daemons in every kind of realm: each enctype, two MIT realms with trust, Heimdal, an AD domain with PACs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from support.heimdal import HeimdalRealm
from support.lab import amend, crosswise, policy, spis, start, status, wait
from support.people import GATEWAY, guests, laptop, open_gateway
from support.samba import SambaRealm

from kinkvpn.demo.lab import KDC_ADDRESS, KDC_PORT, Host, Lab
from kinkvpn.demo.realm import KerberosRealm, Realm
from kinkvpn.demo.traffic import ping

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

pytestmark = [pytest.mark.root, pytest.mark.kdc]

ENCTYPES = (17, 18, 19, 20)
GROUPS = 70  # of each host's account: more than fit into a frame of Ethernet


def kdc(
    make: Callable[..., KerberosRealm],
    directory: Path,
    prefix: Sequence[str],
    *,
    port: int = KDC_PORT,
    **options: object,
) -> KerberosRealm:
    return make(directory / f"realm-{port}", port, addresses=(KDC_ADDRESS,), prefix=prefix, **options)


def one(make: Callable[..., KerberosRealm], **options: object) -> Callable[[Path, Sequence[str]], list[KerberosRealm]]:
    return lambda directory, prefix: [kdc(make, directory, prefix, **options)]


def two(directory: Path, prefix: Sequence[str]) -> list[KerberosRealm]:
    return [
        kdc(Realm, directory, prefix, name="WEST.TEST"),
        kdc(Realm, directory, prefix, name="EAST.EXAMPLE", port=KDC_PORT + 1),
    ]


@pytest.fixture
def lab(directory: Path, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A laboratory in the realms that the test is parametrized with, daemons up."""
    place = directory / str(len(list(directory.iterdir())))
    place.mkdir()
    with Lab(place, realms=request.param) as lab:
        lab.start_realm()
        if len(lab.realms) == 2:
            west, east = lab.realms
            west.trust(east)
        lab.start_hosts()
        try:
            start(lab)
            yield lab
        finally:
            for host in lab.hosts:
                print(f"--- host {host.name}\n{host.log.read_text() if host.log.exists() else ''}")


def each_asks_for_one(lab: Lab) -> None:
    """Host a makes the SAs for IPv4, host b those for IPv6: each is once the initiator and once the responder."""
    a, b = lab.hosts
    ping(a, b, 4)
    ping(b, a, 6)
    wait(lab, a, lambda: crosswise(a, b), f"has not one pair per policy with b: {spis(a)} {spis(b)}")
    assert [policy(a, name)["role"] for name in ("b/1", "b/2")] == ["initiator", "responder"]
    for host in lab.hosts:
        counters = status(host)["counters"]
        assert counters["drops"] == {}
        assert not counters["kink"].get("commands_retransmitted")


def log_of(realm: KerberosRealm) -> str:
    return (realm.krb5_conf.parent / "kdc.log").read_text()


@pytest.mark.parametrize(
    ("lab", "enctype"),
    [pytest.param(one(Realm, enctypes=(enctype,)), enctype, id=f"MIT-{enctype}") for enctype in ENCTYPES],
    indirect=["lab"],
)
def test_each_enctype(lab: Lab, enctype: int) -> None:
    each_asks_for_one(lab)
    issued = re.findall(
        r"TGS_REQ .*ISSUE: .*etypes \{.*tkt=\S+\((\d+)\), ses=\S+\((\d+)\)\}.* for kink/", log_of(lab.realm)
    )
    assert issued == [(str(enctype), str(enctype))] * 2


@pytest.mark.parametrize("lab", [pytest.param(two, id="MIT")], indirect=True)
def test_two_realms_that_trust_each_other(lab: Lab) -> None:
    """Each host has the other realm's KDC make its ticket, with a ticket for krbtgt/OTHER@OWN from its own."""
    each_asks_for_one(lab)
    a, b = lab.hosts
    assert (a.principal, b.principal) == ("kink/a.kinkvpn.test@WEST.TEST", "kink/b.kinkvpn.test@EAST.EXAMPLE")
    west, east = map(log_of, lab.realms)
    assert f"{a.principal} for krbtgt/EAST.EXAMPLE@WEST.TEST" in west
    assert f"{b.principal} for {a.principal}" in west
    assert f"{b.principal} for krbtgt/WEST.TEST@EAST.EXAMPLE" in east
    assert f"{a.principal} for {b.principal}" in east


@pytest.mark.parametrize("lab", [pytest.param(two, id="MIT")], indirect=True)
def test_alice_s_kdc_knows_in_which_realm_her_gateway_is(lab: Lab) -> None:
    west, _ = lab.realms
    assert isinstance(west, Realm)
    west.stop()
    knows = west.directory / "kdc.conf"
    knows.write_text(f"{knows.read_text()}[domain_realm]\n    {GATEWAY} = EAST.EXAMPLE\n")
    west.start()
    gateway = lab.hosts[1]
    for host in lab.hosts:
        host.stop()
    open_gateway(gateway, 'who = "*@WEST.TEST"')
    start(lab, gateway)
    with laptop(lab) as alice:
        alice.exists()
        alice.kinit()
        alice.up()
        alice.wait_up()
        ping(lab.hosts[0], gateway, 4)
    assert guests(gateway) == ["alice@WEST.TEST"]


@pytest.mark.parametrize(
    "lab",
    [pytest.param(one(HeimdalRealm, enctypes=(enctype,)), id=f"{enctype}") for enctype in ENCTYPES],
    indirect=True,
)
def test_heimdal(lab: Lab) -> None:
    each_asks_for_one(lab)
    assert f"TGS-REQ {lab.hosts[0].principal} from" in log_of(lab.realm)


@pytest.mark.parametrize("lab", [pytest.param(one(SambaRealm, groups=GROUPS), id="AD")], indirect=True)
def test_tickets_with_a_pac_are_longer_than_a_frame(lab: Lab) -> None:
    """Both hosts are in 70 groups: their CREATEs leave in fragments, and come together on the other side."""
    before = [fragments(host) for host in lab.hosts]
    each_asks_for_one(lab)
    for host, was in zip(lab.hosts, before, strict=True):
        now = fragments(host)
        assert now["FragOKs"] - was["FragOKs"] == 1, "one CREATE, too long for the wire"
        assert now["FragCreates"] - was["FragCreates"] == 2
        assert now["ReasmOKs"] - was["ReasmOKs"] == 1
        assert now["ReasmFails"] == was["ReasmFails"]


def fragments(host: Host) -> dict[str, int]:
    """What the host's kernel counts of IPv4 fragments."""
    names, values = (
        line.split()[1:] for line in host.namespace.run(["cat", "/proc/net/snmp"]).splitlines() if line[:3] == "Ip:"
    )
    return dict(zip(names, map(int, values), strict=True))


@pytest.mark.parametrize(
    "lab",
    [
        pytest.param(two, id="MIT"),
        pytest.param(one(HeimdalRealm, enctypes=(20,)), id="Heimdal"),
        pytest.param(one(SambaRealm, groups=GROUPS), id="AD"),
    ],
    indirect=True,
)
def test_user_to_user(lab: Lab) -> None:
    """Tickets made with the peer's ticket-granting ticket, across realms too, and with PACs in both (RFC 4430 §3.1)."""
    for host in lab.hosts:
        host.stop()
        amend(host, "[peer]", user_to_user="always")
    start(lab)
    each_asks_for_one(lab)
    for host in lab.hosts:
        counters = status(host)["counters"]["kink"]
        assert counters["gettgt_answered"] == counters["tgt_received"] == 1
