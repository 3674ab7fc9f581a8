"""The ways to the peers, by going them: KINK's port and ESP's, an authenticated STATUS, and how large a packet passes.

A GETTGT for somebody who is not there is the one question that needs no ticket and does nothing: whoever speaks KINK
answers with a KRB-ERROR, and in that is its clock (RFC 4430 §4.2.3, RFC 4120 §5.9.1). Where a daemon of ours runs it is
asked instead: a second one that spoke for the same principal would seem to the peers to be the first one restarted
(RFC 4430 §3.7).
"""

from __future__ import annotations

import errno
import secrets
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, NamedTuple

import trio

from esp.sa import Endpoint
from kinkvpn.config.host import SYSTEM_KEYTAB
from kinkvpn.decode.asn1 import read_krb_error
from kinkvpn.doctor.finding import Finding, Severity, error, note, ok, warning
from kinkvpn.doctor.kdc import clock
from kinkvpn.doctor.keys import fetch_keys
from kinkvpn.doctor.routes import narrowed
from kinkvpn.errors import AuthenticationFailed, KinkvpnError, MalformedMessage
from kinkvpn.kerberos import libkrb5
from kinkvpn.kerberos.session import KRB_AP_ERR_BAD_INTEGRITY, KRB_AP_ERR_NOKEY, KRB_AP_ERR_SKEW
from kinkvpn.kerberos.tickets import TicketUnavailable, allowed_skew
from kinkvpn.proto.envelope import Opened, open_reply, seal_command
from kinkvpn.proto.extensions import filled
from kinkvpn.proto.gettgt import KDC_HAS_NO_KEY
from kinkvpn.proto.path_search import BASE, SIZES
from kinkvpn.proto.whereabouts import KinkOver
from kinkvpn.service.paths import path_mtu
from kinkvpn.service.preflight import resolve_address
from kinkvpn.wire.kink import ApRep, KrbError, Message, MessageType, TgtRep, TgtReq, build_message, parse_message

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kinkvpn.config import PeerConfiguration
    from kinkvpn.decode.asn1 import KrbError as KrbErrorDetails
    from kinkvpn.doctor.examination import Patient, Report
    from kinkvpn.proto.ports import OutstandingRequest, Ticket

# specification
MARKER: Final = bytes(4)  # the non-ESP marker (RFC 3948 §2.2)
IN_FRONT: Final = {4: 20 + 8 + 4, 6: 40 + 8 + 4}  # IP, UDP, marker
KRB_AP_ERR_BADKEYVER: Final = 44  # RFC 4120 §7.5.9
WRONG_KEY: Final = frozenset({KRB_AP_ERR_BAD_INTEGRITY, KRB_AP_ERR_BADKEYVER, KRB_AP_ERR_NOKEY})
# linux/in.h, linux/in6.h: DF, whatever the kernel thinks of the path.
PROBE: Final = {
    socket.AF_INET: (socket.IPPROTO_IP, 10, 3),
    socket.AF_INET6: (socket.IPPROTO_IPV6, 23, 3),
}

