"""The laboratory without its daemons: who reaches whom, and what a host says about a daemon that does not do."""

from __future__ import annotations

import os
import subprocess
import tomllib
from typing import TYPE_CHECKING

import pytest

from kinkvpn import config
from kinkvpn.demo.lab import KDC_ADDRESS, SITES, DaemonOptions, Lab, inbound_spis, policies
from kinkvpn.demo.namespace import LabFailed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.root, pytest.mark.kdc]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab(tmp_path_factory.mktemp("lab"), DaemonOptions(start="boot", suites=("aes128-gcm16",))) as lab:
        lab.start_realm()
        lab.start_hosts()
        yield lab


def reaches(lab: Lab, number: int, address: str) -> bool:
    host = lab.hosts[number]
    try:
        host.namespace.run(["ping", "-n", "-c", "1", "-W", "1", address])
    except LabFailed:
        return False
    return True


def test_hosts_reach_each_other_and_the_kdc_and_nothing_around_the_wire(lab: Lab) -> None:
    for number, other in ((0, 1), (1, 0)):
        assert reaches(lab, number, SITES[other].wire)
        assert reaches(lab, number, KDC_ADDRESS)
        assert not reaches(lab, number, SITES[other].uplink)


def test_each_host_gets_a_ticket_for_the_other_with_its_own_keytab(lab: Lab, tmp_path: Path) -> None:
    for host, peer in (lab.hosts, lab.hosts[::-1]):
        keytab = host.configuration.parent / "keytab"
        cache = f"FILE:{tmp_path}/{host.name}"
        for command in (
            ["kinit", "-c", cache, "-k", "-t", str(keytab), host.principal],
            ["kvno", "-c", cache, peer.principal],
        ):
            host.namespace.spawn(command, environment=lab.realm.environment).wait()
        listed = subprocess.run(["klist", cache], env=lab.realm.environment, capture_output=True, text=True, check=True)
        assert peer.principal in listed.stdout


def test_the_configurations_are_valid_and_mirror_each_other(lab: Lab) -> None:
    a, b = (config.load(host.configuration) for host in lab.hosts)
    assert (a.host.principal, b.host.principal) == (b.peers[0].principal, a.peers[0].principal)
    assert {policy.selector.local for policy in a.policies} == {policy.selector.remote for policy in b.policies}
    assert {network.version for network in (policy.selector.local for policy in a.policies)} == {4, 6}
    assert [suite.name for suite in a.policies[0].suites] == ["aes128-gcm16"]
    assert tomllib.loads(lab.hosts[0].configuration.read_text())["peer"][0]["start"] == "boot"


def test_a_daemon_that_ended_is_reported_with_its_host_and_log(lab: Lab) -> None:
    host = lab.hosts[1]
    host.check_alive()  # not started is not ended
    assert not host.answers()
    whole = host.configuration.read_text()
    host.configuration.write_text("nonsense")
    try:
        host.start()
        daemon = os.pidfd_open(host.pid or 0)
        os.waitid(os.P_PIDFD, daemon, os.WEXITED | os.WNOWAIT)
        os.close(daemon)
        with pytest.raises(LabFailed, match="ended with exit code") as raised:
            host.status()
        assert raised.value.host == "b"
        assert raised.value.log
        assert len(raised.value.log) <= 12
    finally:
        host.kill()
        host.configuration.write_text(whole)


def test_waiting_ends_with_the_reason(lab: Lab) -> None:
    with pytest.raises(LabFailed, match="the daemon sleeps after 0 s"):
        lab.wait_until(lambda: False, 0.1, lab.hosts[0], "sleeps")


def test_reads_spis_from_a_status() -> None:
    status = {"peers": [{"policies": [{"spi_in": "0x00001267"}, {"spi_in": None}]}, {"policies": []}]}
    assert len(policies(status)) == 2
    assert inbound_spis(status) == {4711}
