"""Real daemons whose clocks are set while they run: what a peer says of that under the key is learned, else not."""

from __future__ import annotations

import re
import socket

import pytest
from support.faketime import by_clock
from support.lab import answers, ask, crosswise, events, policy, spis, start, status, wait, within

from kinkvpn.demo.lab import START_SECONDS, Host, Lab
from kinkvpn.demo.traffic import ping
from kinkvpn.wire.kink import ApReq, KrbError, Message, MessageType, build_message, parse_message

pytestmark = [pytest.mark.root, pytest.mark.kdc]

KRB_AP_ERR_SKEW = 37
LIES = 2  # transmissions that go to port 910 before port 4500 is tried


class SetClock:
    """A host's clock, as its daemon and nobody else sees it (libfaketime reads the file at every look at the clock)."""

    def __init__(self, host: Host) -> None:
        self._file = host.configuration.parent / "clock"
        self.ahead(0)

    @property
    def prefix(self) -> list[str]:
        """Put before a command, which then goes by it."""
        return by_clock(FAKETIME_TIMESTAMP_FILE=self._file, FAKETIME_NO_CACHE=1)

    def ahead(self, seconds: int) -> None:
        """Sets it; negative is behind."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.replace(self._file)


def start_by(lab: Lab, host: Host, clock: SetClock) -> None:
    host.start(clock.prefix)
    wait(lab, host, lambda: answers(host), "does not answer", START_SECONDS)


def restarts(host: Host) -> list[str]:
    """By how many seconds the peer's clock was said to differ, at each command that started again."""
    return [found[1] for line in events(host, "command_restarted") if (found := re.search(r"clock is (\S+) s", line))]


def test_skew_is_learned_in_both_directions(lab: Lab) -> None:
    """Host a's clock is set ten minutes ahead. Each side is told by the other, under the key, and tries again once."""
    a, b = lab.hosts
    clock = SetClock(a)
    start_by(lab, a, clock)
    start(lab, b)
    for host, peer in ((a, "b"), (b, "a")):
        ask(host, "probe", peer=peer)  # so that both have tickets from before
    clock.ahead(600)
    ping(a, b, 4)
    ping(b, a, 6)
    wait(lab, a, lambda: crosswise(a, b), f"has not one pair per policy with b: {spis(a)} {spis(b)}")
    assert restarts(a) == ["-600"]
    assert restarts(b) == ["+600"]
    for host in lab.hosts:
        (refused,) = events(host, "ap_request_refused")
        assert f"code={KRB_AP_ERR_SKEW}" in refused
        assert "unauthenticated_error" not in status(host)["counters"]["kink"]
    ask(a, "rekey")
    assert len(restarts(a)) == 1, "learned"


def test_a_clock_that_is_set_while_we_run_is_measured_again(lab: Lab) -> None:
    """The KDC complains of it; a new ticket-granting ticket teaches by how much, and the peer never notices."""
    a, b = lab.hosts
    clock = SetClock(a)
    start_by(lab, a, clock)
    start(lab, b)
    clock.ahead(-3600)
    ping(a, b, 4)
    assert not restarts(a)
    assert not events(b, "ap_request_refused")


def test_a_ticket_that_is_not_valid_yet(lab: Lab) -> None:
    """The responder's clock is behind: it says so under the key, once, and all is well when somebody sets it right."""
    a, b = lab.hosts
    clock = SetClock(b)
    start(lab, a)
    start_by(lab, b, clock)
    clock.ahead(-600)
    a.namespace.spawn(["ping", "-c1", "-W1", b.site.inner_address(4)]).wait()
    wait(lab, a, lambda: policy(a, "b/1")["failures"] >= 1, "has not failed")
    reason = policy(a, "b/1")["last_error"]
    assert "Kerberos error 33 (our ticket is not valid yet by its clock, which is behind)" in reason
    assert re.search(r"its clock is -(599|600|601) s from ours; it takes the ticket when that is older", reason)
    assert not spis(a)
    clock.ahead(0)
    wait(lab, a, lambda: recovered(a, b), "has not recovered with its peer's clock")
    ping(a, b, 4)


def recovered(source: Host, target: Host) -> bool:
    command = ["ping", "-n", "-c1", "-W1", target.site.inner_address(4)]
    return source.namespace.spawn(command).wait() == 0 and "4" in spis(source)


def test_only_what_is_said_under_the_key_is_believed(lab: Lab) -> None:
    """Somebody answers with SKEW and no key: host a goes on, and the real b finds it as it was."""
    a, b = lab.hosts
    start(lab, a)
    asking = a.namespace.spawn(["ping", "-c1", "-W20", b.site.inner_address(4)])
    with within(b.namespace, lambda: socket.socket(type=socket.SOCK_DGRAM)) as liar:
        liar.bind((b.site.wire, 910))
        liar.settimeout(10)
        for _ in range(LIES):
            datagram, source = liar.recvfrom(65535)
            message = parse_message(datagram)
            assert message.type is MessageType.CREATE
            assert isinstance(message.payloads[0], ApReq)
            liar.sendto(build_message(Message(MessageType.REPLY, message.xid, (KrbError(skew()),))), source)
    wait(lab, a, lambda: status(a)["counters"]["kink"].get("unauthenticated_error") == LIES, "did not hear them")
    assert not restarts(a)
    start(lab, b)
    wait(lab, a, lambda: crosswise(a, b, "4"), "has not gone on with the real b")
    asking.wait()
    assert status(a)["counters"]["kink"]["commands_sent"] == 1, "one exchange from beginning to end"
    assert not restarts(a)


def skew() -> bytes:
    """A KRB-ERROR, DER (RFC 4120 §5.9.1): SKEW, with times a year apart."""
    fields = [
        (0, der(2, b"\x05")),
        (1, der(2, b"\x1e")),
        (2, der(24, b"20250101000000Z")),
        (3, der(2, b"\x00")),
        (4, der(24, b"20260101000000Z")),
        (5, der(2, b"\x00")),
        (6, der(2, bytes([KRB_AP_ERR_SKEW]))),
        (9, der(27, b"KINKVPN.TEST")),
        (10, der(48, der(0xA0, der(2, b"\x01")) + der(0xA1, der(48, der(27, b"kink") + der(27, b"b.kinkvpn.test"))))),
    ]
    return der(0x7E, der(48, b"".join(der(0xA0 + number, content) for number, content in fields)))


def der(tag: int, content: bytes) -> bytes:
    assert len(content) < 256
    length = bytes([len(content)]) if len(content) < 128 else bytes([0x81, len(content)])
    return bytes([tag]) + length + content
