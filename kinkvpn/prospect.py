"""What `kinkvpn up` would bring about: for programs as one object, for people as tables."""

from __future__ import annotations

from ipaddress import ip_address
from itertools import groupby
from typing import TYPE_CHECKING, Any

from esp.headers import DEFAULT_RULES, DSCP_COPIED, DontFragment, Ecn
from esp.sa import Mode
from kinkvpn.config import Block
from kinkvpn.proto.settings import Esn
from kinkvpn.proto.whereabouts import KinkOver
from kinkvpn.traffic import show_selector
from kinkvpn.view import bits, carried, duration, octets

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from esp.headers import HeaderRules
    from esp.policy import Policy
    from esp.suite import Suite
    from kinkvpn.admission import Rule
    from kinkvpn.config import Configuration, MetricsSettings, PeerConfiguration, TunSettings
    from kinkvpn.proto.settings import PolicySettings
    from kinkvpn.view import Row, Table

# Outer IPv6, UDP, and ESP with GCM: what a payload is on the wire besides itself, at most, for an estimate.
WIRE_OCTETS = 40 + 8 + 34


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


# ---------------------------------------------------------------- for people


def tables(configuration: Configuration, addresses: Mapping[str, str], engine: str) -> Iterator[Table]:
    """What ``kinkvpn up`` would do with a configuration that is good; arguments as for :func:`prospect`."""
    yield (), list(_facts(configuration, engine))
    if configuration.log.keys:
        yield (
            (),
            [(f"KEYS WILL BE WRITTEN to {configuration.log.keys}: whoever reads it reads what the tunnels carry",)],
        )
    people, policies = configuration.people, [row for peer in configuration.peers for row in _policy_rows(peer)]
    found = [
        (("before peers", "action", "traffic"), list(map(_exception_row, configuration.before))),
        (("peer", "address", "principal"), [_peer_row(peer, addresses) for peer in configuration.peers]),
        (("policy", "start", ">lifetime", "traffic"), policies),
        (("people", "but not", "of groups", "reach", "name servers"), list(map(_rule_row, people.rules))),
        (("after peers", "action", "traffic"), list(map(_exception_row, configuration.after))),
    ]
    yield from ((heading, rows) for heading, rows in found if rows)


def _facts(configuration: Configuration, engine: str) -> Iterator[Row]:
    tun, kink, esp, log = configuration.tun, configuration.kink, configuration.esp, configuration.log
    kink_port = "KINK and " if kink.over is KinkOver.ESP_PORT else f"KINK {', '.join(kink.listen)} port {kink.port}; "
    hops = f"; outer headers have {esp.hop_limit} hops to live" if esp.hop_limit else ""
    remotes = [*(policy.selector.remote for policy in configuration.policies), *tun.lent]
    routes = sorted(set(map(str, remotes))) if tun.routes else []
    yield "principal", configuration.host.principal
    yield "device", _device(tun)
    yield "routes", ", ".join(routes) or "none"
    yield "listens", f"{kink_port}ESP port {esp.port}{hops}"
    yield "engine", engine
    if (block := configuration.clear.block) is not Block.NOTHING:
        yield "kill switch", f"{block.value} is blocked outside the tunnel"
    yield "control", str(configuration.control.socket)
    yield from _metrics_rows(configuration.metrics)
    yield "log", f"{log.level.value} and worse, as {log.format.value}, to stderr"
    if configuration.people.rules:
        yield "people", f"{configuration.people.most} at most, lent {_listed(configuration.people.pool)}"


def _peer_row(peer: PeerConfiguration, addresses: Mapping[str, str]) -> Row:
    return peer.name, _whereabouts(peer, addresses.get(peer.name, "")), peer.principal


def _policy_rows(peer: PeerConfiguration) -> Iterator[Row]:
    """A row for each, and behind those that are alike what was chosen for them."""
    for chosen, alike in groupby(peer.policies, _chosen):
        yield from map(_settings_row, alike)
        yield from ((line,) for line in chosen)


def _rule_row(rule: Rule) -> Row:
    cells = (rule.who or ("everybody",), rule.barred, sorted(rule.groups), rule.lease.routes, rule.lease.servers)
    return tuple(map(_listed, cells))


def _listed(values: Iterable[object]) -> str:
    return ", ".join(map(str, values)) or "-"


def _metrics_rows(metrics: MetricsSettings) -> Iterator[Row]:
    """Where they are to be had by TCP, if anywhere, and by whom."""
    if metrics.listen is None:
        return
    address, port = metrics.listen
    whose = "" if ip_address(address).is_loopback else ", for whoever reaches that address"
    yield "metrics", f"http://{f'[{address}]' if ':' in address else address}:{port}/{whose}"


