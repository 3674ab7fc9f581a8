"""What an operator decided about peers, as the machines use it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from esp.headers import DEFAULT_RULES, HeaderRules
from esp.sa import Aggregation, Confidentiality, Encapsulation, Mode, SecurityProtocol
from esp.suite import DEFAULT_SUITES, Suite
from kinkvpn.proto.identification import identifications_of
from kinkvpn.proto.retransmit import FULL_CYCLE
from kinkvpn.proto.whereabouts import KinkOver

if TYPE_CHECKING:
    from esp.policy import Selector
    from esp.sa import Endpoint
    from kinkvpn.proto.lease import Lease
    from kinkvpn.wire.ipsec_doi import Group
    from kinkvpn.wire.isakmp import Identification


class Start(Enum):
    """When a policy's SAs are negotiated."""

    BOOT = "boot"
    DEMAND = "demand"


class UserToUser(Enum):
    """When tickets for a peer are user-to-user ones (RFC 4430 §3.1)."""

    AUTO = "auto"  # when the peer or the KDC asks for it
    ALWAYS = "always"
    NEVER = "never"


class PrfForm(Enum):
    """Which PRF keys the SAs for enctypes 17 and 18 (docs: decisions)."""

    RFC3961 = "rfc3961"
    RFC3962_LITERAL = "rfc3962-literal"


class Esn(Enum):
    """Whether sequence numbers are extended (RFC 4304, RFC 4303 §2.2.1)."""

    AUTO = "auto"  # offered first, then without; either is accepted
    ALWAYS = "always"
    NEVER = "never"

    def allows(self, extended: bool) -> bool:
        """Whether an SA may be so."""
        return self is Esn.AUTO or extended is (self is Esn.ALWAYS)


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """One pair of SAs to keep.

    ``lifetime_seconds`` and ``lifetime_kilobytes`` are the hard ones that we offer and the most we accept; no message
    has a word for packets, so ``lifetime_packets`` is known here alone. None is no limit, but for the counter's.
    """

    name: str
    selector: Selector
    suites: tuple[Suite, ...] = DEFAULT_SUITES
    legacy: bool = False  # ``suites`` may hold such; whoever configured it has been told what they cost
    protocol: SecurityProtocol = SecurityProtocol.ESP
    mode: Mode = Mode.TUNNEL
    encapsulation: Encapsulation = Encapsulation.UDP
    lifetime_seconds: int = 28800
    lifetime_kilobytes: int | None = None
    lifetime_packets: int | None = None
    replay_window: int = 8192
    esn: Esn = Esn.AUTO
    start: Start = Start.DEMAND
    pfs: tuple[Group, ...] = ()  # groups of KE payloads: the first is offered, all are accepted; none is no PFS
    confidentiality: Confidentiality | None = None  # padding and dummies of what we send
    # AGGFRAG payloads both ways, each side at a rate of its own; no pair with a peer that does not want the same.
    aggregation: Aggregation | None = None
    headers: HeaderRules = DEFAULT_RULES
    pfs_required: bool = False  # no pair without: no retry without KE, no answer to a CREATE without
    responder_nonce: bool = False  # always add Nr when responding: a 3-way handshake (RFC 4430 §3.2.1)
    entry: str = ""  # a packet for one policy of it brings the others along; empty for one by itself
    send_ids: bool = True  # IDci, IDcr in CREATE; off for a peer that knows its selectors by principal
    # The selector's IDci and IDcr in a CREATE of ours; turned about, in the peer's.
    ids: tuple[Identification, Identification] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Spell the selector out once, not in every CREATE."""
        object.__setattr__(self, "ids", identifications_of(self.selector, initiator=True))


@dataclass(frozen=True, slots=True)
class PeerSettings:
    """A peer, its principal, where it is, and what it may do here (RFC 4430 §10).

    ``kink`` and ``esp`` have an empty address where none is configured: such a peer is answered, and known once heard.
    """

    name: str
    principal: str
    kink: Endpoint
    esp: Endpoint
    policies: tuple[PolicySettings, ...]
    prf: PrfForm = PrfForm.RFC3961
    sas_per_create: int = 16  # pairs asked for in one CREATE at most; 1 for a peer that reads one KINK_ISAKMP payload
    user_to_user: UserToUser = UserToUser.AUTO
    delete_grace: float = 5.0  # seconds that an inbound SA outlives its DELETE (RFC 4430 §3.3)
    kink_over: KinkOver = KinkOver.AUTO
    # Ours (RFC 4430 §3.7 leaves both to each peer). Ten seconds: TCP has sent its packet again three times by then, and
    # a living peer with nothing to say costs an exchange in ten seconds at most.
    probe_after: float | None = 10.0  # seconds that packets go out and nothing comes back; None never probes
    dead_after: float = FULL_CYCLE  # seconds that a probe goes unanswered
    local: str = ""  # this host's outer address towards it, where AH in tunnel mode has to cover it
    extensions: bool = True  # docs/extensions.md; off for a peer that is to see nothing but RFC 4430
    path_probe: bool = True  # try what the path carries (RFC 8899)
    lease: Lease | None = None  # what it is lent if it asks
    machine: bytes = b""  # which of its principal's machines this is, of those that say so; of people only

    @property
    def tries_path(self) -> bool:
        """Whether it is done: by an extension, and on the ESP port."""
        return self.path_probe and self.extensions and self.kink_over is not KinkOver.KINK_PORT
