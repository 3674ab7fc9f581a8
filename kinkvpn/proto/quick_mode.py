"""One Quick Mode transaction, both halves: what is proposed and made of the answer, what is made of a proposal.

2-way: the optimistic proposal is taken and keyed from Ni alone. 3-way: something else is taken, or the responder adds
Nr, or both add a KE; then it asks for an ACK before it sends on the new SA (RFC 4430 §3.2, §6.3). A CREATE
carries any number of them, each in a KINK_ISAKMP payload of its own (§4.2.6, ``proto.create``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from esp.policy import networks_of
from esp.sa import Encapsulation, Endpoint, Lifetime, Mode, SaParameters, SecurityProtocol
from kinkvpn.errors import KinkvpnError
from kinkvpn.proto.events import (
    Count,
    Effect,
    InstallInbound,
    InstallOutbound,
    RemoveInbound,
    RemoveOutbound,
    Tally,
    Tell,
)
from kinkvpn.proto.extensions import use_aggfrag, wants_aggfrag
from kinkvpn.proto.identification import names_selector, show
from kinkvpn.proto.keymat import derive_keymat, prf_of
from kinkvpn.proto.lifetime import aged, answered, answered_seconds, draw_fraction, initiated
from kinkvpn.proto.ports import InvalidPublicValue
from kinkvpn.proto.proposal import PROTOCOLS, Agreement, Refused, Terms, agree, answer, choose, offer, read_terms
from kinkvpn.wire.ipsec_doi import LAST_ERROR_NOTIFY, NotifyType, PayloadType
from kinkvpn.wire.isakmp import (
    Delete,
    Identification,
    IsakmpPayload,
    KeyExchange,
    Nonce,
    Notify,
    SecurityAssociation,
    Unknown,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from kinkvpn.proto.ports import Ephemeral, SessionKey
    from kinkvpn.proto.ports import KeyExchange as KeyExchangeSource
    from kinkvpn.proto.settings import PeerSettings, PolicySettings
    from kinkvpn.wire.ipsec_doi import Group

_Payload = TypeVar("_Payload", bound="IsakmpPayload")

# Ours. Sixteen octets is what the other implementation sends; the KDC's session key carries the entropy (§3.2.1).
NONCE_OCTETS = 16
# SPIs up to 255 are reserved (RFC 4303 §2.1).
_FIRST_SPI = 256
MAX_POLICIES_SHOWN = 4  # in a line of the log, of up to 4096


class RequestFailed(KinkvpnError):
    """The peer answered, authentically, that it will not; it keeps no state of the request."""


class Unanswered(RequestFailed):
    """The peer answered fewer Quick Modes than it was asked for: it takes one of them in a message."""


class KeyExchangeRefused(RequestFailed):
    """The peer does no PFS; it may be asked again without, as another transaction (RFC 4430 §3.2)."""


class AnswerUnusable(KinkvpnError):
    """The peer may have installed what it answered, and the answer cannot be used: it has to be deleted."""


@dataclass(frozen=True, slots=True)
class SaPair:
    """Two SAs, one each way, made by one Quick Mode.

    Args:
        policy: the policy they serve.
        inbound_spi, outbound_spi: ours and the peer's.
        suite: its name.
        initiated: whether this host sent the CREATE, and so rekeys and deletes (RFC 4430 §3.6).
        lifetime: hard, in seconds.
        established: when, on the machine's clock.
        took: seconds from the first transmission of CREATE; 0 for a responder.
        pfs: the group that its keys come from beside the ticket's; empty without PFS.
        esn: its sequence numbers are extended.
        protocol: ESP, or AH.
    """

    policy: str
    inbound_spi: int
    outbound_spi: int
    suite: str
    initiated: bool
    lifetime: int
    established: float
    took: float = 0.0
    pfs: str = ""
    esn: bool = False
    protocol: SecurityProtocol = SecurityProtocol.ESP

    def told(self, peer: str) -> Tell:
        """That it stands, for the operator."""
        fields: tuple[tuple[str, str | float], ...] = (
            ("peer", peer),
            ("policy", self.policy),
            ("role", "initiator" if self.initiated else "responder"),
            ("suite", self.suite),
            ("spi_in", f"{self.inbound_spi:#010x}"),
            ("spi_out", f"{self.outbound_spi:#010x}"),
            ("seconds", round(self.took, 4)),
        )
        added = (("pfs", self.pfs),) if self.pfs else ()
        return Tell("sa_established", (*fields, *added, ("esn", "yes" if self.esn else "no")))


def _only(payloads: Sequence[IsakmpPayload], kind: type[_Payload], name: str) -> _Payload:
    found = [payload for payload in payloads if isinstance(payload, kind)]
    if len(found) != 1:
        raise Refused(NotifyType.PAYLOAD_MALFORMED, f"{len(found)} {name} payloads where there must be one")
    return found[0]


def _identifications(payloads: Sequence[IsakmpPayload]) -> tuple[Identification, Identification] | None:
    found = [payload for payload in payloads if isinstance(payload, Identification)]
    if len(found) not in (0, 2):
        raise Refused(NotifyType.PAYLOAD_MALFORMED, f"{len(found)} ID payloads where there must be none or two")
    return (found[0], found[1]) if found else None


def _parameters(
    peer: PeerSettings, policy: PolicySettings, spi: int, terms: Terms, keymat: bytes, remote: Endpoint, life: Lifetime
) -> SaParameters:
    return SaParameters(
        spi=spi,
        suite=terms.suite,
        legacy=policy.legacy,
        keymat=keymat,
        policy=policy.name,
        selector=policy.selector,
        remote=remote if terms.encapsulation is Encapsulation.UDP else Endpoint(remote.address, 0),
        lifetime=life,
        mode=terms.mode,
        encapsulation=terms.encapsulation,
        replay_window=policy.replay_window,
        esn=terms.esn,
        confidentiality=policy.confidentiality,
        aggregation=policy.aggregation,
        headers=policy.headers,
        protocol=terms.protocol,
        local=_local(peer, policy, terms) if terms.protocol is SecurityProtocol.AH else "",
    )


def _local(peer: PeerSettings, policy: PolicySettings, terms: Terms) -> str:
    """The address that AH covers as the source of what this host sends: in transport mode the packets' own."""
    if terms.mode is Mode.TRANSPORT:
        return str(networks_of(policy.selector.local)[0].network_address)
    return peer.local


