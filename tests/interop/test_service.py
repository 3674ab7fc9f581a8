"""The units under a systemd that runs: what it starts, watches, reloads, hands over and ends, in their sandbox."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest
from support.lab import network_state, spis, start, status, wait
from support.machine import Machine, obstacle

from kinkvpn.api.client import Client
from kinkvpn.demo.lab import START_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kinkvpn.demo.lab import Host, Lab

pytestmark = [pytest.mark.root, pytest.mark.kdc]

UNIT = "kinkvpn.service"
SOCKETS = ("kinkvpn-kink.socket", "kinkvpn-esp.socket")
CONTROL = "/run/kinkvpn/kinkvpn.sock"
# capabilities(7)
NET_BIND_SERVICE, NET_ADMIN, NET_RAW = 1 << 10, 1 << 12, 1 << 13

NOTE = '["sh", "-c", "echo $KINKVPN_EVENT $KINKVPN_PEER >>${KINKVPN_SOCKET%/*}/hooks"]'
HOOKS = "\n[hooks]\n" + "".join(f"{name} = {NOTE}\n" for name in ("up", "peer_up", "peer_down", "down"))
KILL_SWITCH = '\n[clear]\nblock = "protected"\n'


@pytest.fixture(scope="module")
def booted(network: Lab, directory: Path) -> Iterator[Machine]:
    """Host a, with a systemd; where there may be none, a machine of a CI says why."""
    if reason := obstacle():
        # A container may have its control groups read-only, and nothing that is installed changes that.
        pytest.skip(f"no systemd can be run here: {reason}")  # a container need not have a control group for PID 1
    with Machine(directory / "machine", network.hosts[0].namespace.prefix) as machine:
        yield machine


@pytest.fixture
def machine(lab: Lab, booted: Machine) -> Iterator[Machine]:
    """Nothing of ours runs there, before and after; the daemon of host b runs."""
    start(lab, lab.hosts[1])
    yield booted
    print(booted.journal(UNIT))
    booted.run("systemctl", "stop", UNIT, *SOCKETS)
    shutil.rmtree(booted.root / f"etc/systemd/system/{UNIT}.d", ignore_errors=True)
    booted.run("systemctl", "daemon-reload")
    booted.run("systemctl", "reset-failed")


def deploy(lab: Lab, machine: Machine, more: str = "") -> None:
    """Host a's files where the unit looks for them, and for whom."""
    a, etc = lab.hosts[0], machine.root / "etc"
    places = {
        str(lab.realm.krb5_conf): "/etc/krb5.conf",
        f"{a.configuration.parent}/control": CONTROL,
        str(a.configuration.parent): "/etc/kinkvpn",
    }
    text = a.configuration.read_text() + more
    for here, there in places.items():
        text = text.replace(here, there)
    (etc / "kinkvpn/kinkvpn.toml").write_text(text)
    shutil.copy(a.configuration.parent / "keytab", etc / "kinkvpn/keytab")
    shutil.copy(lab.realm.krb5_conf, etc / "krb5.conf")
    (etc / "krb5.conf").chmod(0o644)
    machine.run("systemd-tmpfiles", "--create", "kinkvpn.conf")


def asked(machine: Machine) -> dict[str, Any]:
    """The status of the daemon there."""
    with Client(machine.path(CONTROL)) as daemon:
        return daemon.status()


def ping(host: Host, other: Host) -> None:
    for version in (4, 6):
        host.namespace.run(["ping", "-n", "-c", "2", "-i", "0.1", "-W", "25", other.site.inner_address(version)])


def wait_active(lab: Lab, machine: Machine) -> None:
    """Until it is READY; SAs may be there before."""
    wait(lab, lab.hosts[0], lambda: machine.show(UNIT, "ActiveState") == "active", "does not come up", START_SECONDS)


def capabilities(machine: Machine) -> set[int]:
    """Of all kinds."""
    sets = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
    process = machine.process(UNIT)
    return {int(process[name], 16) for name in sets}


