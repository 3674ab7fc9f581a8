"""What ``kinkvpn status`` and ``kinkvpn check`` show a person: what is wrong, since when, and what happens next."""

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

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from esp.headers import HeaderRules
    from esp.policy import Policy
    from esp.suite import Suite
    from kinkvpn.config import Configuration, MetricsSettings, PeerConfiguration, PeopleSettings, TunSettings
    from kinkvpn.proto.settings import PolicySettings

Row = tuple[str, ...]

# Outer IPv6, UDP, and ESP with GCM: what a payload is on the wire besides itself, at most, for an estimate.
WIRE_OCTETS = 40 + 8 + 34


def status(answer: Mapping[str, Any], probes: Mapping[str, str] | None = None) -> str:
    """The daemon's status as text.

    Args:
        answer: the result of the control socket's ``status``.
        probes: by name of peer, what a STATUS exchange with it gave.
    """
    return "\n".join(printable(line) for line in _status_lines(answer, probes or {}))


def _queues(number: int) -> str:
    return f"; {number} queues" if number > 1 else ""


def _status_lines(answer: Mapping[str, Any], probes: Mapping[str, str]) -> Iterator[str]:
    tun, listeners, counters = answer["tun"], answer["listeners"], answer["counters"]
    yield f"kinkvpn {answer['version']}, pid {answer['pid']}, up {duration(answer['uptime'])}"
    yield from table(
        [
            ("  principal", answer["principal"]),
            ("  tickets", tickets(answer["tickets"])),
            ("  device", f"{tun['name']}, MTU {tun['mtu']}, {', '.join(tun['addresses']) or 'no addresses'}"),
            ("  engine", f"{answer['engine']}: {answer['engine_reason']}{_queues(answer['queues'])}"),
            ("  ciphers", answer["ciphers"]),
            ("  offloads", offloads(answer["offloads"])),
            (
                "  listening",
                f"KINK {', '.join(listeners['kink']) or 'on the ESP port'}; ESP {', '.join(listeners['esp'])}",
            ),
        ]
    )
    if answer.get("key_log"):
        yield f"  KEYS ARE WRITTEN to {answer['key_log']}: whoever reads it reads what the tunnels carry"
    for peer in answer["peers"]:
        yield ""
        yield from _peer_lines(peer, probes.get(peer["name"]), tun["mtu"])
    yield ""
    inward, outward = traffic(counters, "in"), traffic(counters, "out")
    yield from table(
        [
            ("traffic", f"in {inward}, out {outward}"),
            ("dropped", counted(counters["drops"]) or "nothing"),
            ("KINK", counted(counters["kink"]) or "nothing yet"),
        ]
    )


def tickets(state: Mapping[str, Any]) -> str:
    """What is at hand should the KDC go, and whether it has."""
    first = f"{state['kept']}, the first ends in {duration(state['first_ends'])}" if state["kept"] else "none"
    return f"{first}, {state['not_renewed']} could not be renewed" if state["not_renewed"] else first


def offloads(state: Mapping[str, str | None]) -> str:
    """Those in use, and why others are not."""
    used = ", ".join(name for name, reason in state.items() if reason is None)
    return "; ".join([used or "none", *(f"no {name}: {reason}" for name, reason in state.items() if reason)])


def _peer_lines(peer: Mapping[str, Any], probe: str | None, mtu: int) -> Iterator[str]:
    heard = "never heard from" if peer["last_heard"] is None else f"heard from {duration(peer['last_heard'])} ago"
    yield f"{peer['name']}  {peer_state(peer).upper()}  {peer['address'] or 'nowhere yet'}  {peer['principal']}"
    tickets = ", user-to-user" if peer.get("user_to_user") else ""
    yield f"  {heard}{tickets}" + (f", probe: {probe}" if probe else "")
    if peer.get("taken_down"):
        yield f"  no SAs until `kinkvpn up {peer['name']}`, as somebody has told the daemon"
    if peer.get("refusal"):
        yield f"  what it asked for was refused {duration(peer['refused'])} ago: {peer['refusal']}"
    yield from _contact_lines(peer, mtu)
    rows: list[Row] = [("  policy", "state", "age", "in", "out", "traffic")]
    rows += [_policy_row(policy) for policy in peer["policies"]]
    lines = table(rows)
    yield next(lines)
    for policy, line in zip(peer["policies"], lines, strict=True):
        yield line
        if not peer.get("taken_down"):
            yield from (f"      {detail}" for detail in _details(policy, mtu, located=bool(peer["address"])))