def _aggfrag(policy: PolicySettings, spi: int) -> tuple[Notify, ...]:
    return () if policy.aggregation is None else (use_aggfrag(spi),)


class QuickMode:
    """The initiator's half.

    Args:
        peer: whom to negotiate with.
        policy: what for.
        spi: our inbound SPI, reserved for this transaction.
        nonce: Ni, random.
        fraction: uniform in [0, 1), spreads the soft lifetime.
        taken: SPIs that the peer may not name at a given time: of its other pairs, or just deleted.
        ephemeral: our half of a key exchange, for PFS.
    """

    def __init__(
        self,
        peer: PeerSettings,
        policy: PolicySettings,
        *,
        spi: int,
        nonce: bytes,
        fraction: float,
        taken: Callable[[float], Collection[int]],
        ephemeral: Ephemeral | None = None,
    ) -> None:
        self.peer = peer
        self.policy = policy
        self.spi = spi
        self.pair: SaPair | None = None
        # Why this one came to nothing, where the answer says it of this one; None while there is no answer.
        self.failure: RequestFailed | AnswerUnusable | None = None
        self.unwanted = False  # its policy is another by now, or gone: whatever the peer makes of it is deleted
        self._fraction = fraction
        self._taken = taken
        self._nonce = nonce
        self._ephemeral = ephemeral
        self._ke = () if ephemeral is None else (KeyExchange(ephemeral.public),)
        self._offer = offer(policy, spi.to_bytes(4, "big"), None if ephemeral is None else ephemeral.group)
        self._started = 0.0

    def payloads(self) -> tuple[IsakmpPayload, ...]:
        """SA, Ni, [KE], [IDci, IDcr], [N] (RFC 4430 §6.3)."""
        ids = self.policy.ids if self.policy.send_ids else ()
        return (self._offer, Nonce(self._nonce), *self._ke, *ids, *_aggfrag(self.policy, self.spi))

    def begin(self, key: SessionKey, now: float) -> list[Effect]:
        """Install the inbound SA of the optimistic proposal before anything is sent (RFC 4430 §3.2 step 1)."""
        self._started = now
        if self.unwanted:
            return []
        if self._ke:
            return []  # "A creates an optimistic inbound SA unless using a KE": there is no key for it yet
        terms = read_terms(self._offer.proposals[0].transforms[0], self.policy.protocol)
        assert terms is not None  # what we offer means something to us
        return [InstallInbound(self._sa(key, self.spi, terms, (b"", b""), None))]

    def complete(
        self, payloads: tuple[IsakmpPayload, ...], *, key: SessionKey, now: float, used: Collection[int] = ()
    ) -> list[Effect]:
        """Make the pair from an authentic answer.

        Args:
            payloads: of one KINK_ISAKMP payload of the REPLY.
            key: session key of our ticket.
            now: seconds.
            used: SPIs that the peer has named for others of the same REPLY.

        Raises:
            RequestFailed: the peer refuses.
            AnswerUnusable: the peer's answer does not keep to the offer, or is about what is wanted no more.
        """
        if self.unwanted:
            raise AnswerUnusable("its policy was changed meanwhile")
        if self._ke and _refuses_ke(payloads):
            raise KeyExchangeRefused("the peer does no PFS (INVALID-PAYLOAD-TYPE for KE)")
        refuse_on_error_notify(payloads)
        try:
            agreement = agree(self._offer, _only(payloads, SecurityAssociation, "SA"))
            outbound_spi = _free_spi(agreement, {*self._taken(now), *used})
            responder_nonce = self._responder_nonce(payloads)
            self._same_identifications(payloads)
            if self.policy.aggregation is not None and not wants_aggfrag(payloads):
                reason = f"the peer does no IP-TFS, which policy {self.policy.name} is for: both ends need iptfs_rate"
                raise Refused(NotifyType.NO_PROPOSAL_CHOSEN, reason)
            secret = self._shared_secret(payloads)
        except (Refused, InvalidPublicValue) as mismatch:
            raise AnswerUnusable(str(mismatch)) from mismatch
        terms = agreement.terms
        hard = terms.seconds or self.policy.lifetime_seconds
        took = now - self._started
        added = responder_nonce, secret
        inbound, outbound = (self._sa(key, spi, terms, added, self._fraction) for spi in (self.spi, outbound_spi))
        pfs = "" if terms.group is None else terms.group.label
        self.pair = SaPair(
            self.policy.name,
            self.spi,
            outbound_spi,
            terms.suite.name,
            True,
            hard,
            now,
            took,
            pfs,
            terms.esn,
            terms.protocol,
        )
        counted = [Count(Tally.KEY_EXCHANGES)] if secret else []
        return [*counted, InstallInbound(inbound), InstallOutbound(aged(outbound, took))]

    def forget(self) -> None:
        """It is over: the private key of its key exchange goes."""
        self._ephemeral = None

    def withdraw(self) -> list[Effect]:
        """Undo ``begin``: nobody will answer on this SPI."""
        return [RemoveInbound(self.spi)]

    def _responder_nonce(self, payloads: tuple[IsakmpPayload, ...]) -> bytes:
        nonces = [payload.value for payload in payloads if isinstance(payload, Nonce)]
        if len(nonces) > 1:
            raise Refused(NotifyType.PAYLOAD_MALFORMED, "more than one Nr")
        # Nr without ACKREQ breaks §6.3, but its sender still waits for an ACK: Initiator sends one for any Nr.
        return nonces[0] if nonces else b""

    def _shared_secret(self, payloads: tuple[IsakmpPayload, ...]) -> bytes:
        if self._ephemeral is None:
            if any(isinstance(payload, KeyExchange) for payload in payloads):
                raise Refused(NotifyType.PAYLOAD_MALFORMED, "a KE payload in the answer to none of ours")
            return b""
        return self._ephemeral.shared_secret(_only(payloads, KeyExchange, "KE").public_value)

    def _same_identifications(self, payloads: tuple[IsakmpPayload, ...]) -> None:
        ids = _identifications(payloads)
        if ids is not None and ids != self.policy.ids:
            raise Refused(NotifyType.PAYLOAD_MALFORMED, "other selectors (IDci, IDcr) than we asked for")

    def _sa(
        self, key: SessionKey, spi: int, terms: Terms, added: tuple[bytes, bytes], fraction: float | None
    ) -> SaParameters:
        keymat = _keymat(key, self.peer, spi, terms, self._nonce, *added)
        life = initiated(self.policy, terms, fraction)
        return _parameters(self.peer, self.policy, spi, terms, keymat, self.peer.esp, life)