def _device(tun: TunSettings) -> str:
    inner = ", ".join(map(str, tun.addresses)) or "no addresses"
    return f"{tun.name}, MTU {tun.mtu or 'auto'}, {inner}" + (
        "" if tun.clamp_mss else "; the MSS of TCP is left as it is"
    )


def _chosen(policy: PolicySettings) -> tuple[str, ...]:
    """What an operator has chosen for the SAs of a policy: what is always so, and what is not as usual."""
    found = (
        ("suites", ", ".join(map(_suite, policy.suites))),
        ("packets", ", ".join(_packets(policy))),
        ("keys", ", ".join(_keys(policy))),
        ("headers", ", ".join(_headers(policy))),
        ("hidden", ", ".join(_hidden(policy))),
    )
    return tuple(f"{what:<7}  {words}" for what, words in found if words)


def _suite(suite: Suite) -> str:
    return suite.name + ("" if suite.encrypts else " (ENCRYPTS NOTHING)") + (" (LEGACY)" if suite.legacy else "")


def _packets(policy: PolicySettings) -> Iterator[str]:
    yield carried(policy.protocol.value, policy.encapsulation.value)
    yield f"{policy.mode.value} mode"
    if policy.replay_window:
        yield {
            Esn.AUTO: "extended sequence numbers if the peer has them too",
            Esn.ALWAYS: "extended sequence numbers or no SA",
            Esn.NEVER: "sequence numbers of 32 bits",
        }[policy.esn]
        yield f"replay window of {policy.replay_window}"
    else:
        yield "REPLAYS ARE NOT NOTICED"


def _keys(policy: PolicySettings) -> Iterator[str]:
    """Where they come from, and what else than the time ends them."""
    if policy.pfs:
        required = " or no SA" if policy.pfs_required else ""
        yield f"PFS by {', '.join(group.label for group in policy.pfs)}{required}"
    if policy.responder_nonce:
        yield "a nonce of the responder's"
    if policy.lifetime_kilobytes:
        yield f"for {octets(policy.lifetime_kilobytes * 1024)} at most"
    if policy.lifetime_packets:
        yield f"for {policy.lifetime_packets} packets at most"


def _headers(policy: PolicySettings) -> Iterator[str]:
    """Of what an operator may say about outer headers that which is not as usual."""
    rules = policy.headers
    if policy.mode is Mode.TUNNEL:
        yield from _traffic_class(rules)
    if rules.df is not DEFAULT_RULES.df:
        words = {DontFragment.COPY: "DF as inside", DontFragment.SET: "DF set", DontFragment.CLEAR: "DF clear"}
        yield words[rules.df]
    if rules.flow_labels:
        yield "a flow label for each flow inside"


def _traffic_class(rules: HeaderRules) -> Iterator[str]:
    if rules.ecn is not DEFAULT_RULES.ecn:
        yield {Ecn.COMPATIBLE: "without ECN"}[rules.ecn]
    if rules.dscp != DSCP_COPIED:
        yield f"DSCP {rules.dscp[0]}" if len(set(rules.dscp)) == 1 else f"DSCP {_mapped(rules.dscp)}"
    if rules.dscp_inward:
        yield "DSCP of what arrives taken from outside"


def _mapped(dscp: bytes) -> str:
    """``46 > 34, others 0``: where most go, and what goes elsewhere."""
    most = max(set(dscp), key=dscp.count)
    copied = sum(inner == outer for inner, outer in enumerate(dscp)) > dscp.count(most)
    changed = [f"{inner} > {outer}" for inner, outer in enumerate(dscp) if outer != (inner if copied else most)]
    return ", ".join([*changed, "others as inside" if copied else f"others {most}"])


def _hidden(policy: PolicySettings) -> Iterator[str]:
    """What an observer is not to see."""
    padded, steady = policy.confidentiality, policy.aggregation
    if padded:
        yield f"packets are padded to {padded.octets} octets"
        if padded.dummy_after:
            yield f"a dummy follows after {padded.dummy_after:g} s without one"
    if steady:
        needs = bits(steady.per_second * (steady.octets + WIRE_OCTETS) * 8)
        yield f"IP-TFS, {steady.per_second:g} payloads of {steady.octets} octets a second: {needs} of the path, always"


def _exception_row(policy: Policy) -> Row:
    more = f", {len(policy.also)} more" if policy.also else ""
    return policy.name, policy.action.value, show_selector(policy.selector).replace("->", ">") + more


def _whereabouts(peer: PeerConfiguration, address: str) -> str:
    if not peer.address:
        return "wherever it is heard"
    return peer.address if peer.address == address else f"{peer.address} ({address})"


def _settings_row(policy: PolicySettings) -> Row:
    lifetime = duration(policy.lifetime_seconds)
    return policy.name, policy.start.value, lifetime, show_selector(policy.selector).replace("->", ">")