def _contact_lines(peer: Mapping[str, Any], mtu: int) -> Iterator[str]:
    """Where it differs from what was configured, and from what nobody would ask about."""
    told = peer["extensions"]
    behind = [name for name, nat in (("we are", told["behind_nat"]), ("it is", told["peer_behind_nat"])) if nat]
    seen = f", seen by it at {told['seen_at']}" if told["behind_nat"] else ""
    if behind or peer["moved"]:
        where = f"ESP to {peer['esp']}, KINK to {peer['kink']}{', the ESP port' if peer['kink_marked'] else ''}"
        yield f"  {where}" + (f"; {' and '.join(behind)} behind a NAT{seen}" if behind else "")
    if told["inner_mtu"] is not None and told["inner_mtu"] < mtu:
        yield f"  MTU {told['inner_mtu']}, of its device"


def _policy_row(policy: Mapping[str, Any]) -> Row:
    age = "-" if policy["since"] is None else duration(policy["since"])
    flow = f"{policy['local']} > {policy['remote']}"
    return f"  {policy['name']}", policy_state(policy), age, traffic(policy, "in"), traffic(policy, "out"), flow


def peer_state(peer: Mapping[str, Any]) -> str:
    """The worst that somebody has to know of: a peer with one tunnel up and another failing is not just established."""
    if peer.get("taken_down"):
        return "taken down"
    states = {policy_state(policy) for policy in peer["policies"]}
    if "down" in states:
        return "partly down" if states - {"down"} else "down"
    return next((state for state in ("established", "negotiating") if state in states), "idle")


def policy_state(policy: Mapping[str, Any]) -> str:
    """``idle`` is what the daemon calls down while nothing has asked for it and nothing has gone wrong."""
    wrong = policy["failures"] or policy["last_error"]
    return "idle" if policy["state"] == "down" and not wrong else str(policy["state"])


def carried(ipsec: str, encapsulation: str) -> str:
    """What packets travel as."""
    return "AH" if ipsec == "ah" else {"udp": "ESP in UDP", "raw": "ESP without UDP"}[encapsulation]


def _pair_lines(policy: Mapping[str, Any], mtu: int) -> Iterator[str]:
    """A pair that is established: what it is, what it does to packets, and what comes of that."""
    esn = "with ESN" if policy["esn"] else "without ESN"
    pfs = f", PFS by {policy['pfs']}" if policy["pfs"] else ""
    took = "" if policy["create_ms"] is None else f", CREATE took {policy['create_ms']:.1f} ms"
    yield f"spi in {spi(policy['spi_in'])} out {spi(policy['spi_out'])}, {policy['suite']} {esn}{pfs}{took}"
    words = [carried(policy["ipsec"], policy["encapsulation"]), f"{policy['mode']} mode"]
    if policy["tfc_octets"]:
        words.append(f"padded to {policy['tfc_octets']} octets")
    elif policy["tfc_wanted"]:
        words.append("NOT PADDED, for the peer has not said that it takes it")
    if policy["largest"]:
        why = ", for the path carries no more" if policy["largest"] < mtu else ""
        words.append(f"packets up to {min(policy['largest'], mtu)} octets{why}")
    yield ", ".join(words)
    if policy["engine_reason"]:
        left = [way for way in ("in", "out") if policy[f"engine_{way}"] == "portable"]
        yield f"{' and '.join(left)} by the portable engine: {policy['engine_reason']}"
    yield from _rate_lines(policy)


