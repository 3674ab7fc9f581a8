"""What a policy may say for itself, and its peer for all of its policies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from esp.headers import DEFAULT_RULES, DontFragment, Ecn, HeaderRules
from esp.sa import (
    PAYLOAD_MAX,
    PAYLOAD_MIN,
    RATE_MAX,
    REORDER_MAX,
    Aggregation,
    Confidentiality,
    Encapsulation,
    Mode,
    SecurityProtocol,
)
from esp.suite import DEFAULT_SUITES, SUITES, Cipher, Suite
from kinkvpn import values
from kinkvpn.proto.lifetime import HARD_PACKETS_ESN
from kinkvpn.proto.settings import Esn, Start

if TYPE_CHECKING:
    from kinkvpn.document import Table
    from kinkvpn.wire.ipsec_doi import Group

# Ours.
MINIMUM_LIFETIME = 10  # seconds; a rekey has to fit before it, with its retransmissions
MAXIMUM_LIFETIME = 30 * 86400
# A sixteenth of it has to last for a rekey at full rate: 62 packets or 64 kB are a CREATE's few milliseconds.
MINIMUM_LIFETIME_KILOBYTES = 1024
MAXIMUM_LIFETIME_KILOBYTES = 1 << 40
MINIMUM_LIFETIME_PACKETS = 1000
MAXIMUM_LIFETIME_PACKETS = HARD_PACKETS_ESN
DEFAULT_IPTFS_OCTETS = 1400  # with the widest suite it fits 1500 behind outer IPv6 and UDP
DEFAULT_IPTFS_REORDER = 3  # payloads, as RFC 9347 §2.2.3 suggests
SLOWEST_RATE = 0.1  # payloads a second; slower ones keep no NAT mapping, and a packet would wait for its turn for ever
SOONEST_DUMMY, LATEST_DUMMY = 0.001, 3600  # seconds
MAXIMUM_REPLAY_WINDOW = 1 << 16  # packets: 8 KB of bitmap for one SA


@dataclass(frozen=True, slots=True)
class Shape:
    """What an observer sees of the traffic; zeroes turn things off."""

    tfc_octets: int = 0
    tfc_dummy_after: float = 0.0
    iptfs_rate: float = 0.0
    iptfs_octets: int = DEFAULT_IPTFS_OCTETS
    iptfs_reorder: int = DEFAULT_IPTFS_REORDER

    def confidentiality(self) -> Confidentiality | None:
        """Padding and dummies, if any."""
        return Confidentiality(self.tfc_octets, self.tfc_dummy_after or None) if self.tfc_octets else None

    def aggregation(self) -> Aggregation | None:
        """IP-TFS, if any."""
        return Aggregation(self.iptfs_octets, self.iptfs_rate, self.iptfs_reorder) if self.iptfs_rate else None


# AH encrypts nothing: its suites are those whose cipher is none.
USUAL_SUITES = {SecurityProtocol.ESP: DEFAULT_SUITES, SecurityProtocol.AH: (SUITES["null-sha256"],)}


@dataclass(frozen=True, slots=True)
class Options:
    """What a policy inherits from its peer unless it says otherwise."""

    suites: tuple[Suite, ...] = DEFAULT_SUITES
    legacy: bool = False
    ipsec: SecurityProtocol = SecurityProtocol.ESP
    mode: Mode = Mode.TUNNEL
    encapsulation: Encapsulation = Encapsulation.UDP
    lifetime: int = 28800
    lifetime_kilobytes: int | None = None
    lifetime_packets: int | None = None
    start: Start = Start.DEMAND
    replay_window: int = 8192
    esn: Esn = Esn.AUTO
    shape: Shape = Shape()
    headers: HeaderRules = DEFAULT_RULES
    pfs: tuple[Group, ...] = ()
    pfs_required: bool = False
    responder_nonce: bool = False
    together: bool = False


def _ipsec(table: Table, inherited: Options) -> tuple[SecurityProtocol, Encapsulation]:
    """Which of the two protocols, and what carries it: AH goes without UDP, whose addresses it would cover."""
    ipsec = table.get("ipsec", values.one_of(SecurityProtocol), inherited.ipsec)
    usual = Encapsulation.RAW if ipsec is SecurityProtocol.AH else inherited.encapsulation
    encapsulation = table.get("encapsulation", values.one_of(Encapsulation), usual)
    if ipsec is SecurityProtocol.AH and encapsulation is Encapsulation.UDP:
        table.report_value(("encapsulation",), "udp", '"raw", for ipsec = "ah" covers the addresses outside')
    return ipsec, encapsulation


def _suites(table: Table, inherited: Options, ipsec: SecurityProtocol) -> tuple[tuple[Suite, ...], bool]:
    """Suites, and whether legacy ones may be among them: their names alone do not bring them about."""
    usual = inherited.suites if ipsec is inherited.ipsec else USUAL_SUITES[ipsec]
    suites = table.items("suites", values.suite, usual)
    for suite in suites if ipsec is SecurityProtocol.AH and "suites" in table else ():
        if suite.cipher is not Cipher.NULL:
            expected = 'one that encrypts nothing, such as null-sha256, for ipsec = "ah" does not'
            table.report_value(("suites",), suite.name, expected)
    legacy = table.get("legacy", values.boolean, inherited.legacy)
    written = "suites" if "suites" in table else "legacy"
    for suite in suites if written in table and not legacy else ():
        if suite.legacy:
            shown = suite.name if written == "suites" else legacy
            table.report_value((written,), shown, f"legacy = true beside {suite.name}, knowing that {suite.cost}")
    return suites, legacy


def _pfs(table: Table, inherited: Options) -> tuple[tuple[Group, ...], bool]:
    """Groups, and whether there must be one. A policy undoes what its peer says by ``pfs = "none"``."""
    before: tuple[Group | None, ...] = inherited.pfs
    groups = table.items("pfs", values.pfs, before)
    required = table.get("pfs_required", values.boolean, inherited.pfs_required)
    if None in groups and len(groups) > 1:
        table.report_value(("pfs",), "none", "no group beside it")
    found = tuple(group for group in groups if group is not None)
    written = next((key for key in ("pfs_required", "pfs") if key in table), None)
    if required and not found and written is not None and table.sound:
        if written == "pfs":
            table.report_value(("pfs",), "none", "a group, such as x25519, for pfs_required = true")
        else:
            table.report_value(("pfs_required",), True, 'a group beside it, such as pfs = "x25519"')
    return found, required


def _numbers(table: Table, inherited: Options) -> tuple[int, Esn]:
    """The replay window, and whether numbers are extended: the window tells the half of them that is not sent."""
    window = table.get("replay_window", values.integer(0, MAXIMUM_REPLAY_WINDOW), inherited.replay_window)
    esn = table.get("esn", values.one_of(Esn), inherited.esn)
    written = next((key for key in ("esn", "replay_window") if key in table), None)
    if esn is Esn.ALWAYS and not window and written is not None and table.sound:
        table.report_value((written,), "always" if written == "esn" else 0, 'a replay_window beside esn = "always"')
    return window, esn


def _shape(table: Table, inherited: Shape) -> Shape:
    """What an observer sees of the traffic's sizes and times; 0 turns a thing off that the peer has."""
    octets = values.integer_or_zero(PAYLOAD_MIN, PAYLOAD_MAX)
    shape = Shape(
        tfc_octets=table.get("tfc_octets", octets, inherited.tfc_octets),
        tfc_dummy_after=table.get(
            "tfc_dummy_after", values.zero_or(SOONEST_DUMMY, LATEST_DUMMY, "seconds"), inherited.tfc_dummy_after
        ),
        iptfs_rate=table.get(
            "iptfs_rate", values.zero_or(SLOWEST_RATE, RATE_MAX, "payloads a second"), inherited.iptfs_rate
        ),
        iptfs_octets=table.get("iptfs_octets", values.integer(PAYLOAD_MIN, PAYLOAD_MAX), inherited.iptfs_octets),
        iptfs_reorder=table.get("iptfs_reorder", values.integer(0, REORDER_MAX), inherited.iptfs_reorder),
    )
    if not table.sound:
        return shape
    if shape.tfc_dummy_after and not shape.tfc_octets and "tfc_dummy_after" in table:
        table.report_value(("tfc_dummy_after",), shape.tfc_dummy_after, "tfc_octets beside it, which dummies have too")
    both = next((key for key in ("iptfs_rate", "tfc_octets") if key in table), None)
    if shape.iptfs_rate and shape.tfc_octets and both is not None:
        table.report_value((both,), getattr(shape, both), "one of iptfs_rate and tfc_octets: IP-TFS pads by itself")
    return shape