def _keymat(key: SessionKey, peer: PeerSettings, spi: int, terms: Terms, ni: bytes, nr: bytes, secret: bytes) -> bytes:
    return derive_keymat(
        prf_of(key, peer.prf),
        protocol=PROTOCOLS[terms.protocol],
        spi=spi.to_bytes(4, "big"),
        initiator_nonce=ni,
        responder_nonce=nr,
        shared_secret=secret,
        octets=terms.suite.keymat_octets,
    )


def _refuses_ke(payloads: tuple[IsakmpPayload, ...]) -> bool:
    """INVALID-PAYLOAD-TYPE, with the type of KE as its data (RFC 4430 §3.2, §5.5)."""
    return any(
        isinstance(payload, Notify)
        and payload.type == NotifyType.INVALID_PAYLOAD_TYPE
        and payload.value == bytes([PayloadType.KE])
        for payload in payloads
    )


def refuse_on_error_notify(payloads: tuple[IsakmpPayload, ...]) -> None:
    """Any error notify in a response, known or not, fails the whole transaction (RFC 4430 §5.5).

    Raises:
        RequestFailed: naming it.
        AnswerUnusable: INVALID-SPI, which says that the peer holds something under our SPI (RFC 4430 §3.2).
    """
    for payload in payloads:
        if isinstance(payload, Notify) and payload.type == NotifyType.INVALID_SPI:
            # It has a pair under our SPI: made from a transmission whose REPLY was lost, before Kerberos refused the
            # next one. Only a DELETE gets rid of it.
            raise AnswerUnusable(f"the peer answers {notify_name(payload.type)}")
        if isinstance(payload, Notify) and payload.type <= LAST_ERROR_NOTIFY:
            raise RequestFailed(f"the peer answers {notify_name(payload.type)}{_ADVICE.get(payload.type, '')}")


