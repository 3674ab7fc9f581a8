"""A configuration that changes under a running daemon: what is not in the change does not notice."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from support.lab import ask, command, control_socket, events, network_state, spis, start, status, wait, within

from kinkvpn.demo.lab import Host, Lab, kinkvpn, policies
from kinkvpn.demo.traffic import ping

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.root, pytest.mark.kdc]

PORT = 5005
# On their way at once: less than any queue on it holds, so that nothing but a fault loses one.
WINDOW = 32
OCTETS = 1200


@dataclass
class Echoes:
    """Datagrams to the other host and back, as many as two cores carry."""

    ended: threading.Event = field(default_factory=threading.Event)
    answered: threading.Event = field(default_factory=threading.Event)  # the last of them, or none comes any more
    sent: int = 0
    missing: int = 0

    def reflect(self, inside: socket.socket) -> None:
        inside.settimeout(0.1)
        while not self.answered.is_set():
            try:
                inside.sendto(*inside.recvfrom(2 * OCTETS))
            except TimeoutError:
                continue

    def send(self, inside: socket.socket, there: tuple[str, int]) -> None:
        inside.settimeout(20)
        while not self.ended.is_set():
            numbers = range(self.sent, self.sent + WINDOW)
            for number in numbers:
                inside.sendto(number.to_bytes(8, "big") + bytes(OCTETS), there)
            self.sent += WINDOW
            awaited = set(numbers)
            try:
                while awaited:
                    awaited.discard(int.from_bytes(inside.recv(2 * OCTETS)[:8], "big"))
            except TimeoutError:
                self.missing += len(awaited)
                return


@contextmanager
def echoing(a: Host, b: Host) -> Iterator[Echoes]:
    """While the block runs; afterwards it tells how many went and how many did not come back."""
    near, far = ((host.site.inner_address(4), PORT) for host in (a, b))

    def bound(address: tuple[str, int]) -> socket.socket:
        made = socket.socket(type=socket.SOCK_DGRAM)
        made.bind(address)
        return made

    echoes = Echoes()
    with within(a.namespace, lambda: bound(near)) as here, within(b.namespace, lambda: bound(far)) as there:
        reflector = threading.Thread(target=echoes.reflect, args=(there,))
        sender = threading.Thread(target=echoes.send, args=(here, far))
        reflector.start()
        sender.start()
        try:
            yield echoes
        finally:
            echoes.ended.set()
            sender.join()
            echoes.answered.set()
            reflector.join()


def peer(name: str, **values: object) -> str:
    """A [[peer]] that nobody is; its policies may start at boot."""
    address = values.pop("address", "198.51.100.9")
    lines = [
        "[[peer]]",
        f'name = "{name}"',
        f'principal = "kink/{name}.kinkvpn.test@KINKVPN.TEST"',
        f'address = "{address}"',
        *(f"{key} = {json.dumps(value)}" for key, value in values.items() if key not in ("local", "remote")),
        "[[peer.policy]]",
        *(f"{key} = {json.dumps(value)}" for key, value in values.items() if key in ("local", "remote")),
    ]
    return "\n".join(["", *lines, ""])


GHOST = peer("ghost", local="10.1.0.0/24", remote="10.66.0.0/24", start="boot")
CHANGED = peer("ghost", local="10.1.0.0/24", remote="10.66.0.0/24", lifetime=600)
MOVED = CHANGED.replace("198.51.100.9", "198.51.100.11")
# Its own outer address inside of what is protected: the routes have a table of their own from here on, and rules.
AROUND = peer("around", address="198.51.100.10", local="10.1.0.0/24", remote="198.51.100.0/28")
EXCEPTIONS = '\n[[policy]]\naction = "discard"\nremote = "10.77.0.0/24"\n'
MORE = '\n[[policy]]\naction = "bypass"\nprotocol = "tcp"\nremote_port = 8022\nremote = "10.2.0.0/24"\n'

STEPS = [
    (GHOST, "added: ghost"),
    (CHANGED, "changed: ghost"),
    (MOVED + AROUND, "added: around\nreplaced: ghost"),
    (AROUND + EXCEPTIONS, "removed: ghost"),
    (GHOST + AROUND + EXCEPTIONS + MORE, "added: ghost"),
    (EXCEPTIONS, "removed: ghost, around"),
    ("", "no peer has changed"),
]


def test_peers_come_change_and_go_and_the_one_that_stays_loses_no_packet(lab: Lab) -> None:
    a, b = lab.hosts
    start(lab)
    wait(lab, a, lambda: ping(a, b, 4) and ping(a, b, 6), "no ping")
    wait(lab, a, lambda: len(spis(a)) == len(spis(b)) == 2, "no SAs")
    written, before, there = a.configuration.read_text(), spis(a), network_state(a)
    names = set()
    with echoing(a, b) as echoes:
        for more, said in STEPS:
            since = echoes.sent
            wait(lab, a, lambda since=since: echoes.sent >= since + 10 * WINDOW, "nothing goes through")
            a.configuration.write_text(written + more)
            done = command(a, "reload")
            assert (done.returncode, done.stdout, done.stderr) == (0, said + "\n", "")
            names.add(tuple(each["name"] for each in status(a)["peers"]))
        since = echoes.sent
        wait(lab, a, lambda: echoes.sent >= since + 10 * WINDOW, "nothing goes through")
    assert echoes.missing == 0
    assert echoes.sent >= (len(STEPS) + 1) * 10 * WINDOW
    print(f"{echoes.sent} datagrams there and back, {echoes.missing} lost, over {len(STEPS)} reloads")
    assert spis(a) == before
    assert names == {("b",), ("b", "ghost"), ("b", "ghost", "around"), ("b", "around"), ("b", "around", "ghost")}
    for host in lab.hosts:
        drops = status(host)["counters"]["drops"]
        assert not set(drops) - {"acquire", "hold_full", "hold_expired", "no_policy"}, drops
    assert status(b)["counters"]["drops"] == {}
    assert network_state(a) == there


def test_a_signal_does_the_same_and_what_is_wrong_changes_nothing(lab: Lab) -> None:
    a, b = lab.hosts
    start(lab)
    wait(lab, a, lambda: ping(a, b, 4), "no ping")
    written, there = a.configuration.read_text(), network_state(a)
    for text, said in (
        (written.replace("[log]", "[logg]") + "x = ", ["not TOML: Invalid value"]),
        (
            written.replace("[log]", "[logg]").replace('"10.2.0.0/24"', '"10.2.0.9/24"'),
            ['peer[1].policy[1].remote[1] = "10.2.0.9/24": expected a subnet', "logg: unknown key; did you mean log?"],
        ),
        (
            written.replace('"kink0"', '"kink1"').replace("queues = 1", "queues = 2") + GHOST,
            [
                "esp.queues is another one now, which takes a restart",
                "tun.name is another one now, which takes a restart",
            ],
        ),
        (written + peer("lost", address="nobody.invalid", local="10.1.0.0/24", remote="10.66.0.0/24"), ["peer lost:"]),
        (
            written + peer("raw", encapsulation="raw", local="10.1.0.0/24", remote="10.66.0.0/24"),
            ["peer raw: no socket for ESP or AH without UDP is open: restart for it"],
        ),
    ):
        a.configuration.write_text(text)
        refused = reload(a)
        assert refused.returncode == 2
        for line in said:
            assert line in refused.stderr
            assert all(len(each) < 400 for each in refused.stderr.splitlines())
        assert [each["name"] for each in status(a)["peers"]] == ["b"]
        assert network_state(a) == there
    reasons = [line for line in events(a, "reload_refused") if "takes a restart" in line]
    assert len(reasons) == 2
    a.configuration.write_text(written.replace('level = "info"', 'level = "debug"') + GHOST)
    assert a.pid is not None
    signal_of(a)
    wait(lab, a, lambda: [each["name"] for each in status(a)["peers"]] == ["b", "ghost"], "no ghost")
    assert ping(a, b, 4)
    (told,) = events(a, "reloaded")
    assert "added=ghost" in told


def reload(host: Host) -> subprocess.CompletedProcess[str]:
    """``kinkvpn reload``, which does not look at the file itself."""
    asked = [*kinkvpn(), "reload", "--socket", str(control_socket(host))]
    return subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False)


def signal_of(host: Host) -> None:
    """SIGHUP to its daemon."""
    assert host._daemon is not None
    host._daemon.send_signal(signal.SIGHUP)


def pairs(host: Host) -> dict[str, tuple[str, str]]:
    """SPIs in and out by policy, of those that have some."""
    return {each["name"]: (each["spi_in"], each["spi_out"]) for each in policies(status(host)) if each["spi_in"]}


def more_in_front(host: Host, here: str, there: str) -> str:
    """Its configuration with one more policy ahead of the others, which would change their numbers."""
    entry = f'[[peer.policy]]\nlocal = "{here}"\nremote = "{there}"\n\n[[peer.policy]]\n'
    return host.configuration.read_text().replace("[[peer.policy]]\n", entry)


BESIDE = "10.22.0.1"
ANOTHER = """\
lifetime = 900
probe_after = 3
dead_after = 5
delete_grace = 1
sas_per_create = 1
path_probe = false
kink_over = "4500"
"""


def test_a_peer_that_is_written_otherwise_keeps_its_sas_and_loses_no_packet(lab: Lab) -> None:
    a, b = lab.hosts
    b.namespace.run(["ip", "address", "add", f"{BESIDE}/32", "dev", "lo"])
    start(lab)
    wait(lab, a, lambda: ping(a, b, 4) and ping(a, b, 6), "no ping")
    wait(lab, a, lambda: len(pairs(a)) == len(pairs(b)) == 2, "no SAs")
    before, plain = pairs(a), [host.configuration.read_text() for host in (a, b)]
    with echoing(a, b) as echoes:
        for host in (a, b):
            host.configuration.write_text(host.configuration.read_text().replace("suites = ", ANOTHER + "suites = "))
            assert command(host, "reload").stdout == f"changed: {'ab'.replace(host.name, '')}\n"
            assert pairs(a) == before
        near, far = "10.1.0.0/24", f"{BESIDE}/32"
        for host, here, there in ((a, near, far), (b, far, near)):
            host.configuration.write_text(more_in_front(host, here, there))
            assert command(host, "reload").stdout == f"changed: {'ab'.replace(host.name, '')}\n"
        wait(lab, a, lambda: answered(a, BESIDE), "the new policy carries nothing")
        assert {name: pair for name, pair in pairs(a).items() if name in before} == before
        assert list(pairs(a)) == ["b/3", "b/1", "b/2"]
        for host, text in zip((a, b), plain, strict=True):
            host.configuration.write_text(text.replace("suites = ", ANOTHER + "suites = "))
            ask(host, "reload")
        since = echoes.sent
        wait(lab, a, lambda: echoes.sent >= since + 10 * WINDOW, "nothing goes through")
    assert echoes.missing == 0
    print(f"{echoes.sent} datagrams there and back, {echoes.missing} lost, over 3 reloads of each end about that peer")
    assert pairs(a) == before
    ask(a, "rekey")
    assert {one["lifetime"] for one in policies(status(a))} == {900}
    assert not set(pairs(a).values()) & set(before.values())


def answered(host: Host, address: str) -> bool:
    """Whether ``address`` answers a ping of the host."""
    asked = host.namespace.spawn(["ping", "-n", "-c", "1", "-W", "1", address], stdout=subprocess.DEVNULL)
    return asked.wait() == 0


def test_one_that_is_removed_is_told_and_may_come_again(lab: Lab) -> None:
    a, b = lab.hosts
    start(lab)
    wait(lab, a, lambda: ping(a, b, 4), "no ping")
    written = a.configuration.read_text()
    head, _, _ = written.partition("[[peer]]")
    a.configuration.write_text(head + GHOST)
    answer = ask(a, "reload")
    assert answer == {"added": ["ghost"], "changed": [], "replaced": [], "removed": ["b"], "unchanged": []}
    wait(lab, b, lambda: spis(b) == {}, "still has SAs")
    a.configuration.write_text(written)
    ask(a, "reload")
    wait(lab, a, lambda: ping(a, b, 4), "no ping")
    hooked = a.configuration.parent / "hooked"
    text = written.replace('level = "info"', 'level = "info"\nformat = "json"')
    a.configuration.write_text(f'{text}\n[hooks]\npeer_down = ["touch", "{hooked}"]\n')
    assert ask(a, "reload")["unchanged"] == ["b"]
    ask(a, "down", "b")
    wait(lab, a, hooked.exists, "the new hook is not run")
    wait(lab, a, lambda: '"event": "hook_done"' in a.log.read_text(), "the log is not in JSON")