def _details(policy: Mapping[str, Any], mtu: int, *, located: bool) -> Iterator[str]:
    if policy["spi_in"] is not None:
        yield from _pair_lines(policy, mtu)
    elif policy["state"] == "negotiating":
        yield {"kdc": "no ticket yet from the KDC", "peer": "no answer yet from the peer"}.get(
            policy.get("waits_for") or "", "no answer yet, from the KDC or from the peer"
        )
    elif not located:
        yield "waiting for the peer: it has no address in the configuration, so the first message has to be its own"
    elif not policy["failures"] and not policy["last_error"]:
        yield "waiting for the first packet" if policy["start"] == "demand" else "starting"
    if policy["failures"]:
        times = "once" if policy["failures"] == 1 else f"{policy['failures']} times"
        yield f"failed {times}, {_next_try(policy)}: {policy['last_error'] or 'no reason given'}"
    elif policy["last_error"] and policy["spi_in"] is None:  # a pair stood, and its peer is dead
        yield f"{_next_try(policy)}: {policy['last_error']}"
    if policy["held"]:
        yield f"{policy['held']} packets wait for it"


def _rate_lines(policy: Mapping[str, Any]) -> Iterator[str]:
    """What a constant rate has room for, and what the path loses of the peer's (RFC 9347 §2.4.1)."""
    rate, size = policy.get("iptfs_rate"), policy.get("iptfs_octets")
    if not rate or not size:
        return
    why = f" and not {policy['iptfs_wanted']}, for the path carries no more" if size < policy["iptfs_wanted"] else ""
    yield f"IP-TFS: {rate:g} payloads a second of {size} octets{why}; room for {bits(rate * size * 8)}"
    lost = policy["iptfs_lost"]
    if lost:
        sent = lost + policy["packets_in"]
        yield f"LOST {lost} of {sent} payloads of the peer ({lost / sent:.2%}): the path has not the bandwidth"


def _next_try(policy: Mapping[str, Any]) -> str:
    if policy["state"] == "negotiating":
        return "trying again now"
    if policy["next_try"] is None:
        return "next try when a packet asks"
    return f"next try in {duration(policy['next_try'])}"


def check(configuration: Configuration, addresses: Mapping[str, str], engine: str) -> str:
    """What ``kinkvpn up`` would do with a configuration that is good.

    Args:
        addresses: by name of peer, what its address resolves to.
        engine: which one would run, and why.
    """
    return "\n".join(printable(line) for line in _check_lines(configuration, addresses, engine))


def _check_lines(configuration: Configuration, addresses: Mapping[str, str], engine: str) -> Iterator[str]:
    tun, kink, esp, log = configuration.tun, configuration.kink, configuration.esp, configuration.log
    only_esp = kink.over is KinkOver.ESP_PORT
    block = configuration.clear.block
    blocked = [] if block is Block.NOTHING else [("kill switch", f"{block.value} is blocked outside the tunnel")]
    kink_port = "KINK and " if only_esp else f"KINK {', '.join(kink.listen)} port {kink.port}; "
    hops = f"; outer headers have {esp.hop_limit} hops to live" if esp.hop_limit else ""
    remotes = [*(policy.selector.remote for policy in configuration.policies), *tun.lent]
    routes = sorted(set(map(str, remotes))) if tun.routes else []
    yield from table(
        [
            ("principal", configuration.host.principal),
            ("device", _device(tun)),
            ("routes", ", ".join(routes) or "none"),
            ("listens", f"{kink_port}ESP port {esp.port}{hops}"),
            ("engine", engine),
            *blocked,
            ("control", str(configuration.control.socket)),
            *_metrics_rows(configuration.metrics),
            ("log", f"{log.level.value} and worse, as {log.format.value}, to stderr"),
        ]
    )
    if log.keys:
        yield f"KEYS WILL BE WRITTEN to {log.keys}: whoever reads it reads what the tunnels carry"
    yield from _exception_lines("before the peers' policies", configuration.before)
    for peer in configuration.peers:
        yield ""
        yield f"{peer.name}  {_whereabouts(peer, addresses.get(peer.name, ''))}  {peer.principal}"
        for chosen, alike in groupby(peer.policies, _chosen):
            rows: list[Row] = [("  policy", "start", "lifetime", "traffic"), *map(_settings_row, alike)]
            yield from table(rows)
            yield from (f"    {line}" for line in chosen)
    yield from _people_lines(configuration.people)
    yield from _exception_lines("after the peers' policies", configuration.after)


