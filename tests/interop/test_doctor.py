"""``kinkvpn doctor`` beside a daemon that runs: what that one knows, by asking it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.doctor import answered, provoked_as_said
from support.lab import command, configure, start

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
    done = command(host, "doctor", "--json")
    findings = answered(done.returncode, done.stdout)
    return {name: each["command"] for name, each in findings.items() if name.startswith("kill-switch")}


@pytest.mark.provokes("kill-switch", "kill-switch-alone", "kill-switch-gone")
def test_a_kill_switch_that_is_gone_and_one_that_nobody_holds(lab: Lab) -> None:
    a, b = configure(lab)
    text = a.configuration.read_text().replace(f'address = "{b.site.wire}"\n', "")  # nobody is waited for
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
