"""``kinkvpn doctor`` beside a daemon that runs: what that one knows, by asking it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.doctor import kept_in, patient, provoked_as_said
from support.lab import command, configure, start

from kinkvpn.doctor.command import ask_daemon
from kinkvpn.service.kill_switch import table_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kinkvpn.demo.lab import Host, Lab

pytestmark = [pytest.mark.root, pytest.mark.kdc]


@pytest.fixture(autouse=True)
def provoked(request: pytest.FixtureRequest) -> Iterator[None]:
    yield from provoked_as_said(request)


def said_of_the_kill_switch(host: Host) -> dict[str, str]:
    """Names of what the doctor finds there, and the commands that mend it."""
    who = patient(host.configuration)
    ask_daemon(who)
    told = kept_in(f"/proc/{host.namespace.pid}/ns/net", who)
    return {name: each["command"] for name, each in told.items()}


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
