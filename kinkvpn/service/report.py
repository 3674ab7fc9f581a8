"""What status says of a peer and its policies, and of what the data plane counted, for each policy and in all."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, cast

import trio

from esp.offload import Grant, Offload, Offloads
from kinkvpn.api.rows import in_turns
from kinkvpn.proto.extensions import UNDERSTOOD, Capability

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from esp.dataplane import Dataplane, LinkStatistics
    from esp.errors import DropReason
    from esp.sa import Endpoint
    from esp.statistics import PolicyStatistics, SaStatistics, Totals
    from kinkvpn.api import answers
    from kinkvpn.proto.peer import Peer
    from kinkvpn.proto.quick_mode import SaPair

# Why an offload is not in use that nobody wants.
OFF = "off in the configuration"


async def peers_status(peers: Collection[Peer], dataplane: Dataplane) -> list[answers.Peer]:
    """What keying knows of them, with what the data plane counted for each policy; in turns with everything else, so a
    row is as things are when it is made.
    """

    def rows() -> Iterator[tuple[int, answers.Policy]]:
        for number, peer in enumerate(peers):
            for name in tuple(peer.policies):
                if name in peer.policies:  # it may have gone since
                    carried = dataplane.of_policy(name)
                    yield number, {**policy_status(peer, name, trio.current_time()), **policy_traffic(carried)}

    policies: list[list[answers.Policy]] = [[] for _ in peers]
    for number, row in await in_turns(rows()):
        policies[number].append(row)
    both = zip(peers, policies, strict=True)
    return await in_turns(peer_status(peer, found, trio.current_time()) for peer, found in both)


def peer_status(peer: Peer, policies: list[answers.Policy], now: float) -> answers.Peer:
    """One peer's part of ``status``; times are seconds ago or seconds from now."""
    where = peer.contact.whereabouts
    kink = where.path(1, now) if where.known else None
    states = {policy["state"] for policy in policies}
    return {
        "name": peer.settings.name,
        "principal": peer.settings.principal,
        "address": where.esp.address,
        "esp": spell(where.esp) if where.known else None,
        "kink": kink and spell(kink.remote),
        "kink_marked": kink and kink.marked,
        "moved": where.elsewhere,
        "path_mtu": peer.path.octets,
        "extensions": acquaintance_status(peer),
        "epoch": peer.epochs.present,
        "user_to_user": peer.user_to_user,
        "last_heard": None if peer.last_heard is None else round(now - peer.last_heard, 3),
        "refusal": peer.refusal and peer.refusal[1],
        "refused": peer.refusal and round(now - peer.refusal[0], 3),
        "state": "established" if "established" in states else "negotiating" if "negotiating" in states else "down",
        "taken_down": peer.closed,
        "policies": policies,
    }


def acquaintance_status(peer: Peer) -> answers.Extensions:
    """What a peer and this host have told each other (docs/extensions.md); null where nobody has said anything."""
    known = peer.contact.acquaintance
    told, seen = known.told, known.seen_at
    return {
        "capabilities": [flag.name.lower() for flag in told.capabilities & UNDERSTOOD if flag.name] if told else None,
        "plain": known.plain,
        "seen_at": spell(seen.endpoint) if seen else None,
        "seen_marked": seen.marked if seen else None,
        "behind_nat": known.behind_nat,
        "peer_behind_nat": Capability.BEHIND_NAT in told.capabilities if told else None,
        "peer_inner_mtu": told.inner_mtu if told else None,
        "inner_mtu": known.inner_mtu,
    }


def policy_status(peer: Peer, name: str, now: float) -> answers.NegotiatedPolicy:
    """One policy's part of ``status``."""
    state = peer.policies[name]
    settings = state.settings
    pairs = peer.pairs(name)
    newest = pairs[-1] if pairs else None
    word: answers.State = "established" if newest else "negotiating" if state.negotiating is not None else "down"
    return {
        "name": name,
        "local": str(settings.selector.local),
        "remote": str(settings.selector.remote),
        "start": settings.start.value,
        "ipsec": settings.protocol.value,
        "mode": settings.mode.value,
        "encapsulation": settings.encapsulation.value,
        "state": word,
        "waits_for": peer.waits_for(name),
        "pairs": len(pairs),
        "spi_in": f"{newest.inbound_spi:#010x}" if newest else None,
        "spi_out": f"{newest.outbound_spi:#010x}" if newest else None,
        "suite": newest.suite if newest else None,
        "pfs": (newest.pfs or None) if newest else None,
        "esn": newest.esn if newest else None,
        "tfc_wanted": settings.confidentiality.octets if settings.confidentiality else None,
        "iptfs_rate": settings.aggregation.per_second if settings.aggregation else None,
        "iptfs_wanted": settings.aggregation.octets if settings.aggregation else None,
        "role": ("initiator" if newest.initiated else "responder") if newest else None,
        "since": round(now - newest.established, 3) if newest else None,
        "lifetime": newest.lifetime if newest else None,
        "create_ms": None if state.create_seconds is None else round(state.create_seconds * 1000, 3),
        "failures": state.failures,
        "last_error": state.last_error,
        "next_try": None if state.retry_at is None else round(max(0.0, state.retry_at - now), 3),
    }


