"""What status says of a peer and its policies, and of what the data plane counted, for each policy and in all."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from esp.offload import Grant, Offload, Offloads
from esp.statistics import Carried, SaStatistics
from kinkvpn.proto.extensions import UNDERSTOOD, Capability

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from esp.dataplane import LinkStatistics
    from esp.sa import Endpoint
    from esp.statistics import Statistics
    from kinkvpn.proto.peer import Peer


def peer_status(peer: Peer, now: float) -> dict[str, object]:
    """One peer's part of ``status``; times are seconds ago or seconds from now."""
    policies = [policy_status(peer, name, now) for name in peer.policies]
    states = {str(policy["state"]) for policy in policies}
    return {
        "name": peer.settings.name,
        "principal": peer.settings.principal,
        **whereabouts_status(peer, now),
        "path_mtu": peer.path.octets,
        "extensions": acquaintance_status(peer),
        "epoch": peer.epochs.present,
        "user_to_user": peer.user_to_user,
        "last_heard": None if peer.last_heard is None else round(now - peer.last_heard, 3),
        "refusal": peer.refusal and peer.refusal[1],
        "refused": peer.refusal and round(now - peer.refusal[0], 3),
        "state": "established" if "established" in states else "negotiating" if "negotiating" in states else "down",
        "policies": policies,
    }


def whereabouts_status(peer: Peer, now: float) -> dict[str, object]:
    """Where a peer is; all of it empty or null while it has no address and has not been heard."""
    where = peer.contact.whereabouts
    kink = where.path(1, now) if where.known else None
    return {
        "address": where.esp.address,
        "esp": spell(where.esp) if where.known else None,
        "kink": kink and spell(kink.remote),
        "kink_marked": kink and kink.marked,
        "moved": where.elsewhere,
    }


def acquaintance_status(peer: Peer) -> dict[str, object]:
    """What a peer and this host have told each other (docs/extensions.md); null where nobody has said anything."""
    known = peer.contact.acquaintance
    told, seen = known.told, known.seen_at
    words = told and [flag.name.lower() for flag in told.capabilities & UNDERSTOOD if flag.name]
    return {
        "capabilities": words,
        "plain": known.plain,
        "seen_at": seen and spell(seen.endpoint),
        "seen_marked": seen and seen.marked,
        "behind_nat": known.behind_nat,
        "peer_behind_nat": told and Capability.BEHIND_NAT in told.capabilities,
        "peer_inner_mtu": told and told.inner_mtu,
        "inner_mtu": known.inner_mtu,
    }


def policy_status(peer: Peer, name: str, now: float) -> dict[str, object]:
    """One policy's part of ``status``."""
    state = peer.policies[name]
    selector = state.settings.selector
    pairs = peer.pairs(name)
    newest = pairs[-1] if pairs else None
    word = "established" if newest else "negotiating" if state.negotiating is not None else "down"
    return {
        "name": name,
        "local": str(selector.local),
        "remote": str(selector.remote),
        "start": state.settings.start.value,
        "ipsec": state.settings.protocol.value,
        "mode": state.settings.mode.value,
        "encapsulation": state.settings.encapsulation.value,
        "state": word,
        "waits_for": peer.waits_for(name),
        "pairs": len(pairs),
        "spi_in": newest and f"{newest.inbound_spi:#010x}",
        "spi_out": newest and f"{newest.outbound_spi:#010x}",
        "suite": newest and newest.suite,
        "pfs": newest and (newest.pfs or None),
        "esn": newest and newest.esn,
        "tfc_wanted": state.settings.confidentiality and state.settings.confidentiality.octets,
        "iptfs_rate": state.settings.aggregation and state.settings.aggregation.per_second,
        "iptfs_wanted": state.settings.aggregation and state.settings.aggregation.octets,
        "role": newest and ("initiator" if newest.initiated else "responder"),
        "since": newest and round(now - newest.established, 3),
        "lifetime": newest and newest.lifetime,
        "create_ms": None if state.create_seconds is None else round(state.create_seconds * 1000, 3),
        "failures": state.failures,
        "last_error": state.last_error,
        "next_try": None if state.retry_at is None else round(max(0.0, state.retry_at - now), 3),
    }