def _check_shape(table: Table, shape: Shape, mode: Mode, ipsec: SecurityProtocol) -> None:
    """Only whole packets, sealed, have something behind them (RFC 4303 §2.7) or are put together (RFC 9347 §2)."""
    hiding = "tfc_octets" if shape.tfc_octets else "iptfs_rate"
    if not getattr(shape, hiding):
        return
    for key, value, wanted in (("mode", mode, Mode.TUNNEL), ("ipsec", ipsec, SecurityProtocol.ESP)):
        written = next((one for one in (hiding, key) if one in table), None)
        if written and value is not wanted and table.sound:
            table.report_value((written,), table.written(written), f'{key} = "{wanted.value}" beside {hiding}')


def read_headers(table: Table, inherited: HeaderRules) -> HeaderRules:
    """What ``table`` says of outer headers, and what it inherits."""
    return HeaderRules(
        ecn=table.get("ecn", values.one_of(Ecn), inherited.ecn),
        dscp=table.get("dscp", values.dscp, inherited.dscp),
        dscp_inward=table.get("dscp_inward", values.boolean, inherited.dscp_inward),
        df=table.get("df", values.one_of(DontFragment), inherited.df),
        flow_labels=table.get("flow_labels", values.boolean, inherited.flow_labels),
    )


