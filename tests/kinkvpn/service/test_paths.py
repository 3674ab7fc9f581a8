"""The MTU of the device: what goes through to every peer, and no more than it has to be."""

from __future__ import annotations

import json
import sys
from subprocess import run

import pytest
from support.namespaces import namespace

from esp.mtu import outer_octets
from esp.sa import Encapsulation, Mode, SecurityProtocol
from esp.suite import SUITES
from kinkvpn.config import MAXIMUM_MTU, TunSettings
from kinkvpn.service.paths import ETHERNET_MTU, Carrier, PathMtus, path_mtu, with_mtu

GCM, CBC = SUITES["aes256-gcm16"], SUITES["aes256-cbc-sha256"]
HERE, THERE, SIX = "192.0.2.1", "198.51.100.1", "2001:db8::1"
ESP, AH = SecurityProtocol
TUNNEL, TRANSPORT, UDP, RAW = Mode.TUNNEL, Mode.TRANSPORT, Encapsulation.UDP, Encapsulation.RAW


def automatic(*carriers: Carrier, six: bool = False, **mtus: int) -> int:
    paths = {HERE: 1500, THERE: mtus.get("there", 1500), SIX: mtus.get("beyond", 1500)}
    mtu = with_mtu(TunSettings(), carriers, paths.__getitem__, six=six).mtu
    assert mtu is not None
    return mtu


def test_the_widest_suite_on_the_narrowest_path_decides() -> None:
    here, wide = (GCM, TUNNEL, UDP, ESP, HERE), (CBC, TUNNEL, UDP, ESP, HERE)
    assert automatic(here) == 1438
    assert automatic(here, wide) == automatic(wide) == 1422
    assert automatic(here, (GCM, TUNNEL, UDP, ESP, THERE), there=1400) == 1338
    assert automatic((GCM, TUNNEL, RAW, ESP, HERE)) == 1446
    assert automatic((GCM, TRANSPORT, UDP, ESP, HERE)) == 1458
    authenticated = (SUITES["null-sha256"], TUNNEL, RAW, AH, HERE)
    assert automatic(authenticated) == 1500 - 20 - 28
    for carriers in (
        [here],
        [here, wide],
        [(GCM, TRANSPORT, RAW, ESP, SIX)],
        [authenticated],
    ):
        mtu = automatic(*carriers)
        outer = [outer_octets(*one[:3], 6 if one[4] == SIX else 4, mtu, one[3]) for one in carriers]
        assert 1500 - 16 < max(outer) <= 1500


def test_who_is_not_known_yet_may_come_over_ipv6() -> None:
    assert automatic((GCM, TUNNEL, UDP, ESP, "")) == automatic((GCM, TUNNEL, UDP, ESP, SIX)) == 1418


def test_there_is_a_floor_and_a_ceiling() -> None:
    narrow = (GCM, TUNNEL, UDP, ESP, THERE)
    assert automatic(narrow, there=1280) == 1218
    assert automatic(narrow, there=1280, six=True) == 1280
    assert automatic(narrow, there=500) == 576
    assert automatic(narrow, there=65_536) == MAXIMUM_MTU
    assert automatic() == ETHERNET_MTU


def test_what_is_configured_stays() -> None:
    tun = TunSettings(mtu=9000)
    assert with_mtu(tun, [(GCM, TUNNEL, UDP, ESP, HERE)], {}.__getitem__, six=True) is tun


def test_a_path_is_no_narrower_than_it_was_at_the_start() -> None:
    now = {HERE: 1500, THERE: 1500}
    paths = PathMtus([HERE, ""], now.__getitem__)
    now |= {HERE: 1422, THERE: 1422}
    assert (paths(HERE), paths(THERE)) == (1500, 1422)
    now[HERE] = 9000
    assert paths(HERE) == 9000


def test_the_kernel_is_asked_without_a_packet() -> None:
    assert path_mtu("127.0.0.1") >= 16_436, "lo's, of any kernel"
    assert path_mtu("::1") >= 1500


@pytest.mark.root
def test_the_mtu_is_that_of_the_route() -> None:
    addresses = ["192.0.2.9", "198.51.100.1", "203.0.113.1", "2001:db8::9", "fe80::1%d0"]
    script = f"""
import json, sys
sys.path[:0] = {sys.path!r}
from kinkvpn.service.paths import path_mtu
print(json.dumps([path_mtu(each) for each in {addresses!r}]))
"""
    with namespace() as name:
        for each in (
            "link add d0 type veth peer name d1",
            "link set d1 up",
            "link set d0 mtu 1492 up",
            "address add 192.0.2.1/24 dev d0",
            "address add 2001:db8::1/64 dev d0 nodad",
            "route add 198.51.100.0/24 dev d0 mtu 1300",
        ):
            run(["ip", "-n", name, *each.split()], check=True)
        said = run(["ip", "netns", "exec", name, sys.executable, "-c", script], check=True, capture_output=True)
    assert json.loads(said.stdout) == [1492, 1300, ETHERNET_MTU, 1492, 1492]
