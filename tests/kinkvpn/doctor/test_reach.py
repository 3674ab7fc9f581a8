"""Ways to a peer, in the laboratory: a real daemon at the other end, and what may be between."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest
from support.doctor import configuration, examined, host_section, patient
from support.lab import amend, command, configure, start, wait
from support.namespaces import namespace, within

from kinkvpn.demo.lab import Lab, policies
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
            print(f"--- host {host.name}\n{host.log.read_text() if host.log.exists() else ''}")


def seen(host: Host, *arguments: str) -> dict[str, dict[str, Any]]:
    """The findings about the peer, or with ``all``, by name."""
    done = command(host, "doctor", "--json", *arguments)
    assert done.stderr == ""
    answer = json.loads(done.stdout)
    assert done.returncode == answer["exit"]
    return {each["name"]: each for each in answer["findings"]}


def filtered(host: Host, *rules: str) -> None:
    """Drops of what comes in what one of the ``rules`` matches."""
    dropped = "".join(f"{rule} drop\n" for rule in rules)
    table = f"table inet doctor {{ chain input {{ type filter hook input priority 0; {dropped}}}\n}}"
    host.namespace.run(["nft", "-f", "-"], stdin=f"flush ruleset\n{table}\n")


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
    filtered(b, "udp dport 4500")
    assert {"kink-port", "esp-port-silent", "peer-answers"} <= set(seen(a))
    # A peer to which nothing but 910 leads, and nothing of more than a GETTGT.
    amend(a, "[peer]", kink_over="910")
    filtered(b, "udp dport 910 meta length > 200")
    assert "status-silent" in seen(a)


@root
def test_a_peer_whose_keytab_has_another_key(lab: Lab) -> None:
    a, b = lab.hosts
    start(lab, b)
    lab.realm.kadmin("cpw", "-randkey", b.principal)
    try:
        wrong = seen(a)["peer-key"]
    finally:
        lab.realm.write_keytab(b.principal, b.configuration.parent / "keytab")
    assert wrong["command"] == "kadmin -q 'ktadd -k /etc/krb5.keytab kink/b.kinkvpn.test'   # over there"


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


@root
def test_a_peer_that_goes_by_another_name(lab: Lab) -> None:
    a, b = lab.hosts
    other, keytab = f"kink/other.test@{lab.realm.name}", b.configuration.parent / "keytab"
    lab.realm.add_service(other)
    lab.realm.write_keytab(other, keytab)
    amend(b, "host", principal=other)
    start(lab, b)
    assert "error 35" in seen(a)["peer-refuses"]["line"]


@root
def test_a_daemon_here_is_asked(lab: Lab) -> None:
    a, b = lab.hosts
    start(lab, a)
    unheard = seen(a)
    assert {"daemon", "ports", "device", "peer-silent"} <= set(unheard)
    amend(a, "[peer]", start="boot")
    a.kill()
    start(lab, b, a)
    wait(lab, a, lambda: policies(a.status() or {"peers": []})[0]["state"] == "established", "no tunnel")
    answer = seen(a, b.name)
    assert {"daemon", "peer-heard"} <= set(answer)
    assert answer["peer-heard"]["line"].startswith("STATUS by the daemon in ")


@root
def test_a_peer_to_which_no_way_leads() -> None:
    who = patient(configuration(host_section("kink/a@B", keytab="/none"), address="203.0.113.7"))
    with namespace() as name:
        assert "no-way" in within(name, lambda: examined(who, *LOOKS))


@pytest.mark.parametrize(("address", "name"), [("", "peer-unlocated"), ("nowhere.invalid", "peer-unresolved")])
def test_peers_without_a_place(address: str, name: str) -> None:
    configured = configuration(host_section("kink/a@B", keytab="/none"), address=address or "192.0.2.9")
    who = patient(configured)
    if not address:
        who.peers = (replace(configured.peers[0], address=""),)
    answer = examined(who, *LOOKS)
    assert name in answer
