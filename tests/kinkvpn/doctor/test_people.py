"""A gateway for people whose pool or whose rules cannot work. Beside a daemon: tests/interop/test_doctor.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.doctor import HOST, examined, found, host_section, patient, written
from support.kdc import ALICE
from support.namespaces import namespace, run, within

from kinkvpn.doctor import kdc, people
from kinkvpn.doctor.examination import Look
from kinkvpn.doctor.finding import Severity

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.kdc import Lab

    from kinkvpn.doctor.examination import Patient
    from kinkvpn.doctor.finding import Finding

LENDING = """
[people]
addresses = [{pool}]
routes = ["10.9.0.0/16", "fd00:9::/64"]
[[people.allow]]
{rule}
"""
ANYBODY = 'who = "*@EXAMPLE.COM"'
GROUP = 'groups = "S-1-5-21-1004336348-1177238915-682003330-1105"'


@pytest.fixture
def host() -> Iterator[str]:
    """In 10.1.0.0/24 and fd00:1::/64."""
    with namespace() as name:
        run("ip", "-n", name, "link", "add", "lan", "type", "veth", "peer", "name", "lan-end")
        for end in ("lan", "lan-end"):
            run("ip", "-n", name, "link", "set", end, "up")
        for address in ("10.1.0.1/24", "fd00:1::1/64"):
            run("ip", "-n", name, "address", "add", address, "dev", "lan")
        yield name


def lending(directory: Path, *pools: str) -> Patient:
    """A gateway that does, from these."""
    pool = ", ".join(f'"{each}"' for each in pools)
    return patient(written(directory, HOST, sections=LENDING.format(pool=pool, rule=ANYBODY)))


def seen(host: str, who: Patient) -> dict[str, Finding]:
    """What is found there."""
    return found(within(host, lambda: list(people.let_in(who))))


@pytest.mark.provokes("people")
@pytest.mark.root
def test_a_pool_of_its_own_and_a_host_that_is_no_gateway(host: str, tmp_path: Path) -> None:
    assert set(seen(host, lending(tmp_path, "10.8.0.0/24", "fd00:8::/64"))) == {"people"}
    assert seen(host, patient(written(tmp_path, HOST))) == seen(host, patient(None)) == {}


@pytest.mark.provokes("people-pool-routed")
@pytest.mark.root
def test_a_part_of_what_people_are_lent_is_routed_elsewhere(host: str, tmp_path: Path) -> None:
    run("ip", "-n", host, "route", "add", "10.8.0.128/25", "dev", "lan")
    finding = seen(host, lending(tmp_path, "10.8.0.0/24"))["people-pool-routed"]
    assert finding.line == "10.8.0.128/25, in people.addresses 10.8.0.0/24, is routed to lan"
    run("ip", "-n", host, *finding.command.split()[1:])
    assert set(seen(host, lending(tmp_path, "10.8.0.0/24"))) == {"people"}


@pytest.mark.provokes("people-pool-lan")
@pytest.mark.root
def test_a_pool_inside_the_network_of_an_interface(host: str, tmp_path: Path) -> None:
    """A host there asks its neighbours for whoever has been lent an address, and this one may answer for them."""
    finding = seen(host, lending(tmp_path, "10.1.0.128/25"))["people-pool-lan"]
    assert finding.severity is Severity.WARNING
    assert finding.line == "people.addresses 10.1.0.128/25 and the network of lan, 10.1.0.0/24, are not apart"
    run("ip", "netns", "exec", host, *finding.command.split())
    assert set(seen(host, lending(tmp_path, "10.1.0.128/25"))) == {"people"}
    six = seen(host, lending(tmp_path, "fd00:1::8000:0/97"))["people-pool-lan"]
    assert (six.severity, six.command) == (Severity.WARNING, "")


@pytest.mark.provokes("people-pool-lan")
@pytest.mark.root
def test_a_pool_with_the_network_of_an_interface_inside(host: str, tmp_path: Path) -> None:
    run("ip", "-n", host, "route", "add", "10.8.0.0/24", "dev", "lan")
    for pool in ("10.1.0.0/24", "10.1.0.0/16"):
        finding = seen(host, lending(tmp_path, pool, "fd00:8::/64"))["people-pool-lan"]
        assert (finding.severity, finding.command) == (Severity.ERROR, "")
        assert finding.setting is not None
        assert finding.setting.line == 'addresses = ["10.8.1.0/24", "fd00:8::/64"]'


@pytest.mark.provokes("people-no-pac")
@pytest.mark.kdc
def test_a_kdc_that_tells_no_groups(lab: Lab, tmp_path: Path) -> None:
    """MIT's signs PACs in which there is nothing of the sort."""
    looks = (Look("the KDC", kdc.granting, 300.0), Look("our own key", kdc.own_key, 300.0))

    def names(rule: str) -> set[str]:
        host = host_section(ALICE, keytab=lab.keytab(ALICE))
        sections = LENDING.format(pool='"10.8.0.0/24"', rule=rule)
        return set(examined(patient(written(tmp_path, host, sections=sections)), *looks)) - {"kdc", "clock"}

    assert names(GROUP) == {"keytab-kvno-fits", "people-no-pac"}
    assert names(ANYBODY) == {"keytab-kvno-fits"}