def _people_lines(people: PeopleSettings) -> Iterator[str]:
    """Whom the gateway lets in, by its rules in their order."""
    if not people.rules:
        return
    yield ""
    yield f"people  {people.most} at most, lent {_listed(people.pool)}"
    rows: list[Row] = [("  who", "but not", "of groups", "reach", "name servers")]
    for rule in people.rules:
        cells = (rule.who or ("everybody",), rule.barred, sorted(rule.groups), rule.lease.routes, rule.lease.servers)
        who, *others = map(_listed, cells)
        rows.append((f"  {who}", *others))
    yield from table(rows)


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
    table = (
        ("suites", ", ".join(map(_suite, policy.suites))),
        ("packets", ", ".join(_packets(policy))),
        ("keys", ", ".join(_keys(policy))),
        ("headers", ", ".join(_headers(policy))),
        ("hidden", ", ".join(_hidden(policy))),
    )
    return tuple(f"{what:<7}  {words}" for what, words in table if words)


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


def _exception_lines(heading: str, policies: Sequence[Policy]) -> Iterator[str]:
    """What is bypassed or discarded there; nothing if nothing is."""
    if policies:
        yield ""
        yield heading
        yield from table([("  policy", "action", "traffic"), *map(_exception_row, policies)])


def _exception_row(policy: Policy) -> Row:
    more = f", {len(policy.also)} more" if policy.also else ""
    return f"  {policy.name}", policy.action.value, show_selector(policy.selector).replace("->", ">") + more


def _whereabouts(peer: PeerConfiguration, address: str) -> str:
    if not peer.address:
        return "wherever it is heard"
    return peer.address if peer.address == address else f"{peer.address} ({address})"


def _settings_row(policy: PolicySettings) -> Row:
    lifetime = duration(policy.lifetime_seconds)
    return f"  {policy.name}", policy.start.value, lifetime, show_selector(policy.selector).replace("->", ">")


def table(rows: Sequence[Row]) -> Iterator[str]:
    """Columns as wide as their widest cell, two spaces between, nothing after the last."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def duration(seconds: float) -> str:
    """The two units that matter: ``45s``, ``3m 20s``, ``7h 5m``, ``12d 3h``."""
    whole = max(0, int(seconds))
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days}d {hours}h"
    if hours:
        return f"{hours}h {minutes}m"
    return f"{minutes}m {whole % 60}s" if minutes else f"{whole}s"


def octets(number: int) -> str:
    """``0 B``, ``999 B``, ``1.2 kB``, ``34.5 MB``: powers of a thousand."""
    value = float(number)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 999.95 or unit == "TB":
            break
        value /= 1000
    return f"{number} B" if unit == "B" else f"{value:.1f} {unit}"


def bits(number: float) -> str:
    """``800 bit/s``, ``1.1 Mbit/s``: powers of a thousand."""
    value = number
    for unit in ("bit/s", "kbit/s", "Mbit/s"):
        if value < 999.95:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} Gbit/s"


def traffic(counters: Mapping[str, Any], way: str) -> str:
    """Packets and octets of one way."""
    return f"{counters[f'packets_{way}']} ({octets(counters[f'octets_{way}'])})"


def spi(value: int | str) -> str:
    """As tcpdump and Wireshark write it."""
    return value if isinstance(value, str) else f"{value:#010x}"


def printable(line: str) -> str:
    """Some words are the peer's or the KDC's: none of them moves the cursor."""
    return "".join(letter if letter.isprintable() else "?" for letter in line)


def counted(counters: Mapping[str, int]) -> str:
    """``replayed 2, too_old 1``: those that are not zero."""
    return ", ".join(f"{name} {count}" for name, count in counters.items() if count)
