"""People and their gateway, as real daemons: who is let in, what they are lent, and how they come back."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest
from support.lab import command, events, start, status, wait
from support.people import GATEWAY, HOST_S_DNS, another_host, guests, laptop, open_gateway

from kinkvpn.api.client import Client, peer_path
from kinkvpn.demo.namespace import LabFailed
from kinkvpn.service.ration import OF_ONE

if TYPE_CHECKING:
    from kinkvpn.demo.lab import Host, Lab

pytestmark = [pytest.mark.root, pytest.mark.kdc]


def pinged(lab: Lab, address: str) -> bool:
    """Whether host a hears from ``address`` inside."""
    return heard(lab.hosts[0], address)


def heard(host: Host, address: str) -> bool:
    """Whether ``host`` hears from ``address`` inside."""
    return host.namespace.spawn(["ping", "-n", "-c", "1", "-W", "1", address]).wait(20) == 0


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
        # Other rules count at once, for those who are here too.
        gateway.configuration.write_text(gateway.configuration.read_text().replace("*@", "alice@"))
        assert command(gateway, "reload").returncode == 0
        wait(lab, gateway, lambda: guests(gateway) == [], "has somebody whom no rule lets in")
        wait(lab, bob.host, lambda: not bob.established(), "is still in the network")


def test_alice_s_laptop_and_desktop_are_in_the_network_at_once(lab: Lab) -> None:
    gateway = lab.hosts[1]
    open_gateway(gateway)
    start(lab, gateway)
    inner = gateway.site.inner_address(4)
    with another_host(lab) as desk, laptop(lab) as one, laptop(lab, host=desk) as other:
        one.exists()
        for machine in (one, other):
            machine.kinit()
            machine.up()
            machine.wait_up()
        addresses = [(machine.address(4), machine.address(6)) for machine in (one, other)]
        assert not {*addresses[0]} & {*addresses[1]}
        assert guests(gateway) == [one.principal] * 2

        def both() -> bool:
            inside = all(heard(machine.host, inner) for machine in (one, other))
            return inside and all(heard(gateway, four) for four, _ in addresses)

        wait(lab, gateway, both, "has not both of them")
        # The gateway asks each for her own ticket-granting ticket.
        for name in (one.principal, f"{one.principal}#2"):
            with Client(gateway.configuration.parent / "control") as daemon:
                daemon.post(f"{peer_path(name)}/rekey")
        wait(lab, gateway, both, "has not both of them any more")
        # One goes, and the other stays where it was.
        one.stop()
        wait(lab, gateway, lambda: heard(desk, inner), "has lost the desktop with the laptop")
        one.up()
        one.wait_up()
        # And a gateway that has forgotten everything, and would lend others now, lends what it lent.
        gateway.kill()
        text = gateway.configuration.read_text()
        others = 'addresses = ["10.9.0.0/24", "fd00:9::/64", '
        gateway.configuration.write_text(text.replace('addresses = ["10.8.0.0/24", ', f'{others}"10.8.0.0/24", '))
        start(lab, gateway)
        wait(lab, gateway, both, "has not found them again")
        assert [(machine.address(4), machine.address(6)) for machine in (one, other)] == addresses


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


REKEYS = 80


def test_who_makes_sas_in_a_loop_fills_no_log_and_is_counted(lab: Lab) -> None:
    gateway = lab.hosts[1]
    open_gateway(gateway)
    start(lab, gateway)
    with laptop(lab) as alice:
        alice.exists()
        alice.kinit()
        alice.up()
        alice.wait_up()
        began = time.monotonic()
        with Client(alice.socket) as daemon:
            for _ in range(REKEYS):
                daemon.post("/v1/rekey")
        answers = status(gateway)["counters"]["kink_labelled"]["answers"]
        assert sum(count for name, count in answers.items() if name.startswith("create.granted")) > REKEYS
        told = events(gateway, "sa_established")
        of_one = [line for line in told if f"policy={alice.principal}/1 " in line]
        most = OF_ONE.burst + (time.monotonic() - began) * OF_ONE.per_second + 1
        assert OF_ONE.burst <= len(of_one) <= most < REKEYS


TICKET_LIVES = "8s", "20s", "60s"
NAPS = "probe_after = 1\ndead_after = 2"
NAP_SECONDS = 10.0  # longer than SLEPT_SECONDS and a look


def test_alice_s_laptop_sleeps_until_it_is_given_up_and_comes_back_by_itself(lab: Lab) -> None:
    gateway = lab.hosts[1]
    open_gateway(gateway, more=NAPS)
    start(lab, gateway)
    with laptop(lab) as alice:
        alice.exists()
        alice.kinit()
        alice.up()
        alice.wait_up()
        address = alice.address()
        with Client(gateway.configuration.parent / "control") as daemon:
            daemon.post(f"{peer_path(alice.principal)}/probe")  # it has a ticket for her now
        assert alice.process is not None
        fell_asleep = time.monotonic()
        alice.process.send_signal(signal.SIGSTOP)
        asking = gateway.namespace.spawn(["ping", "-n", "-i", "0.2", address])
        try:
            wait(lab, gateway, lambda: bool(events(gateway, "peer_dead")), "has not given her up")
            wait(lab, gateway, lambda: time.monotonic() > fell_asleep + NAP_SECONDS, "has no clock")
            alice.process.send_signal(signal.SIGCONT)
            inner = gateway.site.inner_address(4)
            wait(lab, lab.hosts[0], lambda: pinged(lab, inner), "has not come back")
        finally:
            asking.kill()
            asking.wait()
        assert alice.address() == address
        assert events(alice.host, "slept")
        assert guests(gateway) == [alice.principal]


def test_while_alice_sleeps_her_ticket_ends_and_the_gateway_is_restarted_and_kinit_is_all_that_it_takes(
    lab: Lab,
) -> None:
    gateway = lab.hosts[1]
    open_gateway(gateway)
    start(lab, gateway)
    inner = gateway.site.inner_address(4)
    with laptop(lab) as alice:
        alice.exists()
        for life in TICKET_LIVES:
            alice.kinit("-l", life)
            alice.up()
            try:
                alice.wait_up()
                break
            except (AssertionError, LabFailed):  # it has ended before: this machine is busy
                alice.kill()
        address = alice.address()
        assert alice.process is not None
        alice.process.send_signal(signal.SIGSTOP)
        wait(lab, gateway, lambda: guests(gateway) == [], "has somebody whose ticket has ended")
        assert any('reason="its ticket has ended"' in line for line in events(gateway, "guest_left"))
        gateway.kill()
        start(lab, gateway)
        alice.process.send_signal(signal.SIGCONT)
        wait(lab, alice.host, lambda: "kinit" in alice.log.read_text(), "does not say what it takes")
        assert not pinged(lab, inner)
        alice.kinit()
        wait(lab, alice.host, lambda: pinged(lab, inner), "has not taken the new ticket")
        assert alice.address() == address


def test_alice_moves_to_another_network_and_is_found_there_without_saying_a_word(lab: Lab) -> None:
    laptop_s, gateway = lab.hosts
    open_gateway(gateway)
    start(lab, gateway)
    gateway.namespace.ip("route add 203.0.113.0/24 dev wire")
    with laptop(lab) as alice:
        alice.exists()
        alice.kinit()
        alice.up()
        alice.wait_up()
        address = alice.address()
        laptop_s.namespace.ip(
            f"address del {laptop_s.site.wire}/30 dev wire",
            "address add 203.0.113.7/32 dev wire",
            f"route add {gateway.site.wire} dev wire src 203.0.113.7",
        )
        try:
            wait(
                lab,
                gateway,
                lambda: any("203.0.113.7" in line for line in events(gateway, "endpoint_moved")),
                "has not",
            )
            assert gateway.namespace.spawn(["ping", "-n", "-c", "1", "-W", "10", address]).wait(20) == 0
            assert alice.address() == address
        finally:
            laptop_s.namespace.ip(
                f"route del {gateway.site.wire} dev wire",
                "address del 203.0.113.7/32 dev wire",
                f"address add {laptop_s.site.wire_interface} dev wire",
            )
            gateway.namespace.ip("route del 203.0.113.0/24 dev wire")


def test_all_of_alice_s_traffic_goes_through_the_gateway_only_if_she_says_so(lab: Lab) -> None:
    gateway = lab.hosts[1]
    open_gateway(gateway, 'who = "*@KINKVPN.TEST"\nroutes = ["0.0.0.0/0", "::/0"]')
    start(lab, gateway)
    with laptop(lab) as alice:
        alice.exists()
        alice.kinit()
        assert f"{GATEWAY} offers 0.0.0.0/0, ::/0, which is not private: --accept-route SUBNET or" in alice.refused()
        alice.up("--all-traffic", "--no-dns")
        alice.wait_up()
        for version in (4, 6):
            inner = gateway.site.inner_address(version)
            wait(lab, lab.hosts[0], lambda to=inner: pinged(lab, to), f"hears nothing of {inner}")
        assert alice.resolv_conf.read_text() == HOST_S_DNS
        alice.stop()