# A notify says no more than its number; the reason is known to the other end alone.
_ADVICE: dict[int, str] = {
    NotifyType.NO_PROPOSAL_CHOSEN: ": no policy of its own has these subnets, suites, mode and encapsulation; its log "
    "says what it has"
}


def notify_name(number: int) -> str:
    """The registry's name of a notify type, or its number."""
    try:
        return NotifyType(number).name.replace("_", "-")
    except ValueError:
        return f"notify {number}"


class QuickModeAnswer(NamedTuple):
    """The responder's half, worked out.

    Args:
        payloads: of the KINK_ISAKMP payload in the REPLY.
        three_way: whether the initiator must ACK before ``outbound`` is installed (RFC 4430 §3.2).
        inbound, outbound: the SAs to install.
        pair: what stands when all of it is done.
        key_exchanges: how many secrets were computed for it.
    """

    payloads: tuple[IsakmpPayload, ...]
    three_way: bool
    inbound: InstallInbound
    outbound: InstallOutbound
    pair: SaPair
    key_exchanges: int = 0


def answer_quick_mode(
    payloads: tuple[IsakmpPayload, ...],
    *,
    peer: PeerSettings,
    remote: str,
    key: SessionKey,
    taken: Collection[int],
    allocate_spi: Callable[[], int],
    random: Callable[[int], bytes],
    now: float,
    key_exchange: KeyExchangeSource | None = None,
) -> QuickModeAnswer:
    """Choose, key and install (RFC 4430 §3.2, §6.3).

    Args:
        payloads: of one KINK_ISAKMP payload of the CREATE.
        peer: the authenticated initiator.
        remote: its address, as the CREATE came.
        key: session key of its ticket.
        taken: SPIs that the peer may not name (installed already, or just deleted).
        allocate_spi: reserves an inbound SPI here.
        key_exchange: makes private keys for PFS; None where this host does none.

    Raises:
        Refused: with the notify to answer.
    """
    _only_known(payloads)
    offered = _only(payloads, SecurityAssociation, "SA")
    ni = _only(payloads, Nonce, "Ni").value
    policy = _policy_for(peer, _identifications(payloads))
    if policy.aggregation is not None and not wants_aggfrag(payloads):
        reason = f"the peer asks for no IP-TFS, which policy {policy.name} is for: both ends need iptfs_rate"
        raise Refused(NotifyType.NO_PROPOSAL_CHOSEN, reason)
    ke = _ke_for(policy, payloads, supported=key_exchange is not None)
    agreement = choose(offered, policy, pfs=ke is not None)
    esp = peer.esp if remote == peer.esp.address else Endpoint(remote, peer.esp.port)
    _check_addresses(peer, policy, agreement.terms, esp)
    outbound_spi = _free_spi(agreement, taken)
    # The dear part comes last: for a peer that may ask for it, and for a CREATE that is otherwise good (§2).
    ours, secret = _exchange(ke, agreement.terms.group, key_exchange)
    # "When and only when the initiator uses a KE payload, 3-way handshake is expected from the beginning" (§3.2).
    three_way = policy.responder_nonce or not agreement.optimistic or bool(secret)
    nr = random(NONCE_OCTETS) if three_way else b""
    hard = answered_seconds(policy, agreement.terms)
    life = answered(policy, agreement.terms, draw_fraction(random))
    spi = allocate_spi()
    inbound, outbound = (
        _parameters(
            peer,
            policy,
            number,
            agreement.terms,
            _keymat(key, peer, number, agreement.terms, ni, nr, secret),
            esp,
            life,
        )
        for number in (spi, outbound_spi)
    )
    sa = answer(agreement, spi.to_bytes(4, "big"), policy)
    ids = tuple(payload for payload in payloads if isinstance(payload, Identification))
    pfs = "" if agreement.terms.group is None else agreement.terms.group.label
    return QuickModeAnswer(
        payloads=(sa, *((Nonce(nr),) if nr else ()), *ours, *ids, *_aggfrag(policy, spi)),
        three_way=three_way,
        key_exchanges=len(ours),
        inbound=InstallInbound(inbound),
        outbound=InstallOutbound(outbound),
        pair=SaPair(
            policy.name,
            spi,
            outbound_spi,
            agreement.terms.suite.name,
            False,
            hard,
            now,
            pfs=pfs,
            esn=agreement.terms.esn,
            protocol=agreement.terms.protocol,
        ),
    )