def test_a_daemon_does_all_that_it_does_in_its_sandbox(lab: Lab, machine: Machine) -> None:
    a, b = lab.hosts
    before = network_state(a)
    # Whatever it may not call would be the end of it here, and not an error that it might get over.
    machine.amend(UNIT, "[Service]\nSystemCallErrorNumber=kill\nSupplementaryGroups=adm\n")
    deploy(lab, machine, HOOKS + KILL_SWITCH)
    machine.reword("[control]\n", '[control]\ngroup = "adm"\n')
    machine.run("systemctl", "start", UNIT)  # until it is READY
    ping(a, b)
    process = machine.process(UNIT)
    account = machine.run("id", "-u", "kinkvpn").strip()
    assert set(process["Uid"].split()) == {account} != {"0"}
    assert (process["NoNewPrivs"], process["Seccomp"]) == ("1", "2")
    assert capabilities(machine) == {NET_BIND_SERVICE | NET_ADMIN | NET_RAW}
    assert asked(machine)["engine"] == status(b)["engine"], "nothing of it is lost in the sandbox"
    wait(lab, a, lambda: machine.show(UNIT, "StatusText").startswith("1 of 1 peers have SAs"), "does not say so")
    assert "kinkvpn_kink0" in a.namespace.run(["nft", "list", "tables"])
    assert machine.path("/var/lib/kinkvpn").stat().st_mode & 0o777 == 0o700
    assert machine.path(CONTROL).stat().st_mode & 0o777 == 0o660

    machine.reword('level = "info"', 'level = "debug"')
    seen = spis(b)
    machine.run("systemctl", "reload", UNIT)
    wait(lab, a, lambda: "reloaded" in machine.journal(UNIT), "has not read its file again")
    assert spis(b) == seen
    assert machine.process(UNIT)["Pid"] == process["Pid"]

    with Client(machine.path(CONTROL)) as daemon:
        daemon.post("/v1/rekey")
    wait(lab, b, lambda: spis(b) != seen, "has no new SAs")
    ping(b, a)
    machine.run("systemctl", "stop", UNIT)
    assert machine.show(UNIT, "Result") == "success"
    assert machine.show(UNIT, "NRestarts") == "0"
    assert "kink0" not in network_state(a)
    assert network_state(a) == before
    journal = machine.journal(UNIT)
    assert "hook_failed" not in journal
    assert "Operation not permitted" not in journal


def test_one_that_is_stuck_is_killed_and_started_again(lab: Lab, machine: Machine) -> None:
    a, _ = lab.hosts
    machine.amend(UNIT, "[Service]\nWatchdogSec=6\nRestartSec=0\n")
    deploy(lab, machine)
    machine.run("systemctl", "start", UNIT)
    stuck = machine.process(UNIT)["Pid"]
    pinged = int(machine.show(UNIT, "WatchdogTimestampMonotonic"))
    wait(lab, a, lambda: int(machine.show(UNIT, "WatchdogTimestampMonotonic")) > pinged, "gives no sign of life")
    machine.run("kill", "-STOP", stuck)
    wait(lab, a, lambda: machine.show(UNIT, "NRestarts") != "0", "was not started again")
    wait_active(lab, machine)
    assert machine.process(UNIT)["Pid"] != stuck
    assert "Watchdog timeout" in machine.journal(UNIT)


def test_a_datagram_starts_it_and_finds_its_sockets_there(lab: Lab, machine: Machine) -> None:
    """Without the capability for port 910, which systemd has bound."""
    a, b = lab.hosts
    only = "CAP_NET_ADMIN\n"
    machine.amend(
        UNIT,
        "[Service]\n" + "".join(f"{key}=\n{key}={only}" for key in ("AmbientCapabilities", "CapabilityBoundingSet")),
    )
    deploy(lab, machine)
    machine.reword(f'listen = ["{a.site.wire}"]\n', "")
    machine.run("systemctl", "start", *SOCKETS)
    assert machine.show(UNIT, "ActiveState") == "inactive"
    ping(b, a)
    wait_active(lab, machine)
    assert capabilities(machine) == {NET_ADMIN}
    # A restart closes none of them.
    machine.run("systemctl", "restart", UNIT)
    ping(b, a)
    assert {machine.show(each, "SubState") for each in SOCKETS} == {"running"}
