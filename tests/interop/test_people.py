"""People and their gateway, as real daemons: who is let in, what they are lent, and how they come back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.lab import events, start, wait
from support.people import GATEWAY, HOST_S_DNS, guests, laptop, open_gateway

if TYPE_CHECKING:
    from kinkvpn.demo.lab import Lab

pytestmark = [pytest.mark.root, pytest.mark.kdc]


def pinged(lab: Lab, address: str) -> bool:
    """Whether host a hears from ``address`` inside."""
    done = lab.hosts[0].namespace.spawn(["ping", "-n", "-c", "1", "-W", "1", address])
    return done.wait(20) == 0


def test_alice_is_lent_an_address_and_bob_another_and_both_leave(lab: Lab) -> None:
    gateway = lab.hosts[1]
    open_gateway(gateway)
    start(lab, gateway)
    with laptop(lab) as alice:
        alice.exists()
        alice.kinit()
        alice.up()
        alice.wait_up()
        four, six = alice.address(4), alice.address(6)
        assert four.startswith("10.8.0.")
        assert six.startswith("fd00:8::")
        for version in (4, 6):
            inner = gateway.site.inner_address(version)
            wait(lab, lab.hosts[0], lambda to=inner: pinged(lab, to), f"hears nothing of {inner}")
        assert "nameserver 10.2.0.53" in alice.resolv_conf.read_text()
        assert guests(gateway) == [alice.principal]
        # The gateway reaches her too, and asks for her ticket-granting ticket to do so.
        assert gateway.namespace.spawn(["ping", "-n", "-c", "1", "-W", "5", four]).wait(20) == 0
        alice.stop()
        assert alice.resolv_conf.read_text() == HOST_S_DNS
        # Whoever comes again has the same, and what kill -9 leaves is put right.
        alice.up()
        alice.wait_up()
        assert (alice.address(4), alice.address(6)) == (four, six)
        alice.kill()
        wait(lab, lab.hosts[0], lambda: alice.resolv_conf.read_text() == HOST_S_DNS, "has the tunnel's name servers")
    with laptop(lab, "bob") as bob:
        bob.exists()
        bob.kinit()
        bob.up()
        bob.wait_up()
        assert bob.address(4) != four
        assert sorted(guests(gateway)) == [alice.principal, bob.principal]


def test_who_is_not_let_in_is_told_so(lab: Lab) -> None:
    gateway = lab.hosts[1]
    open_gateway(gateway, 'who = "*@KINKVPN.TEST"\nexcept = "alice@KINKVPN.TEST"')
    start(lab, gateway)
    with laptop(lab) as alice:
        alice.exists()
        alice.ccache.unlink(missing_ok=True)
        assert "kinit gets some" in alice.refused()
        alice.kinit()
        assert f"{GATEWAY} lends nothing to {alice.principal}: the peer answers NO-PROPOSAL-CHOSEN" in alice.refused()
    assert guests(gateway) == []
    assert any("no rule lets it in" in line for line in events(gateway, "command_refused"))