def _check_addresses(peer: PeerSettings, policy: PolicySettings, terms: Terms, remote: Endpoint) -> None:
    """AH covers both outer addresses: a command may come over the other family, and no SA can."""
    if terms.protocol is SecurityProtocol.AH:
        local = _local(peer, policy, terms)
        if Endpoint(local, 0).version != remote.version:
            reason = f"AH from {local} to {remote.address}, which are of two address families"
            raise Refused(NotifyType.NO_PROPOSAL_CHOSEN, reason)


def _free_spi(agreement: Agreement, taken: Collection[int]) -> int:
    """The peer's SPI as a number; it must not be one that it gave another pair (RFC 4430 §3.2)."""
    spi = int.from_bytes(agreement.proposal.spi, "big")
    if spi in taken or spi < _FIRST_SPI:
        reason = f"SPI {spi:#010x} is not free: in use, just deleted, or reserved"
        raise Refused(NotifyType.INVALID_SPI, reason, spi=agreement.proposal.spi)
    return spi


def _only_known(payloads: tuple[IsakmpPayload, ...]) -> None:
    for payload in payloads:
        if isinstance(payload, Unknown):
            raise Refused(
                NotifyType.INVALID_PAYLOAD_TYPE, f"ISAKMP payload type {payload.type}", value=bytes([payload.type])
            )
        if isinstance(payload, Delete):
            raise Refused(NotifyType.PAYLOAD_MALFORMED, "a Delete payload in CREATE")


