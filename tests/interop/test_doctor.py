"""``kinkvpn doctor`` beside a daemon that runs: what that one knows, by asking it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.doctor import found, kept_in, patient, provoked_as_said
from support.lab import command, configure, start, within
from support.people import laptop, open_gateway

from kinkvpn.doctor import people
from kinkvpn.doctor.command import ask_daemon
from kinkvpn.service.kill_switch import table_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kinkvpn.demo.lab import Host, Lab
    from kinkvpn.doctor.finding import Finding

pytestmark = [pytest.mark.root, pytest.mark.kdc]

GROUP = "S-1-5-21-1004336348-1177238915-682003330-1105"


@pytest.fixture(autouse=True)
def provoked(request: pytest.FixtureRequest) -> Iterator[None]:
    yield from provoked_as_said(request)


def said_of_the_kill_switch(host: Host) -> dict[str, str]:
    """Names of what the doctor finds there, and the commands that mend it."""
    who = patient(host.configuration)
    ask_daemon(who)
    told = kept_in(f"/proc/{host.namespace.pid}/ns/net", who)
    return {name: each["command"] for name, each in told.items()}


def said_of_people(host: Host) -> dict[str, Finding]:
    """What the doctor finds of them there."""
    who = patient(host.configuration)
    ask_daemon(who)
    return found(within(host.namespace, lambda: list(people.let_in(who))))


@pytest.mark.provokes("kill-switch", "kill-switch-alone", "kill-switch-gone")
def test_a_kill_switch_that_is_gone_and_one_that_nobody_holds(lab: Lab) -> None:
    a, _ = configure(lab)
    text = a.configuration.read_text()
    a.configuration.write_text(f'clear = {{ block = "everything", bypass = ["kdc"] }}\n{text}')
    start(lab, a)
    assert said_of_the_kill_switch(a) == {"kill-switch": ""}
    a.namespace.run(["nft", "flush", "ruleset"])
    assert said_of_the_kill_switch(a) == {"kill-switch-gone": f"kinkvpn reload -c {a.configuration}"}
    assert command(a, "reload").returncode == 0
    assert said_of_the_kill_switch(a) == {"kill-switch": ""}
    a.kill()
    assert said_of_the_kill_switch(a) == {"kill-switch-alone": f"kinkvpn unblock -c {a.configuration}"}
    assert command(a, "unblock").returncode == 0
    assert said_of_the_kill_switch(a) == {}
    assert table_of("kink0") not in a.namespace.run(["nft", "list", "tables"])


@pytest.mark.provokes("kill-switch-left")
def test_a_kill_switch_of_an_earlier_daemon_that_somebody_restores(lab: Lab) -> None:
    """As nftables.service does with what was saved while it stood."""
    a, _ = configure(lab)
    text = a.configuration.read_text()
    a.configuration.write_text(f'clear = {{ block = "everything", bypass = ["kdc"] }}\n{text}')
    assert command(a, "block").returncode == 0
    saved = a.namespace.run(["nft", "list", "ruleset"])
    a.configuration.write_text(text)
    start(lab, a)
    assert said_of_the_kill_switch(a) == {}  # it has taken that away
    a.namespace.run(["nft", "-f", "-"], stdin=saved)
    assert said_of_the_kill_switch(a) == {"kill-switch-left": f"kinkvpn unblock -c {a.configuration}"}
    assert command(a, "unblock").returncode == 0
    assert said_of_the_kill_switch(a) == {}


@pytest.mark.provokes("people-pool-full", "people-most", "people-no-pac")
def test_a_gateway_that_is_full_and_one_whose_groups_nobody_has(lab: Lab) -> None:
    """Who comes first has the only address there is; and in a realm of MIT's KDC nobody is in a group."""
    gateway = lab.hosts[1]
    configure(lab)
    open_gateway(gateway, more="most = 1")
    text = gateway.configuration.read_text().replace('"10.8.0.0/24", "fd00:8::/64"', '"10.8.0.1/32"')
    gateway.configuration.write_text(text)
    start(lab, gateway)
    assert set(said_of_people(gateway)) == {"people"}
    with laptop(lab) as alice, laptop(lab, "bob") as bob:
        for person in (alice, bob):
            person.exists()
            person.kinit()
        alice.up()
        alice.wait_up()
        said = said_of_people(gateway)
        assert set(said) == {"people-pool-full", "people-most"}
        assert {finding.command for finding in said.values()} == {f"kinkvpn peers -c {gateway.configuration}"}
        assert "most = 2" in str(said["people-most"].setting)
        alice.stop()
        gateway.configuration.write_text(text.replace('who = "*@KINKVPN.TEST"', f'groups = "{GROUP}"'))
        assert command(gateway, "reload").returncode == 0
        assert "no rule of its lets us in" in bob.refused()
        without = said_of_people(gateway)["people-no-pac"]
        assert bob.principal in without.line
        assert without.setting is not None
        gateway.configuration.write_text(text.replace('who = "*@KINKVPN.TEST"', without.setting.line))
        assert command(gateway, "reload").returncode == 0
        bob.up()
        bob.wait_up()
        assert "people-no-pac" not in said_of_people(gateway)
