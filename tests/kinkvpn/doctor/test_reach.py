"""Ways to a peer, in the laboratory: a real daemon at the other end, and what may be between."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest
from support.doctor import answered, configuration, examined, host_section, patient
from support.lab import amend, ask, command, configure, start, status, wait
from support.namespaces import namespace, within

from kinkvpn.demo.lab import Lab, kinkvpn, policies
from kinkvpn.demo.sandbox import complete_path
from kinkvpn.doctor import reach
from kinkvpn.doctor.examination import Look

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kinkvpn.demo.lab import Host

root = pytest.mark.root
LOOKS = (Look("the ways", reach.look, 300.0),)


@pytest.fixture(scope="module")
def network() -> Iterator[Lab]:
    complete_path()
    with TemporaryDirectory(prefix="kinkvpn-doctor-") as path, Lab(Path(path)) as lab:
        lab.start_realm()
        lab.start_hosts()
        yield lab


@pytest.fixture
def lab(network: Lab) -> Iterator[Lab]:
    """Fresh configurations, no filters; daemons are killed at the end."""
    configure(network)
    try:
        yield network
    finally:
        for host in network.hosts:
            host.kill()
            host.namespace.run(["nft", "flush", "ruleset"])
            if "kink0" in host.namespace.run(["ip", "link"]):  # a pair of veth devices stays
                host.namespace.ip("link del kink0")
            print(f"--- host {host.name}\n{host.log.read_text() if host.log.exists() else ''}")


def seen(host: Host, *arguments: str) -> dict[str, dict[str, Any]]:
    """The findings about the peer, or with ``all``, by name."""
    done = command(host, "doctor", "--json", *arguments)
    assert done.stderr == ""
    return answered(done.returncode, done.stdout)


def filtered(host: Host, *rules: str) -> None:
    """Drops of what comes in what one of the ``rules`` matches."""
    dropped = "".join(f"{rule} drop\n" for rule in rules)
    table = f"table inet doctor {{ chain input {{ type filter hook input priority 0; {dropped}}}\n}}"
    host.namespace.run(["nft", "-f", "-"], stdin=f"flush ruleset\n{table}\n")


@pytest.mark.provokes("kink-port", "esp-port", "peer-answers", "path-mtu", "kink-port-closed", "esp-port-closed")
@root
def test_all_is_well_then_the_peer_goes(lab: Lab) -> None:
    a, b = lab.hosts
    start(lab, b)
    answer = seen(a)
    good = {"kink-port", "esp-port", "peer-answers", "path-mtu", "peer-ticket", "clock"}
    assert good <= set(answer), answer
    assert "packets of 1500 octets go through whole" in answer["path-mtu"]["line"]
    assert {each["severity"] for each in answer.values()} <= {"ok", "note", "warning"}
    b.kill()
    answer = seen(a)
    assert {"kink-port-closed", "esp-port-closed"} <= set(answer)
    assert "peer-answers" not in answer


@pytest.mark.provokes("kink-port-silent", "path-narrow", "path-mtu-unsaid", "esp-port-silent", "status-silent")
@root
def test_firewalls(lab: Lab) -> None:
    a, b = lab.hosts
    start(lab, b)
    filtered(b, "udp dport 910", "udp dport 4500 meta length > 1210")
    answer = seen(a)
    assert answer["kink-port-silent"]["severity"] == "warning"
    assert {"esp-port", "peer-answers", "path-narrow"} <= set(answer)
    filtered(b, "udp dport 4500 meta length > 1300")
    narrow = seen(a)["path-mtu-unsaid"]
    assert narrow["line"].startswith("packets of 1280 octets go through whole, and not of 1500")
    assert narrow["command"] == f"ip route replace {b.site.wire} dev wire mtu 1280"
    a.namespace.run(narrow["command"].split())
    assert "packets of 1280 octets go through whole, as the route says" in seen(a)["path-mtu"]["line"]
    a.namespace.ip(f"route del {b.site.wire} dev wire")
    filtered(b, "udp dport 4500")
    assert {"kink-port", "esp-port-silent", "peer-answers"} <= set(seen(a))
    # A peer to which nothing but 910 leads, and nothing of more than a GETTGT.
    amend(a, "[peer]", kink_over="910")
    filtered(b, "udp dport 910 meta length > 200")
    assert "status-silent" in seen(a)


@pytest.mark.provokes("peer-key")
@root
def test_a_peer_whose_keytab_has_another_key(lab: Lab) -> None:
    a, b = lab.hosts
    start(lab, b)
    lab.realm.kadmin("cpw", "-randkey", b.principal)
    try:
        wrong = seen(a)["peer-key"]
    finally:
        lab.realm.write_keytab(b.principal, b.configuration.parent / "keytab")
    assert wrong["command"] == "kadmin -q 'ktadd -k /etc/krb5.keytab kink/b.kinkvpn.test'"
    assert wrong["there"]


@pytest.mark.provokes("user-to-user")
@root
def test_a_peer_without_a_key(lab: Lab) -> None:
    a, b = lab.hosts
    start(lab, b)
    lab.realm.kadmin("modprinc", "-allow_svr", b.principal)
    try:
        answer = seen(a)
    finally:
        lab.realm.kadmin("modprinc", "+allow_svr", b.principal)
    # With a keytab it has a ticket-granting ticket too, which it offers: user-to-user goes through.
    assert {"user-to-user", "peer-answers"} <= set(answer)


@pytest.mark.provokes("user-to-user-fails")
@root
def test_a_peer_without_a_key_that_offers_nothing(lab: Lab) -> None:
    a, b = lab.hosts
    amend(b, "[peer]", user_to_user="never")
    start(lab, b)
    lab.realm.kadmin("modprinc", "-allow_svr", b.principal)
    try:
        assert "user-to-user-fails" in seen(a)
    finally:
        lab.realm.kadmin("modprinc", "+allow_svr", b.principal)


@pytest.mark.provokes("peer-refuses")
@root
def test_a_peer_that_goes_by_another_name(lab: Lab) -> None:
    a, b = lab.hosts
    other, keytab = f"kink/other.test@{lab.realm.name}", b.configuration.parent / "keytab"
    lab.realm.add_service(other)
    lab.realm.write_keytab(other, keytab)
    amend(b, "host", principal=other)
    start(lab, b)
    assert "error 35" in seen(a)["peer-refuses"]["line"]


@pytest.mark.provokes(
    "daemon", "peer-heard", "peer-silent", "tunnel-down", "tunnel-taken-down", "daemon-silent", "offload"
)
@root
def test_a_daemon_here_is_asked(lab: Lab) -> None:
    """One whose device is a veth pair, which leaves it both kinds of large packets or none; then its peer goes."""
    a, b = lab.hosts
    amend(a, "tun", device="veth")
    amend(a, "[peer]", start="boot", probe_after=1.0, dead_after=2.0)
    a.configuration.write_text(a.configuration.read_text() + '\n[offload]\nuso = "off"\n')
    start(lab, b, a)
    wait(lab, a, lambda: {each["state"] for each in policies(status(a))} == {"established"}, "no tunnel")
    answer = seen(a, b.name)
    assert {"daemon", "ports", "device", "peer-heard"} <= set(answer)
    assert answer["peer-heard"]["line"].startswith("STATUS by the daemon in ")
    assert answer["offload"]["line"] == "no tso: a veth pair leaves both kinds of large packets to us, or neither"
    b.kill()
    # Else the kernel says a few times that a port is closed, to the daemon, and then once a second.
    assert b.namespace.spawn(["sysctl", "-qw", "net.ipv4.icmp_ratelimit=0"]).wait(20) == 0
    # Whom nobody wants anything of nobody misses.
    pinging = a.namespace.spawn(["ping", "-n", "-i", "0.2", b.site.inner_address(4)], stdout=subprocess.DEVNULL)
    try:
        wait(lab, a, lambda: any(each["last_error"] for each in policies(status(a))), "misses nobody")
    finally:
        pinging.kill()
        pinging.wait()
    answer = seen(a)
    assert {"peer-silent", "tunnel-down", "kink-port-closed", "esp-port-closed"} <= set(answer)
    assert "nor does anybody else who asks" in answer["peer-silent"]["line"]
    assert "the peer is dead: " in answer["tunnel-down"]["line"]
    assert "10.1.0.0/24 <-> 10.2.0.0/24, fd00:1::/64 <-> fd00:2::/64 are down" in answer["tunnel-down"]["line"]
    ask(a, "down", b.name)
    answer = seen(a)
    assert answer["tunnel-taken-down"]["command"] == f"kinkvpn up b -c {a.configuration}"
    assert "tunnel-down" not in answer
    assert a.pid is not None
    os.kill(a.pid, signal.SIGSTOP)
    silent = seen(a)["daemon-silent"]
    assert (silent["severity"], silent["command"]) == ("error", f"kill -KILL {a.pid}")


@pytest.mark.provokes("peer-silent", "kink-port-silent")
@root
def test_a_daemon_here_whose_peer_has_lost_its_port(lab: Lab) -> None:
    """Which is asked from elsewhere too, while the daemon waits."""
    a, b = lab.hosts
    amend(a, "[peer]", kink_over="910")
    start(lab, b, a)
    filtered(b, "udp dport 910")
    answer = seen(a)
    assert {"peer-silent", "kink-port-silent"} <= set(answer)
    assert answer["kink-port-silent"]["severity"] == "error"
    assert not answer["peer-silent"]["command"]


@pytest.mark.provokes("no-way")
@root
def test_a_peer_to_which_no_way_leads() -> None:
    who = patient(configuration(host_section("kink/a@B", keytab="/none"), address="203.0.113.7"))
    with namespace() as name:
        lost = within(name, lambda: examined(who, *LOOKS))
    assert set(lost) == {"no-way"}
    assert lost["no-way"].command == "ip route get 203.0.113.7"


@pytest.mark.provokes("no-way")
@root
def test_a_peer_whose_name_leads_elsewhere(lab: Lab) -> None:
    """Whoever sees the address alone may not see what is wrong with it."""
    a, _ = lab.hosts
    amend(a, "[peer]", address="b.kinkvpn.test")
    (a.configuration.parent / "hosts").write_text("203.0.113.9 b.kinkvpn.test\n")
    script = f'mount --bind {a.configuration.parent}/hosts /etc/hosts && exec "$@"'
    looked = [*kinkvpn(), "doctor", "--json", "-c", str(a.configuration)]
    process = a.namespace.spawn(["unshare", "--mount", "sh", "-c", script, "sh", *looked], stdout=subprocess.PIPE)
    output, _ = process.communicate(timeout=120)
    lost = answered(process.returncode, output)["no-way"]
    assert "no way to 203.0.113.9 (b.kinkvpn.test): " in lost["line"]
    assert lost["why"].endswith("is it right that b.kinkvpn.test is there?")


@pytest.mark.provokes("peer-unlocated")
def test_a_peer_that_has_to_call_us() -> None:
    assert set(examined(patient(configuration(host_section("kink/a@B", keytab="/none"), address="")), *LOOKS)) == {
        "peer-unlocated"
    }


@pytest.mark.provokes("peer-unresolved")
def test_a_peer_whose_name_nobody_knows() -> None:
    who = patient(configuration(host_section("kink/a@B", keytab="/none"), address="nowhere.invalid"))
    assert set(examined(who, *LOOKS)) == {"peer-unresolved"}
