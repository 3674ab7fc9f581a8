"""Peers and what is protected with each: [[peer]] and [[peer.policy]]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from esp.sa import Endpoint, Mode, SecurityProtocol
from kinkvpn import values
from kinkvpn.config.esp import ESP_PORT
from kinkvpn.config.kink import KINK_PORT
from kinkvpn.options import Options, read_options
from kinkvpn.proto.create import MAX_QUICK_MODES
from kinkvpn.proto.retransmit import FULL_CYCLE
from kinkvpn.proto.settings import Esn, PeerSettings, PolicySettings, PrfForm, Start, UserToUser
from kinkvpn.proto.whereabouts import KinkOver
from kinkvpn.traffic import MAXIMUM_POLICIES, check_hosts, read_selectors

if TYPE_CHECKING:
    from esp.policy import Selector
    from kinkvpn.config.claims import Claims
    from kinkvpn.config.kink import KinkSettings
    from kinkvpn.document import Table

# ours
MAXIMUM_SILENCE = 3600  # seconds; a peer that may be dead for longer than an hour need not be watched


@dataclass(frozen=True, slots=True)
class PeerConfiguration:
    """A peer as it was written down: ``address`` may still be a DNS name, and is empty where there is none."""

    name: str
    principal: str
    address: str
    port: int
    esp_port: int
    prf: PrfForm
    user_to_user: UserToUser
    delete_grace: float
    kink_over: KinkOver
    extensions: bool
    sas_per_create: int
    probe_after: float | None
    dead_after: float
    path_probe: bool
    policies: tuple[PolicySettings, ...]

    def settings(self, address: str) -> PeerSettings:
        """What the machines use, with ``address`` in text form, IPv4 or IPv6, or empty."""
        return PeerSettings(
            name=self.name,
            principal=self.principal,
            kink=Endpoint(address, self.port),
            esp=Endpoint(address, self.esp_port),
            policies=self.policies,
            prf=self.prf,
            user_to_user=self.user_to_user,
            delete_grace=self.delete_grace,
            kink_over=self.kink_over,
            extensions=self.extensions,
            sas_per_create=self.sas_per_create,
            probe_after=self.probe_after,
            dead_after=self.dead_after,
            path_probe=self.path_probe,
        )


def read_peer(table: Table, claims: Claims, kink: KinkSettings, realm: str = "") -> PeerConfiguration:
    """One [[peer]]; what it and its policies have for themselves alone is claimed.

    Args:
        realm: this host's, and so that of a peer of whose principal nothing is said.
    """
    address = table.get("address", values.host_address, "")
    principal = _principal(table, address, realm)
    name = _name(table, address, principal)
    claims.claim(table, "name", name)
    namespace = name if table.sound else table.name  # what follows from a bad name is not worth a line of its own
    extensions = table.get("extensions", values.boolean, True)
    peer = PeerConfiguration(
        name=name,
        principal=principal,
        address=address,
        port=table.get("port", values.port, KINK_PORT),
        esp_port=table.get("esp_port", values.port, ESP_PORT),
        prf=table.get("prf", values.one_of(PrfForm), PrfForm.RFC3961),
        user_to_user=table.get("user_to_user", values.one_of(UserToUser), UserToUser.AUTO),
        delete_grace=table.get("delete_grace", values.seconds(0, 300), 5.0),
        kink_over=table.get("kink_over", values.one_of(KinkOver), kink.over),
        extensions=extensions,
        sas_per_create=table.get("sas_per_create", values.integer(1, MAX_QUICK_MODES), MAX_QUICK_MODES),
        # 0 has a meaning of its own: never.
        probe_after=table.get("probe_after", values.seconds(0, MAXIMUM_SILENCE), 10.0) or None,
        dead_after=table.get("dead_after", values.seconds(1, MAXIMUM_SILENCE), FULL_CYCLE),
        path_probe=table.get("path_probe", values.boolean, True),
        policies=_policies(table, namespace, claims, extensions=extensions),
    )
    _check_reachable(table, peer, kink)
    claims.claim(table, "principal", peer.principal, f"peer {peer.name}")
    claims.claim(table, "address", Endpoint(peer.address, peer.port), f"peer {peer.name}")
    table.close()
    return peer


def _principal(table: Table, address: str, realm: str) -> str:
    """As it was written, or that of the service at the peer's host name (RFC 4430 §4.2.1: in lower case)."""
    found = follows_from(address, realm)
    if "principal" not in table and found:
        table.get("principal", values.principal, "")
        return found
    return table.require("principal", values.principal, "", "one such as kink/gw.example.com@EXAMPLE.COM")


