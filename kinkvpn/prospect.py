"""What `kinkvpn up` would bring about: for programs as one object, for people as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kinkvpn.traffic import show_selector

if TYPE_CHECKING:
    from collections.abc import Mapping

    from esp.policy import Policy
    from kinkvpn.config import Configuration, PeerConfiguration, TunSettings
    from kinkvpn.proto.settings import PolicySettings

Row = tuple[str, ...]

PEERS = ("peer", "address", "principal")
POLICIES = ("policy", "local", "remote", "suites", "start")


def prospect(
    configuration: Configuration, tun: TunSettings, addresses: Mapping[str, str], engine: str
) -> dict[str, Any]:
    """JSON-able, and free of secrets.

    Args:
        configuration: that is good.
        tun: its device, with the MTU settled.
        addresses: by name of peer, what its address resolves to; empty for one that is waited for.
        engine: which one would run, and why.
    """
    routes = {str(policy.selector.remote): tun.name for policy in configuration.policies} if tun.routes else {}
    return {
        "principal": configuration.host.principal,
        "device": {"name": tun.name, "mtu": tun.mtu, "addresses": [str(each) for each in tun.addresses]},
        "routes": routes,
        "listens": {
            "addresses": list(configuration.kink.listen),
            "kink": configuration.kink.port,
            "esp": configuration.esp.port,
            "kink_over": configuration.kink.over.value,
        },
        "engine": engine,
        "control": str(configuration.control.socket),
        "peers": [_peer(peer, addresses.get(peer.name, "")) for peer in configuration.peers],
        "before": [_exception(policy) for policy in configuration.before],
        "after": [_exception(policy) for policy in configuration.after],
    }


def _peer(peer: PeerConfiguration, address: str) -> dict[str, Any]:
    return {
        "name": peer.name,
        "principal": peer.principal,
        "address": peer.address or None,
        "resolved": address or None,
        "policies": [_policy(policy) for policy in peer.policies],
    }


def _policy(policy: PolicySettings) -> dict[str, Any]:
    return {
        "name": policy.name,
        "local": str(policy.selector.local),
        "remote": str(policy.selector.remote),
        "traffic": show_selector(policy.selector),
        "suites": [suite.name for suite in policy.suites],
        "pfs": [group.label for group in policy.pfs],
        "ipsec": policy.protocol.value,
        "mode": policy.mode.value,
        "lifetime": policy.lifetime_seconds,
        "start": policy.start.value,
    }


def _exception(policy: Policy) -> dict[str, Any]:
    return {
        "name": policy.name,
        "action": policy.action.value,
        "traffic": [show_selector(each) for each in policy.selectors],
    }


def peer_rows(found: Mapping[str, Any]) -> list[Row]:
    """A row of :data:`PEERS` for each."""
    return [(peer["name"], peer["resolved"] or "wherever it comes from", peer["principal"]) for peer in found["peers"]]


def policy_rows(found: Mapping[str, Any]) -> list[Row]:
    """A row of :data:`POLICIES` for each."""
    return [
        (policy["name"], policy["local"], policy["remote"], " ".join(policy["suites"]), policy["start"])
        for peer in found["peers"]
        for policy in peer["policies"]
    ]