# Ours. Whom nobody is: the peer says so, and at what time by its clock.
NOBODY: Final = b"doctor/nobody.invalid@INVALID"
# Ours. Seconds after which a question is asked again, and in all: a satellite answers within the first of them.
PATIENCE: Final = (0.5, 1.0, 1.5)
# As the daemon's: low 32 bits of the time at which we began (RFC 4430 §4.2.1), one for all that is sent from here.
EPOCH: Final = int(time.time()) & 0xFFFFFFFF
# Ours. Peers that are asked at once.
AT_ONCE: Final = 16


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, and in how many seconds."""

    message: Message
    datagram: bytes
    seconds: float


class Way(NamedTuple):
    """One port of a peer.

    Args:
        to: where it is.
        marked: it is ESP's, where KINK is behind the non-ESP marker.
        ours: the port that the daemon sends from, and so that it may be answered at by a firewall.
        called: the name that resolves to it, where the configuration has one.
    """

    to: Endpoint
    marked: bool
    ours: int
    called: str = ""

    @property
    def place(self) -> str:
        """With its name."""
        return f"{self.to.address} ({self.called})" if self.called else self.to.address

    def __str__(self) -> str:
        return f"{self.place} port {self.to.port}/udp"

    async def ask(self, build: Callable[[int], bytes]) -> Answer | None:
        """The REPLY to what ``build`` makes for an XID, anew for each transmission; None if there is none in time.

        Raises:
            OSError: no route, or ICMP says that nobody listens there.
        """
        return (await self.ask_all([build], whole=False)).get(0)

    async def ask_all(self, builds: Sequence[Callable[[int], bytes]], *, whole: bool) -> dict[int, Answer]:
        """As ``ask``, several at once; the answers by the number of the question.

        Args:
            builds: each makes a datagram for an XID.
            whole: with DF set.
        """
        family = socket.AF_INET6 if ":" in self.to.address else socket.AF_INET
        with trio.socket.socket(family, socket.SOCK_DGRAM) as sock:
            if whole:
                sock.setsockopt(*PROBE[family])
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # for another peer of the moment, not for others
            with suppress(OSError):
                await sock.bind(("", self.ours))
            await sock.connect(self.to)  # so that ICMP is told to us
            return await self._converse(sock, {secrets.randbits(32): number for number in range(len(builds))}, builds)

    async def _converse(
        self, sock: trio.socket.SocketType, numbers: dict[int, int], builds: Sequence[Callable[[int], bytes]]
    ) -> dict[int, Answer]:
        """``numbers`` of questions by their XIDs, which go as they are answered."""
        answers: dict[int, Answer] = {}
        started = trio.current_time()
        for patience in PATIENCE:
            for xid, number in numbers.items():
                try:
                    await sock.send(MARKER * self.marked + builds[number](xid))
                except OSError as refused:
                    if refused.errno != errno.EMSGSIZE:  # larger than the interface is as good as lost on the way
                        raise
            with trio.move_on_after(patience):
                while numbers:
                    datagram = (await sock.recv(65_535))[len(MARKER) * self.marked :]
                    message = reply_in(datagram)
                    if message is not None and message.xid in numbers:
                        answers[numbers.pop(message.xid)] = Answer(message, datagram, trio.current_time() - started)
        return answers


def reply_in(datagram: bytes) -> Message | None:
    """The REPLY in ``datagram``; None if it is anything else, for anybody may send anything."""
    try:
        message = parse_message(datagram)
    except KinkvpnError:
        return None
    return message if message.type is MessageType.REPLY else None


def question(about: bytes) -> Callable[[int], bytes]:
    """A GETTGT (RFC 4430 §6.6), for any XID."""
    return lambda xid: build_message(Message(MessageType.GETTGT, xid, (TgtReq(about),)))


async def look(patient: Patient, report: Report) -> None:
    """Every peer, many at once, told in the order of the configuration."""
    if patient.configuration is None:
        return
    told: dict[str, list[Finding]] = {peer.name: [] for peer in patient.peers}
    free = trio.CapacityLimiter(AT_ONCE)
    versions: set[int] = {ip_address(address).version for address in patient.configuration.kink.listen}

    async def at(peer: PeerConfiguration) -> None:
        async with free:
            await _Peer(patient, peer, told[peer.name].append).look(versions)

    async with trio.open_nursery() as nursery:
        for peer in patient.peers:
            nursery.start_soon(at, peer)
    for findings in told.values():
        for finding in findings:
            report(finding)


@dataclass(frozen=True, slots=True)
class _Peer:
    patient: Patient
    peer: PeerConfiguration
    report: Report

    async def look(self, versions: set[int]) -> None:
        peer = self.peer
        if not peer.address:
            why = "it has to call us, and nothing can be tried from here"
            self.report(note("peer-unlocated", "no address in the configuration", why, peer=peer.name))
            return
        try:
            address = await resolve_address(peer.address, versions)
        except KinkvpnError as unknown:
            self.report(error("peer-unresolved", str(unknown), command=f"getent hosts {peer.address}", peer=peer.name))
            return
        if self.patient.daemon_runs:
            await self._as_the_daemon_has_it(address)
            return
        ways = await self._ports(address)
        try:
            ticket = await self._ticket(ways)
            if ticket is not None and ways:
                await self._authenticated(ways, ticket)
        except OSError as lost:
            self.report(error("no-way", f"{peer.address}: {lost.strerror}, a moment after it answered", peer=peer.name))

    async def _as_the_daemon_has_it(self, address: str) -> None:
        """A STATUS of the daemon's own, and what it has found of the path; beside it what anybody may ask, which says
        where a peer is that does not answer.
        """
        told = {each["name"]: each for each in (self.patient.status or {"peers": []})["peers"]}.get(self.peer.name)
        if told is None or self.patient.probe is None:
            return
        seconds, silence, ports = 0.0, "nor does anybody else who asks", list[Finding]()
        async with trio.open_nursery() as asking:
            asking.start_soon(replace(self, report=ports.append)._unless_gone, address, asking.cancel_scope)
            try:
                seconds = await trio.to_thread.run_sync(self.patient.probe, self.peer.name, abandon_on_cancel=True)
                asking.cancel_scope.cancel()
            except KinkvpnError as silent:
                silence = str(silent)
        if seconds:
            known = f"; {told['path_mtu']} octets go through" if told["path_mtu"] else ""
            self.report(ok("peer-heard", f"STATUS by the daemon in {seconds * 1000:.0f} ms{known}", self.peer.name))
            return
        self._unheard(silence, told["last_heard"], ports)

    async def _unless_gone(self, address: str, asking: trio.CancelScope) -> None:
        """Where nobody answers anything, nobody is to be waited for any longer."""
        if not await self._ports(address):
            asking.cancel()

    def _unheard(self, silence: str, heard: float | None, ports: list[Finding]) -> None:
        before = "never heard from" if heard is None else f"last heard {heard:.0f} s ago"
        line, name = f"the daemon gets no answer to a STATUS, {silence} ({before})", self.peer.name
        if any(each.severity > Severity.NOTE for each in ports):
            self.report(error("peer-silent", line, "the lines beside this one say where it ends", peer=name))
        else:
            why = "its ports answer, so it is there: it may have another key, another clock or another principal"
            self.report(error("peer-silent", line, why, "kinkvpn doctor", name).over_there())
        for each in ports:
            self.report(each)

    # ------------------------------------------------------------ ports

    async def _ports(self, address: str) -> list[Way]:
        """Those that answer, KINK's first."""
        ways = self._ways(address)
        outcomes: dict[Way, Answer | OSError | None] = {}

        async def look(way: Way) -> None:
            try:
                outcomes[way] = await way.ask(question(NOBODY))
            except OSError as refused:
                outcomes[way] = refused

        async with trio.open_nursery() as nursery:
            for way in ways:
                nursery.start_soon(look, way)
        answers = {way: outcome for way in ways if isinstance(outcome := outcomes[way], Answer)}
        for way in ways:
            found = self._port(way, outcomes[way], alone=not answers)
            self.report(found)
            if found.name == "no-way":
                break  # there is none to the other either
        for answer in list(answers.values())[:1]:
            self._compare_clocks(answer.message)
        return list(answers)

    def _ways(self, address: str) -> list[Way]:
        peer, over, configured = self.peer, self.peer.kink_over, self.patient.configuration
        assert configured is not None
        called = "" if peer.address == address else peer.address
        ways: list[Way] = []
        if over is not KinkOver.ESP_PORT:
            ways.append(Way(Endpoint(address, peer.port), False, configured.kink.port, called))
        if over is not KinkOver.KINK_PORT:
            # Where KINK's port answers and ESP's does not, tunnels are agreed on and carry nothing.
            ways.append(Way(Endpoint(address, peer.esp_port), True, configured.esp.port, called))
        return ways

    def _port(self, way: Way, outcome: Answer | OSError | None, *, alone: bool) -> Finding:
        """What there is to say of it; ``alone`` where no other port of the peer answers."""
        what = "ESP's port" if way.marked else "KINK's port"
        match outcome:
            case Answer():
                line = f"{what}: {way} answers in {outcome.seconds * 1000:.0f} ms"
                return ok("esp-port", line, self.peer.name) if way.marked else ok("kink-port", line, self.peer.name)
            case ConnectionRefusedError():
                return self._closed(way, f"{what}: nobody listens at {way}")
            case OSError():
                why = "this host, or a router on the way, knows no way there"
                if way.called:
                    why += f"; is it right that {way.called} is there?"
                line = f"no way to {way.place}: {outcome.strerror}"
                return error("no-way", line, why, f"ip route get {way.to.address}", self.peer.name)
        return self._silent(way, f"{what}: no answer from {way}", alone=alone)

    def _closed(self, way: Way, line: str) -> Finding:
        why = "the host is there and says so by ICMP: no daemon runs, or it listens elsewhere"
        if way.marked:
            return error("esp-port-closed", line, why, "kinkvpn status", self.peer.name).over_there()
        return error("kink-port-closed", line, why, "kinkvpn status", self.peer.name).over_there()

    def _silent(self, way: Way, line: str, *, alone: bool) -> Finding:
        why = "a firewall on the way or over there drops it, or the host is down"
        if alone and way.called:
            why = f"{why}, or it is not where {way.called} leads"
        mend = f"nft insert rule inet filter input udp dport {way.to.port} accept"
        if way.marked:
            found = error("esp-port-silent", line, why, mend, self.peer.name)
        elif self.peer.kink_over is KinkOver.AUTO and not alone:
            why += "; KINK goes over ESP's port meanwhile"
            found = warning("kink-port-silent", line, why, mend, self.peer.name)
        else:
            found = error("kink-port-silent", line, why, mend, self.peer.name)
        return found.over_there()

    def _compare_clocks(self, message: Message) -> None:
        details = krb_error(message)
        if details is not None:
            ahead = time.time() - details.server_time
            self.report(self._clock(ahead))

    def _clock(self, ahead: float) -> Finding:
        skew, name = allowed_skew(libkrb5.Context()), self.peer.name
        return clock(ahead, skew, name, name, theirs=self.patient.clock_is_right)

    # ------------------------------------------------------------ under a ticket

    async def _ticket(self, ways: list[Way]) -> Ticket | None:
        """A service ticket; of a peer without a key, one that is made with what it gives us for that."""
        source, configured = self.patient.tickets, self.patient.configuration
        if source is None or configured is None:
            return None
        get = partial(source.get, self.peer.principal, deadline=configured.host.kdc_timeout)
        try:
            return await get()
        except TicketUnavailable as unavailable:
            if unavailable.refusal.code not in KDC_HAS_NO_KEY or not ways:
                return None  # the look at tickets has said why
        tgt = await self._granting_ticket(ways[0])
        try:
            return await get(tgt=tgt) if tgt else None
        except TicketUnavailable as unavailable:
            self.report(error("user-to-user-fails", unavailable.refusal.reason, peer=self.peer.name))
            return None

    async def _granting_ticket(self, way: Way) -> bytes | None:
        wanted = self.peer.principal.encode()
        answer = await way.ask(question(wanted))
        for payload in answer.message.payloads if answer else ():
            if isinstance(payload, TgtRep):
                return payload.ticket
        line = f"{self.peer.name} gives nobody its ticket-granting ticket"
        why = "without a key at the KDC and without that there is no ticket for it"
        self.report(error("user-to-user-fails", line, why, peer=self.peer.name))
        return None

    async def _authenticated(self, ways: list[Way], ticket: Ticket) -> None:
        """STATUS by the first way, and by ESP's ever larger ones."""
        status = _Status(ticket)
        answer = await ways[0].ask(status.build)
        if answer is None:
            line, why = (
                "it answers questions, and no STATUS under a ticket",
                "a message with a ticket is larger: fragments?",
            )
            self.report(error("status-silent", line, why, peer=self.peer.name))
        elif (opened := status.opened(answer)) is None:
            self.report(self._refusal(answer.message))
        elif details := next((krb_details(each) for each in opened.payloads if isinstance(each, KrbError)), None):
            self.report(self._refused(details, "under our ticket"))
        else:
            self.report(
                ok("peer-answers", f"STATUS in {answer.seconds * 1000:.0f} ms, mutually authenticated", self.peer.name)
            )
            for way in ways:
                if way.marked:
                    await self._width(way, ticket)

    def _refusal(self, message: Message) -> Finding:
        details = krb_error(message)
        if details is None:
            return error("peer-refuses", "its answer to a STATUS does not verify", peer=self.peer.name)
        return self._refused(details, "in the clear, so that anybody could have")

    def _refused(self, details: KrbErrorDetails, how: str) -> Finding:
        line = f"it refuses our ticket, error {details.code} of RFC 4120 ({how})"
        if details.code in WRONG_KEY:
            why = "its keytab does not have the key that the KDC made the ticket with"
            mend = fetch_keys(SYSTEM_KEYTAB, self.peer.principal)
            return error("peer-key", line, why, mend, self.peer.name).over_there()
        if details.code == KRB_AP_ERR_SKEW:
            return self._clock(time.time() - details.server_time)
        return error("peer-refuses", line, "its log has more", "kinkvpn doctor", self.peer.name).over_there()

    async def _width(self, way: Way, ticket: Ticket) -> None:
        """The largest size that is answered. All are tried at once: each that is not answered takes its time."""
        version = 6 if ":" in way.to.address else 4
        widest = path_mtu(way.to.address)
        sizes = sorted({size for size in (*SIZES, widest) if BASE[version] < size <= widest})
        # Messages are of whole words (RFC 4430 §4).
        tried = [_Status(ticket, (size - IN_FRONT[version]) & ~3) for size in sizes]
        answers = await way.ask_all([status.build for status in tried], whole=True)
        went = [sizes[number] for number, answer in answers.items() if tried[number].opened(answer) is not None]
        if went:
            self.report(await self._passes(way, max(went), widest))
            return
        line = f"no packet of more than {BASE[version]} octets is answered on ESP's port"
        why = "such paths are slow, and some hosts give up on them"
        mend = await trio.to_thread.run_sync(narrowed, way.to.address, BASE[version])
        self.report(warning("path-narrow", line, why, mend, self.peer.name))

    async def _passes(self, way: Way, size: int, widest: int) -> Finding:
        if size == widest:
            return ok("path-mtu", f"packets of {size} octets go through whole, as the route says", self.peer.name)
        line = f"packets of {size} octets go through whole, and not of {widest}, as the route says"
        why = "and no ICMP told of it: the daemon finds that by itself (path_probe), other programs do not"
        mend = await trio.to_thread.run_sync(narrowed, way.to.address, size)
        return note("path-mtu-unsaid", line, why, mend, self.peer.name)