def counters(kink: answers.Counted, traffic: Totals, link: LinkStatistics) -> answers.Counters:
    """What both planes counted."""
    return {
        "kink": kink["counters"],
        "kink_labelled": kink["labelled"],
        "kink_seconds": kink["seconds"],
        "drops": drops(traffic.drops),
        "unused_ecn": traffic.unused_ecn,
        "packets_out": traffic.packets_out,
        "octets_out": traffic.octets_out,
        "packets_in": traffic.packets_in,
        "octets_in": traffic.octets_in,
        "link": cast("answers.Link", asdict(link)),
    }


def drops(counted: Mapping[DropReason, int]) -> dict[str, int]:
    """Those that there were."""
    return {reason.value: count for reason, count in counted.items() if count}


def policy_engines(sas: Sequence[SaStatistics]) -> answers.PolicyEngines:
    """Whose the newest SAs of a policy are, null without one; and why the compiled engine has left one to the other."""
    newest = {("in" if sa.inbound else "out"): sa for sa in sas}
    reasons = [sa.engine_reason for sa in newest.values() if sa.engine_reason]
    return {
        "engine_in": newest["in"].engine if "in" in newest else None,
        "engine_out": newest["out"].engine if "out" in newest else None,
        "engine_reason": reasons[0] if reasons else None,
    }


def policy_sizes(sas: Sequence[SaStatistics]) -> answers.PolicySizes:
    """Octets of the largest packet that goes out in one piece, of what smaller ones are padded to, and of a payload
    with IP-TFS: of the newest outbound SA, 0 without one, without padding, without IP-TFS.
    """
    newest = next((sa for sa in reversed(sas) if not sa.inbound), None)
    if newest is None:
        return {"largest": 0, "tfc_octets": 0, "iptfs_octets": 0}
    return {"largest": newest.largest, "tfc_octets": newest.padded, "iptfs_octets": newest.payload_octets}


def policy_traffic(found: PolicyStatistics) -> answers.PolicyCarried:
    """What the SAs of a policy have carried since the start, those that were replaced included; with IP-TFS also how
    many of the peer's payloads were lost; what waits for an SA now; and what the newest of them are like.
    """
    carried = found.carried
    return {
        "packets_in": carried.packets_in,
        "octets_in": carried.octets_in,
        "packets_out": carried.packets_out,
        "octets_out": carried.octets_out,
        "iptfs_lost": carried.lost,
        "held": found.held,
        **policy_sizes(found.sas),
        **policy_engines(found.sas),
    }


async def sas_status(dataplane: Dataplane, whose: Callable[[str, int], tuple[str, SaPair | None]]) -> list[answers.Sa]:
    """Every SA, in turns with everything else; ``whose`` is the peer of a policy, and its standing pair with an SPI."""
    sas = dataplane.sas()
    return await in_turns(sa_status(sa, *whose(sa.policy, sa.spi), trio.current_time()) for sa in sas)


def sa_status(sa: SaStatistics, peer: str, pair: SaPair | None, now: float) -> answers.Sa:
    """One SA; ``pair`` is the one that it belongs to, if that stands."""
    return {
        "peer": peer,
        "policy": sa.policy,
        "spi": f"{sa.spi:#010x}",
        "direction": "in" if sa.inbound else "out",
        "suite": sa.suite,
        "remote": spell(sa.remote),
        "since": round(now - pair.established, 3) if pair else None,
        "lifetime": pair.lifetime if pair else None,
        "packets": sa.packets,
        "octets": sa.octets,
        "sequence": sa.sequence,
        "drops": drops(sa.drops),
        "lost": sa.lost,
        "largest": sa.largest,
        "engine": sa.engine,
        "engine_reason": sa.engine_reason,
    }


def offload_status(wanted: Offloads, unsuited: Mapping[Offload, str], *grants: Grant) -> dict[str, str | None]:
    """Of each offload null while it is in use, and else why it is not.

    Args:
        wanted: by whoever wrote the configuration.
        unsuited: those of no use to the engine, and why.
        grants: of all who have some.
    """
    refusals = {each: reason for grant in grants for each, reason in grant.refusals.items()}
    used = [each for each in Offload for grant in grants if grant.offloads.has(each)]
    why = {each: refusals.get(each) or unsuited.get(each) for each in Offload if wanted.has(each)}
    return {each.value: None if each in used else why.get(each, OFF) for each in Offload}


def spell(endpoint: Endpoint) -> str:
    """``192.0.2.1:910`` or ``[::]:910``; without UDP, where there is no port, the address alone."""
    if not endpoint.port:
        return endpoint.address
    host = f"[{endpoint.address}]" if ":" in endpoint.address else endpoint.address
    return f"{host}:{endpoint.port}"