def _ke_for(policy: PolicySettings, payloads: tuple[IsakmpPayload, ...], *, supported: bool) -> KeyExchange | None:
    """The KE payload, where there is one and PFS is done; none where none has to be."""
    if not any(isinstance(payload, KeyExchange) for payload in payloads):
        if policy.pfs_required:
            reason = f"the peer asks for no PFS, and policy {policy.name} requires it"
            raise Refused(NotifyType.NO_PROPOSAL_CHOSEN, reason)
        return None
    if not (policy.pfs and supported):
        # The initiator may come again without KE (RFC 4430 §3.2).
        reason = f"the peer asks for PFS, and policy {policy.name} has none"
        raise Refused(NotifyType.INVALID_PAYLOAD_TYPE, reason, value=bytes([PayloadType.KE]))
    return _only(payloads, KeyExchange, "KE")


def _exchange(
    ke: KeyExchange | None, group: Group | None, source: KeyExchangeSource | None
) -> tuple[tuple[KeyExchange, ...], bytes]:
    """Our KE payload and g(qm)^xy; the private key lives no longer than this call."""
    if ke is None or group is None or source is None:
        return (), b""
    ephemeral = source.generate(group)
    try:
        secret = ephemeral.shared_secret(ke.public_value)
    except InvalidPublicValue as invalid:
        raise Refused(NotifyType.PAYLOAD_MALFORMED, f"KE of the peer: {invalid}") from invalid
    return (KeyExchange(ephemeral.public),), secret


def _policy_for(peer: PeerSettings, ids: tuple[Identification, Identification] | None) -> PolicySettings:
    if ids is None:
        # The other implementation sends none, even in tunnel mode: the principal says which policy it is.
        return peer.policies[0]
    theirs = ids[1], ids[0]
    for policy in peer.policies:
        if policy.ids == theirs:  # nearly always: spelled as we would
            return policy
    for policy in peer.policies:
        if names_selector(policy.selector, *ids):
            return policy
    shown = [f"{policy.selector.local} <-> {policy.selector.remote}" for policy in peer.policies[:MAX_POLICIES_SHOWN]]
    shown += [f"{len(peer.policies) - len(shown)} more"] if len(peer.policies) > len(shown) else []
    raise Refused(
        NotifyType.NO_PROPOSAL_CHOSEN,
        f"peer {peer.name} asks for {show(theirs[0])} <-> {show(theirs[1])}, which none of its policies is for "
        f"({', '.join(shown)})",
    )


def teardown(pair: SaPair) -> list[Effect]:
    """Remove both SAs at once."""
    return [RemoveOutbound(pair.policy, pair.outbound_spi), RemoveInbound(pair.inbound_spi)]


def moved(pair: SaPair, now: float) -> SaPair:
    """The pair as established at ``now``: a responder's counts from the ACK."""
    return replace(pair, established=now)