class _Status:
    """One STATUS command (RFC 4430 §3.4) in its transmissions, and what answers it.

    Args:
        ticket: for the peer.
        octets: that each transmission is filled up to.
    """

    def __init__(self, ticket: Ticket, octets: int = 0) -> None:
        self._ticket, self._octets = ticket, octets
        self._outstanding: list[OutstandingRequest] = []

    def build(self, xid: int) -> bytes:
        """A transmission, with an authenticator of its own."""
        request = self._ticket.make_request()
        self._outstanding.append(request)
        seal = partial(seal_command, MessageType.STATUS, xid, EPOCH, request, self._ticket.key)
        return seal(filled(seal, (), self._octets)) if self._octets else seal(())

    def opened(self, answer: Answer) -> Opened | None:
        """What is in it; None if it does not verify."""
        ap = next((payload for payload in answer.message.payloads if isinstance(payload, ApRep)), None)
        if ap is None:
            return None
        try:
            return open_reply(answer.message, answer.datagram, ap, self._outstanding, self._ticket.key)
        except (AuthenticationFailed, MalformedMessage):
            return None


def krb_error(message: Message) -> KrbErrorDetails | None:
    """The KRB-ERROR in a REPLY, if there is one."""
    return next((krb_details(each) for each in message.payloads if isinstance(each, KrbError)), None)


def krb_details(payload: KrbError) -> KrbErrorDetails | None:
    """What it says; None if it cannot be read."""
    try:
        return read_krb_error(payload.krb_error)
    except MalformedMessage:
        return None