def with_traffic(status: dict[str, Any], traffic: Statistics, link: LinkStatistics) -> dict[str, object]:
    """Keying's status with what the data plane counted, for each policy and in all."""
    sas: defaultdict[str, list[SaStatistics]] = defaultdict(list)
    for sa in traffic.sas:
        sas[sa.policy].append(sa)
    peers = [
        peer
        | {"policies": [policy | policy_counts(policy["name"], traffic, sas[policy["name"]]) for policy in policies]}
        for peer in status["peers"]
        for policies in [peer["policies"]]
    ]
    counters = {
        "kink": status["counters"],
        "kink_labelled": status["labelled"],
        "kink_seconds": status["seconds"],
        "drops": {reason.value: count for reason, count in traffic.drops.items() if count},
        "unused_ecn": traffic.unused_ecn,
        "packets_out": traffic.packets_out,
        "octets_out": traffic.octets_out,
        "packets_in": traffic.packets_in,
        "octets_in": traffic.octets_in,
        "link": asdict(link),
    }
    return {"peers": peers, "counters": counters}


def policy_counts(name: str, traffic: Statistics, sas: Sequence[SaStatistics]) -> dict[str, object]:
    """What the data plane knows of a policy; ``sas`` are those it has now, the newest of each way last."""
    return policy_traffic(name, traffic) | policy_sizes(sas) | policy_engines(sas)


def policy_engines(sas: Sequence[SaStatistics]) -> dict[str, object]:
    """Whose the newest SAs of a policy are, null without one; and why the compiled engine has left one to the other."""
    newest = {("in" if sa.inbound else "out"): sa for sa in sas}
    reasons = [sa.engine_reason for sa in newest.values() if sa.engine_reason]
    return {
        "engine_in": newest["in"].engine if "in" in newest else None,
        "engine_out": newest["out"].engine if "out" in newest else None,
        "engine_reason": reasons[0] if reasons else None,
    }


def policy_sizes(sas: Sequence[SaStatistics]) -> dict[str, int]:
    """Octets of the largest packet that goes out in one piece, of what smaller ones are padded to, and of a payload
    with IP-TFS: of the newest outbound SA, 0 without one, without padding, without IP-TFS.
    """
    newest = next((sa for sa in reversed(sas) if not sa.inbound), None)
    if newest is None:
        return {"largest": 0, "tfc_octets": 0, "iptfs_octets": 0}
    return {"largest": newest.largest, "tfc_octets": newest.padded, "iptfs_octets": newest.payload_octets}


def policy_traffic(name: str, traffic: Statistics) -> dict[str, int]:
    """What the SAs of a policy have carried since the start, those that were replaced included; with IP-TFS also how
    many of the peer's payloads were lost; and what waits for an SA now.
    """
    carried = traffic.carried.get(name, Carried())
    return {
        "packets_in": carried.packets_in,
        "octets_in": carried.octets_in,
        "packets_out": carried.packets_out,
        "octets_out": carried.octets_out,
        "iptfs_lost": carried.lost,
        "held": traffic.held.get(name, 0),
    }


def offload_status(wanted: Offloads, unsuited: Mapping[Offload, str], *grants: Grant) -> dict[str, object]:
    """Of each offload null while it is in use, and else why it is not.

    Args:
        wanted: by whoever wrote the configuration.
        unsuited: those of no use to the engine, and why.
        grants: of all who have some.
    """
    refusals = {each: reason for grant in grants for each, reason in grant.refusals.items()}
    used = [each for each in Offload for grant in grants if grant.offloads.has(each)]
    why = {each: refusals.get(each) or unsuited.get(each) for each in Offload if wanted.has(each)}
    return {each.value: None if each in used else why.get(each, "off in the configuration") for each in Offload}


def spell(endpoint: Endpoint) -> str:
    """``192.0.2.1:910`` or ``[::]:910``; without UDP, where there is no port, the address alone."""
    if not endpoint.port:
        return endpoint.address
    host = f"[{endpoint.address}]" if ":" in endpoint.address else endpoint.address
    return f"{host}:{endpoint.port}"
