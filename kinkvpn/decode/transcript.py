"""One message at a time: surveyed, opened, explained, judged, and put into the record that is printed.

A record is what ``--json`` prints of a message (docs/decode.md lists its keys); the text for people is made from the
same record, so that the two cannot tell different stories.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from kinkvpn.decode import asn1, explanation, numbers, places, survey
from kinkvpn.decode.conversation import Conversations, SeenRequest, Transaction, name_answered
from kinkvpn.decode.findings import Finding, Kind
from kinkvpn.decode.keyring import NotOpened
from kinkvpn.errors import AuthenticationFailed, MalformedMessage
from kinkvpn.kerberos.session import PERMITTED_ENCTYPES, enctype_name
from kinkvpn.wire import kink
from kinkvpn.wire.ipsec_doi import PayloadType as QuickModeType
from kinkvpn.wire.isakmp import SecurityAssociation

if TYPE_CHECKING:
    from kinkvpn.decode.datagrams import Address, Datagram
    from kinkvpn.decode.keyring import Keyring, OpenedRequest
    from kinkvpn.kerberos.session import SessionKey

Record = dict[str, Any]
# The outer payloads: as delimited, and as the strict parser reads each by itself, None where it refuses.
Outer = list[tuple[survey.Chunk, kink.KinkPayload | None]]

# RFC 4120 §1.6 and RFC 4430 §3.5: five minutes is what hosts usually allow each other.
USUAL_SKEW: Final = 300.0
# Ours. Hosts whose epoch is remembered.
MAX_EPOCHS: Final = 4096
# AP-REQs that a later one may repeat: as many as a busy gateway gets in the five minutes of a replay cache.
MAX_SEEN: Final = 65536


class Transcript:
    """Makes records of messages, in the order of the capture.

    Args:
        keyring: what opens tickets.
    """

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring
        self._epochs: OrderedDict[tuple[Address, str], tuple[int, int]] = OrderedDict()
        self._seen: OrderedDict[int, int] = OrderedDict()
        self.conversations = Conversations()
        self.count = 0
        self.status: Counter[str] = Counter()
        self.findings: Counter[Kind] = Counter()

    def record(self, datagram: Datagram) -> Record:
        """Everything there is to say of one message."""
        self.count += 1
        reading = _Reading(self, self._keyring, self.count, datagram)
        record = reading.read()
        self.status[record["status"]] += 1
        self.findings.update(finding.kind for finding in reading.findings)
        return record

    def seen_before(self, ap_req: bytes, number: int) -> int | None:
        """The message that had this very AP-REQ first."""
        first = self._seen.setdefault(hash(ap_req), number)
        if len(self._seen) > MAX_SEEN:
            self._seen.popitem(last=False)
        return None if first == number else first

    def changed_epoch(self, address: Address, principal: str, epoch: int, number: int) -> tuple[int, int] | None:
        """The epoch this host had before and the message that said so, if it is another one now."""
        before = self._epochs.get((address, principal))
        self._epochs[address, principal] = epoch, number
        self._epochs.move_to_end((address, principal))
        if len(self._epochs) > MAX_EPOCHS:
            self._epochs.popitem(last=False)
        return before if before and before[0] != epoch else None


class _Reading:
    """The work on one message."""

    def __init__(self, transcript: Transcript, keyring: Keyring, number: int, datagram: Datagram) -> None:
        self._transcript, self._keyring = transcript, keyring
        self._number, self._datagram = number, datagram
        self._survey = survey.survey_message(datagram.octets)
        self.findings: list[Finding] = list(self._survey.findings)
        self._record: Record = _envelope(number, datagram)
        self._key: SessionKey | None = None
        self._principals: tuple[str, str] | None = None

    def read(self) -> Record:
        record, header = self._record, self._survey.header
        if self._datagram.missing:
            cut = f"{self._datagram.missing} octets were not captured: start tcpdump with -s 0"
            self._find(Kind.CUT_SHORT, cut)
        if header is None:
            return self._finish("failed")
        record |= _header(header)
        outer = [(chunk, survey.read_outer(chunk)) for chunk in self._survey.chunks]
        epoch = next((p.epoch for _, p in outer if isinstance(p, kink.ApReq)), None)
        transaction = self._transcript.conversations.place(self._datagram, header, epoch)
        relation = self._transcript.conversations.enter(transaction, header, self._number, self._datagram)
        record["relation"] = relation
        self._open(outer, transaction, relation)
        self._verify(header, outer)
        record["payloads"], inner = self._payloads(header, outer)
        types = [chunk.type for chunk, _ in outer]
        self.findings += places.check_payloads(header.type, types, inner, ackreq=header.ackreq)
        self._relate(relation)
        return self._finish(self._status(outer))

    # --- keys

    def _open(self, outer: Outer, transaction: Transaction, relation: Record) -> None:
        for _, payload in outer:
            if isinstance(payload, kink.ApReq):
                self._open_request(payload, transaction)
            elif isinstance(payload, kink.ApRep):
                self._open_reply(payload, transaction, relation)

    def _open_request(self, payload: kink.ApReq, transaction: Transaction) -> None:
        try:
            ap_req = asn1.read_ap_req(payload.ap_req)
        except MalformedMessage as error:
            self._find(Kind.AP_REQ_BAD, f"the AP-REQ is no AP-REQ: {error}")
            return
        before = self._transcript.seen_before(payload.ap_req, self._number)
        if before is not None:
            self._find(Kind.REPLAYED, f"the AP-REQ of message {before} again: receivers see a replay")
        sealed = ap_req.ticket.sealed
        self._record["server"] = ap_req.ticket.server
        self._record["ticket"] = {"enctype": _enctype(sealed.enctype), "kvno": sealed.kvno}
        if not ap_req.mutual_required:
            self._find(Kind.NO_MUTUAL, "the AP-REQ does not ask for mutual authentication (§4.2.1)")
        try:
            opened = self._keyring.open_request(ap_req)
        except NotOpened as closed:
            self.findings.append(closed.finding)
            return
        self._opened_request(opened, transaction, payload.epoch)

    def _opened_request(self, opened: OpenedRequest, transaction: Transaction, epoch: int) -> None:
        ticket, now = opened.ticket, self._datagram.time
        self._key, self._principals = ticket.key, (ticket.client, ticket.server)
        self._record["client"] = ticket.client
        seconds = opened.stamp[0] + opened.stamp[1] / 1_000_000
        self._record["authenticator"] = {"time": iso(seconds), "at": seconds, "subkey": opened.subkey}
        self._record["ticket"] |= {
            "session_enctype": _enctype(ticket.key.enctype),
            "end": iso(ticket.end),
            "opened_by": ticket.opened_by,
        }
        seen = SeenRequest(self._number, now, opened)
        self._transcript.conversations.remember(transaction, self._datagram, seen)
        if ticket.key.enctype not in PERMITTED_ENCTYPES:
            self._find(Kind.WEAK_ENCTYPE, f"session key of enctype {enctype_name(ticket.key.enctype)}, refused here")
        if now is not None and abs(seconds - now) > USUAL_SKEW:
            way = "ahead of" if seconds > now else "behind"
            self._find(Kind.CLOCK, f"the sender's clock is {abs(seconds - now):.0f} s {way} the capture's")
        if now is not None and now > ticket.end:
            self._find(Kind.TICKET_TIME, f"the ticket expired {now - ticket.end:.0f} s before")

    def _open_reply(self, payload: kink.ApRep, transaction: Transaction, relation: Record) -> None:
        try:
            sealed = asn1.read_ap_rep(payload.ap_rep)
        except MalformedMessage as error:
            self._find(Kind.AP_REP_BAD, f"the AP-REP is no AP-REP: {error}")
            return
        opened: list[tuple[SeenRequest, bool]] = []
        for request, own in self._transcript.conversations.candidates(transaction, self._datagram):
            try:
                stamp = self._keyring.open_reply(request.opened.ticket.key, sealed)
            except AuthenticationFailed:
                continue
            if own and stamp == request.opened.stamp:
                self._use(request)
                self._record["ap_rep"] = {"answers": request.number, "time": iso(stamp[0] + stamp[1] / 1_000_000)}
                name_answered(relation, request, self._datagram.time)
                return
            opened.append((request, own))
        if not opened:
            self._no_key_for_reply(transaction)
            return
        request, own = opened[0]
        self._use(request)
        why = "gives back the time of an authenticator that is not in the capture"
        text = (
            f"the AP-REP {why}"
            if own
            else f"its command is not in the capture; the key is that of message {request.number}"
        )
        self._find(Kind.AP_REP_UNMATCHED, text)

    def _use(self, request: SeenRequest) -> None:
        ticket = request.opened.ticket
        self._key, self._principals = ticket.key, (ticket.client, ticket.server)
        self._record["client"], self._record["server"] = ticket.client, ticket.server

    def _no_key_for_reply(self, transaction: Transaction) -> None:
        if transaction.requests:
            self._find(Kind.AP_REP_BAD, "the AP-REP opens with the key of none of the commands it may answer")
        elif transaction.sent:
            sent = transaction.sent[0].number
            self._find(Kind.NO_KEY, f"the ticket of its command, message {sent}, could not be opened")
        else:
            self._find(Kind.COMMAND_NOT_CAPTURED, "its command is not in the capture, and with it the key")

    # --- checksum

    def _verify(self, header: survey.Header, outer: Outer) -> None:
        authenticated = any(chunk.type in (kink.PayloadType.AP_REQ, kink.PayloadType.AP_REP) for chunk, _ in outer)
        self._record["checksum"] = self._checksum(header, authenticated)
        if self._record["checksum"] == "good":
            self._note_epoch(outer)

    def _checksum(self, header: survey.Header, authenticated: bool) -> str:
        if not header.checksum_length:
            if authenticated:
                self._find(Kind.CHECKSUM_MISSING, "no Cksum, though there is a key (§4)")
            return "none"
        if self._key is None:
            return "unverified"
        try:
            octets = self._datagram.octets
            signed = kink.signed_octets(octets)
            self._key.verify(signed, octets[header.length - header.checksum_length : header.length])
        except MalformedMessage:
            return "unverified"
        except AuthenticationFailed:
            self._find(
                Kind.CHECKSUM_WRONG, "the Cksum does not verify: the message was changed, or made with another key"
            )
            return "wrong"
        return "good"

    def _note_epoch(self, outer: Outer) -> None:
        """Only an authentic epoch says anything (§3.7)."""
        for _, payload in outer:
            if isinstance(payload, kink.ApReq | kink.ApRep) and self._principals:
                principal = self._principals[0 if isinstance(payload, kink.ApReq) else 1]
                address = self._datagram.source.address
                before = self._transcript.changed_epoch(address, principal, payload.epoch, self._number)
                if before:
                    text = f"the epoch of {principal} was {iso(before[0])} in message {before[1]}: it has restarted"
                    self._find(Kind.EPOCH_CHANGED, text)

    # --- payloads

    def _payloads(self, header: survey.Header, outer: Outer) -> tuple[list[Record], list[int]]:
        trees, inner = [], list[int]()
        for chunk, payload in outer:
            tree = self._payload(header, chunk, payload)
            if isinstance(payload, kink.Encrypt):
                tree["inside"], types = self._encrypted(header, payload)
                inner += types
                tree["opened"] = tree["inside"] is not None
            trees.append(tree)
        return trees, inner

    def _payload(self, header: survey.Header, chunk: survey.Chunk, payload: kink.KinkPayload | None) -> Record:
        name = numbers.payload_name(chunk.type)
        tree: Record = {
            "payload": name["name"],
            "number": chunk.type,
            "offset": chunk.offset,
            "octets": len(chunk.body),
        }
        match payload:
            case kink.ApReq(epoch) | kink.ApRep(epoch):
                self._record["epoch"] = iso(epoch)
                tree["epoch"] = {"number": epoch, "time": iso(epoch)}
            case kink.KinkError(code):
                tree["error"] = numbers.named(kink.ErrorCode, code, "KINK_")
                if tree["error"]["name"] is None:
                    self._find(Kind.UNKNOWN_NUMBER, f"error code {code} is unknown")
            case kink.KrbError(octets):
                tree["krb_error"] = self._krb_error(octets)
            case kink.TgtReq(principal):
                tree["principal"] = principal.decode("utf-8", "backslashreplace")
            case kink.TgtRep(octets):
                tree["ticket"] = self._tgt(octets)
            case kink.Isakmp():
                tree |= self._isakmp(header, chunk, payload)
        if payload is None and chunk.type == kink.PayloadType.ISAKMP:
            tree |= self._isakmp(header, chunk, None)
        return tree

    def _encrypted(self, header: survey.Header, payload: kink.Encrypt) -> tuple[list[Record] | None, list[int]]:
        if self._key is None:
            if not self._has(
                Kind.NO_KEY, Kind.USER_TO_USER, Kind.COMMAND_NOT_CAPTURED, Kind.AP_REQ_BAD, Kind.AP_REP_BAD
            ):
                self._find(Kind.NOT_DECRYPTED, "KINK_ENCRYPT stays closed: no AP payload gives a key")
            return None, []
        try:
            plaintext = self._key.decrypt(payload.ciphertext)
        except AuthenticationFailed:
            self._find(Kind.NOT_DECRYPTED, "KINK_ENCRYPT does not open with the session key")
            return None, []
        chunks, findings = survey.survey_plaintext(plaintext)
        self.findings += findings
        trees = [self._payload(header, chunk, survey.read_outer(chunk)) for chunk in chunks]
        return trees, [chunk.type for chunk in chunks]

    def _isakmp(self, header: survey.Header, chunk: survey.Chunk, payload: kink.Isakmp | None) -> Record:
        if len(chunk.body) < kink.ISAKMP_HEADER.size:
            return {}
        version = (chunk.body[1] >> 4, chunk.body[1] & 15)
        tree: Record = {"quick_mode_version": f"{version[0]}.{version[1]}", "quick_mode": []}
        if version != kink.QUICK_MODE_VERSION:
            self._find(Kind.UNKNOWN_NUMBER, f"Quick Mode version {version[0]}.{version[1]}, there is only 1.0 (§12)")
            return tree
        chunks, findings = survey.survey_quick_mode(chunk.body)
        self.findings += findings + places.check_quick_mode(header.type, [inside.type for inside in chunks])
        group, identifications = None, 0
        for inside in chunks:
            read = survey.read_quick_mode(inside)
            name = numbers.quick_mode_name(inside.type)
            entry: Record = {"payload": name["name"], "number": inside.type, "octets": len(inside.body)}
            if inside.type == QuickModeType.ID:
                entry["role"] = "IDcr" if identifications else "IDci"
                identifications += 1
            elif inside.type == QuickModeType.NONCE:
                entry["role"] = "Nr" if header.type == kink.MessageType.REPLY else "Ni"
            if read is not None:
                entry |= explanation.explain_quick_mode(read, self.findings)
            if isinstance(read, SecurityAssociation):
                group = explanation.group_of(read) or group
            if inside.type == QuickModeType.KE:
                entry["group"] = group
            tree["quick_mode"].append(entry)
        return tree

    def _krb_error(self, octets: bytes) -> Record | None:
        try:
            error = asn1.read_krb_error(octets)
        except MalformedMessage as failure:
            self._find(Kind.MALFORMED, f"the KRB-ERROR is no KRB-ERROR: {failure}")
            return None
        return {
            "code": numbers.kerberos_error_name(error.code),
            "meaning": self._keyring.error_text(error.code),
            "server": error.server,
            "client": error.client,
            "server_time": iso(error.server_time),
            "client_time": None if error.client_time is None else iso(error.client_time),
            "text": error.text,
        }

    def _tgt(self, octets: bytes) -> Record | None:
        try:
            ticket = asn1.read_ticket(octets)
        except MalformedMessage as failure:
            self._find(Kind.MALFORMED, f"the ticket is no ticket: {failure}")
            return None
        return {"server": ticket.server, "enctype": _enctype(ticket.sealed.enctype), "kvno": ticket.sealed.kvno}

    # --- verdict

    def _relate(self, relation: Record) -> None:
        repeats = relation["repeats"]
        if repeats is not None:
            later = "" if relation["repeat_after_ms"] is None else f", {relation['repeat_after_ms']:.0f} ms later"
            how = ", octet for octet" if relation["identical"] else ""
            self._find(Kind.RETRANSMISSION, f"retransmission of message {repeats}{how}{later}")
        if relation["role"] == "reply" and relation["answers"] is None:
            self._find(Kind.UNSOLICITED, "the command it answers is not in the capture")

    def _status(self, outer: Outer) -> str:
        if any(finding.wrong for finding in self.findings):
            return "failed"
        if self._record["checksum"] == "good":
            return "verified"
        # Nobody has a key for these: GETTGT and its answers (§6.6), errors without an AP-REP (§6.3).
        if any(chunk.type in (kink.PayloadType.KRB_ERROR, kink.PayloadType.ERROR) for chunk, _ in outer):
            self._find(Kind.UNPROTECTED, "an error that no key protects: anybody can have sent it (§10)")
        return "clear" if self._record["checksum"] == "none" else "failed"

    def _finish(self, status: str) -> Record:
        self._record["status"] = status
        self._record["findings"] = [finding.as_json() for finding in self.findings]
        return self._record

    def _find(self, kind: Kind, text: str) -> None:
        self.findings.append(Finding(kind, text))

    def _has(self, *kinds: Kind) -> bool:
        return any(finding.kind in kinds for finding in self.findings)


def iso(seconds: float) -> str:
    """RFC 3339, UTC, with microseconds where there are any; what no calendar has stays a number."""
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return f"{seconds:.0f}"


def _enctype(number: int) -> Record:
    name = enctype_name(number)
    return {"number": number, "name": None if name.startswith("unknown") else name.rpartition(" ")[0]}


def _envelope(number: int, datagram: Datagram) -> Record:
    return {
        "record": "message",
        "number": number,
        "frame": datagram.frame,
        "time": None if datagram.time is None else iso(datagram.time),
        "at": datagram.time,
        "source": str(datagram.source),
        "destination": str(datagram.destination),
        "marked": datagram.marked,
        "fragments": datagram.fragments,
        "octets": len(datagram.octets),
        **dict.fromkeys(("type", "xid", "version", "doi", "length", "ackreq", "status", "checksum", "checksum_octets")),
        **dict.fromkeys(("client", "server", "ticket", "authenticator", "ap_rep", "epoch", "relation")),
        "payloads": [],
    }


def _header(header: survey.Header) -> Record:
    return {
        "type": numbers.named(kink.MessageType, header.type),
        "xid": header.xid,
        "version": header.major,
        "doi": header.doi,
        "length": header.length,
        "ackreq": header.ackreq,
        "checksum_octets": header.checksum_length,
    }
