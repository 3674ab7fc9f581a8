"""What the API answers, as types: the checker holds the daemon to them, and the OpenAPI document is made from them.

Times are in seconds: ages are seconds ago, what lies ahead is seconds from now. What is null is not known, or is not.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypedDict

from msgspec import Meta

State = Literal["established", "negotiating", "down"]
EngineName = Annotated[str, Meta(pattern="^(native|portable)$")]
Seconds = Annotated[float, Meta(description="seconds")]
Spi = Annotated[str, Meta(pattern="^0x[0-9a-f]{8}$", description="security parameters index (RFC 4303 §2.1)")]
Count = Annotated[int, Meta(ge=0)]


class Tun(TypedDict):
    """The packet device."""

    name: str
    mtu: int
    addresses: list[str]


class Listeners(TypedDict):
    """Where datagrams are received: address and port."""

    kink: list[str]
    esp: list[str]


class Tickets(TypedDict):
    """Kerberos tickets at hand, should the KDC go."""

    kept: Count
    first_ends: Seconds | None
    not_renewed: Count
    ends: Annotated[dict[str, float], Meta(description="POSIX seconds by server, of those that are renewed")]


class Extensions(TypedDict):
    """What a peer and this host have told each other beyond RFC 4430; null where nobody has said anything."""

    capabilities: list[str] | None
    plain: bool
    seen_at: Annotated[str | None, Meta(description="where the peer sees this host")]
    seen_marked: bool | None
    behind_nat: bool | None
    peer_behind_nat: bool | None
    peer_inner_mtu: int | None
    inner_mtu: int | None


class NegotiatedPolicy(TypedDict):
    """A policy, and the newest of its pairs of SAs."""

    name: str
    local: str
    remote: str
    start: Annotated[str, Meta(pattern="^(boot|demand)$")]
    ipsec: Annotated[str, Meta(pattern="^(esp|ah)$")]
    mode: Annotated[str, Meta(pattern="^(tunnel|transport)$")]
    encapsulation: Annotated[str, Meta(pattern="^(udp|raw)$")]
    state: State
    waits_for: Annotated[str, Meta(pattern="^(kdc|peer)$")] | None
    pairs: Count
    spi_in: Spi | None
    spi_out: Spi | None
    suite: str | None
    pfs: str | None
    esn: bool | None
    tfc_wanted: int | None
    iptfs_rate: float | None
    iptfs_wanted: int | None
    role: Literal["initiator", "responder"] | None
    since: Seconds | None
    lifetime: Seconds | None
    create_ms: Annotated[float | None, Meta(description="milliseconds that the newest CREATE of ours took")]
    failures: Count
    last_error: str
    next_try: Seconds | None


class PolicyTraffic(TypedDict):
    """What the SAs of a policy have carried since the start, those that were replaced included."""

    packets_in: Count
    octets_in: Count
    packets_out: Count
    octets_out: Count
    iptfs_lost: Count
    held: Annotated[int, Meta(description="packets that wait for an SA")]


class PolicySizes(TypedDict):
    """Octets, of the newest outbound SA; 0 without one, or without what they are about."""

    largest: Annotated[int, Meta(description="octets of the largest packet that goes out in one piece")]
    tfc_octets: Count
    iptfs_octets: Count


class PolicyEngines(TypedDict):
    """Which engine the newest SAs of a policy run in, and why not in the compiled one."""

    engine_in: EngineName | None
    engine_out: EngineName | None
    engine_reason: str | None


class PolicyCarried(PolicyTraffic, PolicySizes, PolicyEngines):
    """What the data plane knows of a policy."""


class Policy(NegotiatedPolicy, PolicyCarried):
    """A policy, the newest of its pairs of SAs, and what it has carried."""


class PolicyOfPeer(Policy):
    """A policy by itself, with whose it is."""

    peer: str


class Peer(TypedDict):
    """A peer: where it is, how things stand with it, and its policies."""

    name: str
    principal: str
    address: str
    esp: str | None
    kink: str | None
    kink_marked: bool | None
    moved: bool
    path_mtu: int | None
    extensions: Extensions
    epoch: int | None
    user_to_user: bool
    last_heard: Seconds | None
    refusal: str | None
    refused: Seconds | None
    state: State
    taken_down: Annotated[bool, Meta(description="by the operator: no SA is made until it is brought up")]
    policies: list[Policy]


class Link(TypedDict):
    """Datagrams that passed the link since the start."""

    esp_received: Count
    control_received: Count
    keepalives_received: Count
    junk_received: Count
    control_sent: Count
    keepalives_sent: Count
    refused: Count


class Latency(TypedDict):
    """How long exchanges took."""

    le: Annotated[dict[str, Count], Meta(description="how many took no longer than so many seconds")]
    count: Count
    sum: Seconds


class Counted(TypedDict):
    """What keying has counted."""

    counters: dict[str, Count]
    labelled: dict[str, dict[str, Count]]
    seconds: dict[str, Latency]


class Counters(TypedDict):
    """Since the start of the daemon: docs/counters.md has every one."""

    kink: dict[str, Count]
    kink_labelled: dict[str, dict[str, Count]]
    kink_seconds: Annotated[dict[str, Latency], Meta(description="by what was asked of peers")]
    drops: dict[str, Count]
    unused_ecn: dict[str, Count]
    packets_out: Count
    octets_out: Count
    packets_in: Count
    octets_in: Count
    link: Link


class Engine(TypedDict):
    """What runs the data plane, and why."""

    engine: EngineName
    engine_reason: str
    ciphers: str
    queues: int


class Status(Engine):
    """Everything."""

    version: str
    pid: int
    principal: str
    uptime: Seconds
    tun: Tun
    offloads: Annotated[dict[str, str | None], Meta(description="null for one in use, or why it is not")]
    key_log: str | None
    listeners: Listeners
    tickets: Tickets
    peers: list[Peer]
    counters: Counters


class Sa(TypedDict):
    """One SA as the data plane has it."""

    peer: str
    policy: str
    spi: Spi
    direction: Literal["in", "out"]
    suite: str
    remote: Annotated[str, Meta(description="the other end's address and port")]
    since: Annotated[Seconds | None, Meta(description="seconds; null for one that waits for its ACK or its end")]
    lifetime: Annotated[Seconds | None, Meta(description="seconds from its beginning to its end, whatever it carries")]
    packets: Count
    octets: Count
    sequence: Annotated[int, Meta(description="the newest sequence number")]
    drops: dict[str, Count]
    lost: Count
    largest: Count
    engine: EngineName
    engine_reason: str


class Peers(TypedDict):
    """Every peer that is configured."""

    peers: list[Peer]


class Policies(TypedDict):
    """The policies of every peer."""

    policies: list[PolicyOfPeer]


class Sas(TypedDict):
    """Every SA."""

    sas: list[Sa]


class Probed(TypedDict):
    """A peer has answered."""

    peer: str
    seconds: Seconds


class Established(TypedDict):
    """What has SAs now."""

    policies: list[NegotiatedPolicy]


class Reloaded(TypedDict):
    """Names of peers, by what has become of each."""

    added: list[str]
    changed: Annotated[list[str], Meta(description="with the SAs that they had, but for policies that are others now")]
    replaced: Annotated[list[str], Meta(description="with another principal or place: nothing of them has stayed")]
    removed: list[str]
    unchanged: list[str]


class Stopping(TypedDict):
    """Whom to wait for."""

    pid: int


class Problem(TypedDict):
    """Why something was not done (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: Annotated[str, Meta(description="one line for whoever asked")]
