"""People and their gateway, as real daemons: who is let in, what they are lent, and how they come back."""

from __future__ import annotations

import fcntl
import re
import signal
import socket
import time
from typing import TYPE_CHECKING

import pytest
from scapy.layers.inet import IP, UDP
from support.lab import amend, command, events, start, status, wait, within
from support.people import GATEWAY, HOST_S_DNS, PASSWORD, Laptop, Walker, another_host, guests, laptop, open_gateway
from support.scapy_esp import ScapySa
from support.terminal import terminal

from kinkvpn.api.client import Client, peer_path
from kinkvpn.demo.lab import kinkvpn
from kinkvpn.demo.namespace import LabFailed
from kinkvpn.service.ration import OF_ONE

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from kinkvpn.demo.lab import Host, Lab

pytestmark = [pytest.mark.root, pytest.mark.kdc]


def pinged(lab: Lab, address: str) -> bool:
    """Whether host a hears from ``address`` inside."""
    return heard(lab.hosts[0], address)


def drops_of(host: Host) -> dict[str, int]:
    """What its daemon has dropped, by reason."""
    counted: dict[str, int] = status(host)["counters"]["drops"]
    return counted


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
        # More is lent from now on, and leads into the device; whoever is here has what they had.
        text, before = gateway.configuration.read_text(), bob.address(4)
        gateway.configuration.write_text(text.replace('addresses = ["10.8.', 'addresses = ["10.9.0.0/24", "10.8.'))
        assert command(gateway, "reload").returncode == 0
        assert "dev kink0" in gateway.namespace.run(["ip", "route", "get", "10.9.0.7"])
        assert bob.principal in guests(gateway)
        assert bob.address(4) == before
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


def test_who_runs_commands_without_root_has_the_same_address_the_next_time(lab: Lab, directory: Path) -> None:
    """And several at once have one each. One that was killed is followed by the same machine, and not by another."""
    gateway = lab.hosts[1]
    open_gateway(gateway)
    start(lab, gateway)
    with laptop(lab) as alice:
        alice.exists()
    (walk := directory / "walk").mkdir()
    walker = Walker(lab, walk)
    walker.types("kinit", alice.principal, stdin=f"{PASSWORD}\n")
    run = (*kinkvpn(), "run", "--gateway", GATEWAY, "--", "sh", "-c")

    def begins(process: subprocess.Popen[str]) -> list[str]:
        assert process.stdout is not None
        return process.stdout.readline().split()

    with walker.typing(*run, "hostname -I; read go") as first:
        one = begins(first)
        assert one[0].startswith("10.8.0.")
        with walker.typing(*run, "hostname -I; read go") as second:
            other = begins(second)
            assert not {*one} & {*other}
            assert guests(gateway) == [alice.principal] * 2
    # Both were killed. A tunnel says good-bye when its command has ended, and is that machine until it has.
    for _ in range(2):
        wait(lab, walker.host, lambda: all(map(free, walker.home.glob(".local/state/kinkvpn/*"))), "has a tunnel left")
        assert walker.types(*run, "hostname -I; ping -c 1 10.2.0.1 >/dev/null").split() == one


def free(locked: Path) -> bool:
    """Nobody holds it."""
    with locked.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


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