def follows_from(address: str, realm: str) -> str:
    """The principal of the service at ``address``; empty where that is no name of a host, or the realm not known."""
    return f"kink/{address.removesuffix('.')}@{realm}" if realm and _is_name(address) else ""


def _name(table: Table, address: str, principal: str) -> str:
    """As it was written, or the first label of the peer's host name, in its address or its principal."""
    instance = principal.rpartition("@")[0].partition("/")[2]
    host = next((each for each in (address, instance) if _is_name(each)), "")
    if "name" not in table and host:
        table.get("name", values.label, "")
        return host.partition(".")[0]
    return table.require("name", values.label, "", 'a short name for this peer, such as name = "gw"')


def _is_name(host: str) -> bool:
    """Of a host, and no address of it: those have digits alone in the last label, or colons (RFC 1123 §2.1)."""
    return bool(host) and ":" not in host and "/" not in host and not host.rpartition(".")[2].isdigit()


def _check_reachable(table: Table, peer: PeerConfiguration, kink: KinkSettings) -> None:
    """What cannot come about: nothing is sent to who has no address, nor from a port that is not bound."""
    booted = any(policy.start is Start.BOOT for policy in peer.policies)
    if "address" not in table and booted:
        table.report(f'{table.name}.address is missing: expected one, for start = "boot" sends the first message there')
    covered = any(each.protocol is SecurityProtocol.AH and each.mode is Mode.TUNNEL for each in peer.policies)
    if "address" not in table and covered:
        table.report(f'{table.name}.address is missing: expected one, for ipsec = "ah" covers the way there')
    if not peer.extensions and any(policy.aggregation for policy in peer.policies):
        table.report_value(("extensions",), False, "true, for iptfs_rate is agreed on by an extension")
    if kink.over is KinkOver.ESP_PORT and peer.kink_over is KinkOver.KINK_PORT:
        expected = '"auto" or "4500", for kink.over = "4500" opens no port 910'
        table.report_value(("kink_over",), peer.kink_over.value, expected)


def _policies(table: Table, peer: str, claims: Claims, *, extensions: bool) -> tuple[PolicySettings, ...]:
    """One policy per pair of subnets of one family."""
    # Attribute 11 is none of RFC 4430 §5.1, which is all that a peer without extensions is to see.
    inherited = read_options(table, Options(esn=Esn.AUTO if extensions else Esn.NEVER))
    send_ids = table.get("send_ids", values.boolean, True)
    entries = table.tables("policy")
    if not entries and ("local" in table or "remote" in table):
        entries = [table]  # which says by itself what its one policy is about
    elif not entries and table.sound:
        table.report(f"{table.name}.policy is missing: expected local and remote, or at least one [[peer.policy]]")
    policies: list[PolicySettings] = []
    for index, entry in enumerate(entries, 1):
        options = inherited if entry is table else read_options(entry, inherited)
        given = "" if entry is table else entry.get("name", values.label, "")
        selectors = read_selectors(entry, MAXIMUM_POLICIES - len(claims.policies))
        if options.mode is Mode.TRANSPORT:
            check_hosts(entry, selectors)
        if entry is not table:
            entry.close()
        for number, selector in enumerate(selectors, 1):
            own = f"{given}/{number}" if len(selectors) > 1 else given
            name = own if given else f"{peer}/{len(policies) + 1}"
            together = f"{peer}.policy[{index}]" if options.together else ""
            policy = _policy(name, selector, options, send_ids=send_ids, entry=together)
            claims.claim(entry, "name", policy.name, kind="policy")
            claims.policies.append((policy, entry))
            policies.append(policy)
    return tuple(policies)


def _policy(name: str, selector: Selector, options: Options, *, send_ids: bool, entry: str) -> PolicySettings:
    return PolicySettings(
        name=name,
        selector=selector,
        suites=options.suites,
        legacy=options.legacy,
        protocol=options.ipsec,
        mode=options.mode,
        encapsulation=options.encapsulation,
        lifetime_seconds=options.lifetime,
        lifetime_kilobytes=options.lifetime_kilobytes,
        lifetime_packets=options.lifetime_packets,
        replay_window=options.replay_window,
        esn=options.esn if options.replay_window else Esn.NEVER,
        start=options.start,
        confidentiality=options.shape.confidentiality(),
        aggregation=options.shape.aggregation(),
        headers=options.headers,
        pfs=options.pfs,
        pfs_required=options.pfs_required,
        responder_nonce=options.responder_nonce,
        send_ids=send_ids,
        entry=entry,
    )