def read_options(table: Table, inherited: Options) -> Options:
    """What ``table``, a peer or a policy, says, and what it inherits where it says nothing."""
    lifetime = values.integer(MINIMUM_LIFETIME, MAXIMUM_LIFETIME)
    kilobytes = values.integer(MINIMUM_LIFETIME_KILOBYTES, MAXIMUM_LIFETIME_KILOBYTES)
    packets = values.integer(MINIMUM_LIFETIME_PACKETS, MAXIMUM_LIFETIME_PACKETS)
    ipsec, encapsulation = _ipsec(table, inherited)
    suites, legacy = _suites(table, inherited, ipsec)
    groups, required = _pfs(table, inherited)
    window, esn = _numbers(table, inherited)
    mode = table.get("mode", values.one_of(Mode), inherited.mode)
    shape = _shape(table, inherited.shape)
    _check_shape(table, shape, mode, ipsec)
    return Options(
        suites=suites,
        legacy=legacy,
        ipsec=ipsec,
        mode=mode,
        encapsulation=encapsulation,
        lifetime=table.get("lifetime", lifetime, inherited.lifetime),
        lifetime_kilobytes=table.get("lifetime_kilobytes", kilobytes, inherited.lifetime_kilobytes),
        lifetime_packets=table.get("lifetime_packets", packets, inherited.lifetime_packets),
        start=table.get("start", values.one_of(Start), inherited.start),
        replay_window=window,
        esn=esn,
        shape=shape,
        headers=read_headers(table, inherited.headers),
        pfs=groups,
        pfs_required=required,
        responder_nonce=table.get("responder_nonce", values.boolean, inherited.responder_nonce),
        together=table.get("together", values.boolean, inherited.together),
    )