def test_what_alice_sees_in_a_terminal_of_80_columns(lab: Lab) -> None:
    gateway = lab.hosts[1]
    open_gateway(gateway)
    wire, four = gateway.site.wire, gateway.site.inner_address(4)
    tickets, asking = "alice@KINKVPN.TEST, by the tickets in", f"asking {GATEWAY} ({wire}) for an address ..."
    with laptop(lab) as alice:
        alice.exists()
        alice.kinit()
        deaf = within(gateway.namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        with deaf, terminal(80) as seen:
            deaf.bind((wire, 4500))
            deaf.settimeout(60)
            alice.run("up", GATEWAY, end=seen.end)
            assert alice.process is not None
            deaf.recv(65535)  # it waits for an answer
            alice.process.send_signal(signal.SIGINT)
            assert alice.process.wait(30) == 130
            lines = seen.shown()
            assert (lines[0], lines[-1]) == (tickets, asking)
        start(lab, gateway)
        with terminal(80) as seen:
            alice.run("up", GATEWAY, end=seen.end)
            alice.wait_up()
            own = alice.address()
            wait(lab, lab.hosts[0], lambda: pinged(lab, four), "hears nothing")
            alice.stop()
            lines = seen.shown()
        assert (lines[0], lines[2]) == (tickets, asking)
        assert lines[3].startswith(f"it lends {own}, fd00:8::")
        assert lines[-2:] == ["in its network: Ctrl-C ends that, kinkvpn status shows more", "leaving ..."]
        assert all(len(line) <= 80 or "/" in line for line in lines), "a path stays whole"


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
BUSY_SECONDS = 90.0
WIDE = """
[host]
principal = "{principal}"
ccache = "FILE:{ccache}"
[control]
socket = "{directory}/wide"
[kink]
over = "4500"
[tun]
addresses = ["{own}"]
[[peer]]
name = "gateway"
principal = "kink/b.kinkvpn.test@KINKVPN.TEST"
address = "{gateway}"
[[peer.policy]]
local = "{local}"
remote = "{remote}"
start = "boot"
"""


def forged(gateway: Host, alice: Laptop, source: str, destination: str, number: int) -> bytes:
    """A datagram under the keys of alice's SA, as no program of ours would send it."""
    keys = (gateway.configuration.parent / "keys").read_text()
    found = re.findall(rf"^# {alice.principal}/1 inbound (\S+) spi (\S+) keymat (\S+)$", keys, re.MULTILINE)
    suite, spi, keymat = found[-1]
    inner = IP(src=source, dst=destination) / UDP(sport=9, dport=9) / b"whose is this?"
    return ScapySa(suite, int(spi, 16), bytes.fromhex(keymat), esn=True).seal(bytes(inner), number)


def test_a_guest_has_what_it_was_lent_and_no_more(lab: Lab) -> None:
    gateway = lab.hosts[1]
    open_gateway(gateway)
    amend(gateway, "log", keys=str(gateway.configuration.parent / "keys"))
    start(lab, gateway)
    inner = gateway.site.inner_address(4)
    with laptop(lab) as alice, laptop(lab, "bob") as bob, another_host(lab) as desk:
        for person in (alice, bob):
            person.exists()
            person.kinit()
        alice.up()
        alice.wait_up()
        own = alice.address()
        # Under her own keys, from addresses that are not hers, and to where no route of hers leads.
        wrong = [(bob_s := "10.8.0.9", inner), ("192.0.2.1", inner), (inner, inner), (own, "10.1.0.1"), (own, own)]
        with within(desk.namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as elsewhere:
            for number, (source, destination) in enumerate(wrong, 10_000):
                elsewhere.sendto(forged(gateway, alice, source, destination, number), (gateway.site.wire, 4500))
        wait(
            lab,
            gateway,
            lambda: drops_of(gateway).get("selector_mismatch") == len(wrong),
            "has taken one",
            BUSY_SECONDS,
        )
        # With tickets of bob's, and a configuration that asks for more than a gateway lends.
        alice.stop()
        for local, remote in (("10.8.0.0/24", "10.2.0.0/24"), (own, "10.2.0.0/24"), (bob_s, "10.0.0.0/8")):
            named = {"own": f"{own}/32", "gateway": gateway.site.wire, "local": local, "remote": remote}
            about = {"principal": bob.principal, "ccache": bob.ccache, "directory": bob.directory}
            (bob.directory / "wide.toml").write_text(WIDE.format(**named, **about))
            before = len(events(gateway, "command_refused"))
            bob.run("up", "-c", str(bob.directory / "wide.toml"))
            wait(
                lab,
                gateway,
                lambda then=before: len(events(gateway, "command_refused")) > then,
                "has not refused it",
                BUSY_SECONDS,
            )
            bob.stop()
        assert not any(bob.principal in line for line in events(gateway, "sa_established"))


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
        wait(lab, gateway, lambda: guests(gateway) == [], "has somebody whose ticket has ended", BUSY_SECONDS)
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


GREEDY = """who = "*@KINKVPN.TEST"
routes = ["10.2.0.0/24", "64.0.0.0/2", "128.0.0.0/2", "240.0.0.0/4", "fd00:2::/64"]
dns = ["10.2.0.53", "192.0.2.66", "2001:db8::66"]
domains = ["corp.example", "com"]"""


def test_a_gateway_that_wants_more_than_its_own_has_nothing_of_it(lab: Lab) -> None:
    gateway = lab.hosts[1]
    open_gateway(gateway, GREEDY)
    start(lab, gateway)
    with laptop(lab) as alice:
        alice.exists()
        alice.kinit()
        before = len(alice.log.read_text())
        alice.up()
        alice.wait_up()
        said = alice.log.read_text()[before:]
        assert re.findall(r"route_not_taken .*route=(\S+)", said) == ["64.0.0.0/2", "128.0.0.0/2", "240.0.0.0/4"]
        assert re.findall(r"dns_not_taken .*server=(\S+)", said) == ["192.0.2.66", "2001:db8::66"]
        routes = alice.host.namespace.run(["ip", "-4", "route", "show", "table", "all", "dev", "kink0"])
        taken = [line.split()[0] for line in routes.splitlines() if not line.startswith(("local", "broadcast"))]
        assert taken == ["10.2.0.0/24"]
        lines = alice.resolv_conf.read_text().splitlines()
        assert lines[1:] == ["search corp.example com", "nameserver 10.2.0.53"]


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
