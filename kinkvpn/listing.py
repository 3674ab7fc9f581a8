"""What the API answers as people read it: status, tables of peers, policies, SAs and counters, an event as a line."""

from __future__ import annotations

import shlex
from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from kinkvpn.terminal import printable
from kinkvpn.view import bits, carried, counted, duration, octets, peer_state, policy_state, traffic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from kinkvpn.view import Row, Table

# What has to be mended is on top, and what nobody has asked for is below what works.
ORDER = ("down", "partly down", "negotiating", "taken down", "established", "idle")
# Ours. As many names as there is room for on two lines of 80 columns; above, the list itself is where to look.
MOST_NAMES = 8


class Listing(NamedTuple):
    """Headings, those of numbers with a ``>`` before them, and what makes rows of an answer."""

    heading: Row
    rows: Callable[[Mapping[str, Any]], Iterator[Row]]


def peers(answer: Mapping[str, Any]) -> Iterator[Row]:
    """A row for each peer; how many of its policies have SAs."""
    return map(_peer, answer["peers"])


def _peer(peer: Mapping[str, Any]) -> Row:
    states = [policy["state"] for policy in peer["policies"]]
    up = f"{states.count('established')}/{len(states)}"
    heard = "never" if peer["last_heard"] is None else duration(peer["last_heard"])
    who = "the same" if peer["principal"] == peer["name"] else peer["principal"]
    tickets = " (user-to-user)" if peer.get("user_to_user") else ""
    return peer["name"], peer_state(peer), peer["address"] or "-", heard, up, who + tickets


def policies(answer: Mapping[str, Any]) -> Iterator[Row]:
    """A row for each policy."""
    return map(_policy, answer["policies"])


def _policy(policy: Mapping[str, Any]) -> Row:
    age = "-" if policy["since"] is None else duration(policy["since"])
    flow = f"{policy['local']} > {policy['remote']}"
    return policy["name"], policy_state(policy), age, traffic(policy, "in"), traffic(policy, "out"), flow


def sas(answer: Mapping[str, Any]) -> Iterator[Row]:
    """A row for each SA; how long it has, where that is known."""
    for sa in answer["sas"]:
        known = sa["since"] is not None
        age, left = (duration(sa["since"]), duration(sa["lifetime"] - sa["since"])) if known else ("-", "-")
        numbers = str(sa["packets"]), octets(sa["octets"])
        yield sa["policy"], sa["direction"], sa["spi"], age, left, *numbers, sa["suite"]


def counters(answer: Mapping[str, Any]) -> Iterator[Row]:
    """A row for each that is not zero, named as docs/counters.md has it: parts joined by dots."""
    for name, count in _flat(answer, ""):
        if count:
            yield name, f"{count:g}" if isinstance(count, float) else str(count)


def _flat(counted: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, int | float]]:
    for name, value in counted.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


TABLES = {
    "peers": Listing(("peer", "state", "address", ">heard", ">up", "principal"), peers),
    "policies": Listing(("policy", "state", ">age", ">in", ">out", "traffic"), policies),
    "sas": Listing(("policy", "way", "spi", ">age", ">left", ">packets", ">octets", "suite"), sas),
    "counters": Listing(("counter", ">count"), counters),
}


def established(answer: Mapping[str, Any]) -> Iterator[str]:
    """A line for each policy that has been given SAs."""
    for policy in answer["policies"]:
        # Without it the peer has made a pair at the same time, and that is the one that stays.
        took = "" if policy["create_ms"] is None else f", CREATE took {policy['create_ms']:.1f} ms"
        yield printable(f"{policy['name']}: spi in {policy['spi_in']} out {policy['spi_out']}, {policy['suite']}{took}")


def event(data: Mapping[str, Any]) -> str:
    """``2026-03-01T12:00:00.000Z warning create_failed peer=west reason=no answer``."""
    fields = [f"{name}={value}" for name, value in data.items() if name not in ("time", "level", "event", "logger")]
    return printable(
        " ".join([str(data.get("time", "")), f"{data.get('level', ''):7}", str(data.get("event")), *fields])
    )


# ---------------------------------------------------------------- all of it


def status(
    answer: Mapping[str, Any], probes: Mapping[str, str] | None = None, options: Sequence[str] = ()
) -> Iterator[Table]:
    """The daemon's status: what does not work first, why, and the command that goes on from there.

    Args:
        answer: as ``GET /v1/status`` has it.
        probes: by name of peer, what a STATUS exchange with it gave.
        options: that the daemon was found by, for commands.
    """
    mtu, worst_first = answer["tun"]["mtu"], sorted(answer["peers"], key=lambda peer: ORDER.index(peer_state(peer)))
    tunnels = [policy for peer in worst_first for policy in peer["policies"]]
    tunnels.sort(key=lambda policy: ORDER.index(policy_state(policy)))
    yield (), [(f"kinkvpn {answer['version']}, pid {answer['pid']}, up {duration(answer['uptime'])}",)]
    if answer.get("key_log"):
        yield (), [(f"KEYS ARE WRITTEN to {answer['key_log']}: whoever reads it reads what the tunnels carry",)]
    found = [
        (TABLES["peers"].heading, list(_with_notes(worst_first, probes or {}, options, mtu))),
        (("tunnel", *TABLES["policies"].heading[1:]), [*map(_policy, tunnels), *_idle(worst_first)]),
        (PAIRS, [row for policy in tunnels if policy["spi_in"] is not None for row in _pair(policy, mtu)]),
    ]
    yield from ((heading, rows) for heading, rows in found if rows)
    yield (), list(_sums(answer["counters"]))
    yield (), list(_facts(answer))
    yield (), [_conclusion(worst_first, tunnels)]


def _with_notes(
    peers: Sequence[Mapping[str, Any]], probes: Mapping[str, str], options: Sequence[str], mtu: int
) -> Iterator[Row]:
    for peer in peers:
        yield _peer(peer)
        if peer["name"] in probes:
            yield (f"probe: {probes[peer['name']]}",)
        yield from ((note,) for note in (*_troubles(peer), *_way_out(peer, options), *_contact(peer, mtu)))


def _troubles(peer: Mapping[str, Any]) -> Iterator[str]:
    """Why there are no SAs; policies of which the same is to be said are named together."""
    if peer.get("refusal"):
        yield f"what it asked for was refused {duration(peer['refused'])} ago: {peer['refusal']}"
    if peer.get("taken_down"):
        yield "taken down by a command: no SAs until it is brought up"
        return
    alike: dict[str, list[str]] = defaultdict(list)
    for policy in peer["policies"]:
        for reason in _reasons(policy, located=bool(peer["address"])):
            alike[reason].append(policy["name"])
    yield from (f"{', '.join(names)}: {reason}" for reason, names in alike.items())


def _reasons(policy: Mapping[str, Any], *, located: bool) -> Iterator[str]:
    error = policy["last_error"]
    if policy["failures"]:
        times = "once" if policy["failures"] == 1 else f"{policy['failures']} times"
        yield f"{error or 'no reason given'}; failed {times}, {_next_try(policy)}"
    elif error and policy["spi_in"] is None:  # a pair stood, and its peer is dead
        yield f"{error}; {_next_try(policy)}"
    if policy["spi_in"] is not None:
        pass
    elif policy["state"] == "negotiating":
        yield {"kdc": "no ticket yet from the KDC", "peer": "no answer yet from the peer"}.get(
            policy.get("waits_for") or "", "no answer yet, from the KDC or from the peer"
        )
    elif not located:
        yield "waiting for the peer: it has no address in the configuration, so the first message has to be its own"
    elif policy["start"] == "boot" and not policy["failures"] and not error:
        yield "starting"
    if policy["held"]:
        yield f"{policy['held']} packets wait for it"


def _idle(peers: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
    """Those are the last, and all of them for the same reason."""
    called = (peer["policies"] for peer in peers if peer["address"] and not peer.get("taken_down"))
    if any(policy_state(each) == "idle" and each["start"] == "demand" for policies in called for each in policies):
        yield ("idle: waiting for the first packet",)


def _next_try(policy: Mapping[str, Any]) -> str:
    if policy["state"] == "negotiating":
        return "trying again now"
    if policy["next_try"] is None:
        return "next try when a packet asks"
    return f"next try in {duration(policy['next_try'])}"


def _way_out(peer: Mapping[str, Any], options: Sequence[str]) -> Iterator[str]:
    """The command for whoever is at their wits' end. Of who came by a rule only they themselves know more."""
    name, guest = peer["name"], peer["name"] == peer["principal"]
    if not name.isprintable() or name.startswith("-"):
        return
    if peer.get("taken_down"):
        yield f"$ {shlex.join(['kinkvpn', 'up', *options, name])}"
    elif not guest and any(policy_state(policy) == "down" or policy["failures"] for policy in peer["policies"]):
        of_doctor = () if "--socket" in options else options
        yield f"$ {shlex.join(['kinkvpn', 'doctor', *of_doctor, name])}"


def _contact(peer: Mapping[str, Any], mtu: int) -> Iterator[str]:
    """Where it differs from what was configured, and from what nobody would ask about."""
    told = peer["extensions"]
    behind = [name for name, nat in (("we are", told["behind_nat"]), ("it is", told["peer_behind_nat"])) if nat]
    seen = f", seen by it at {told['seen_at']}" if told["behind_nat"] else ""
    if behind or peer["moved"]:
        where = f"ESP to {peer['esp']}, KINK to {peer['kink']}{', the ESP port' if peer['kink_marked'] else ''}"
        yield where + (f"; {' and '.join(behind)} behind a NAT{seen}" if behind else "")
    if told["inner_mtu"] is not None and told["inner_mtu"] < mtu:
        yield f"MTU {told['inner_mtu']}, of its device"


PAIRS = ("tunnel", "spi in", "spi out", ">left", ">CREATE", "suite", "sent as")


def _pair(policy: Mapping[str, Any], mtu: int) -> Iterator[Row]:
    """A pair that is established: what it is, what it does to packets, and what comes of that."""
    esn = "with ESN" if policy["esn"] else "without ESN"
    pfs = f", PFS by {policy['pfs']}" if policy["pfs"] else ""
    # Without it the peer has made a pair at the same time, and that is the one that stays.
    took = "-" if policy["create_ms"] is None else f"{policy['create_ms']:.1f} ms"
    numbers = policy["spi_in"], policy["spi_out"], duration(policy["lifetime"] - policy["since"]), took
    yield policy["name"], *numbers, f"{policy['suite']} {esn}{pfs}", ", ".join(_form(policy, mtu))
    if policy["engine_reason"]:
        left = [way for way in ("in", "out") if policy[f"engine_{way}"] == "portable"]
        yield (f"{' and '.join(left)} by the portable engine: {policy['engine_reason']}",)
    yield from ((note,) for note in _rate(policy))


def _form(policy: Mapping[str, Any], mtu: int) -> Iterator[str]:
    yield carried(policy["ipsec"], policy["encapsulation"])
    yield f"{policy['mode']} mode"
    if policy["tfc_octets"]:
        yield f"padded to {policy['tfc_octets']} octets"
    elif policy["tfc_wanted"]:
        yield "NOT PADDED, for the peer has not said that it takes it"
    if policy["largest"]:
        why = ", for the path carries no more" if policy["largest"] < mtu else ""
        yield f"up to {min(policy['largest'], mtu)} octets{why}"


def _rate(policy: Mapping[str, Any]) -> Iterator[str]:
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


def _sums(counters: Mapping[str, Any]) -> Iterator[Row]:
    yield "traffic", f"in {traffic(counters, 'in')}, out {traffic(counters, 'out')}"
    yield "dropped", counted(counters["drops"]) or "nothing"
    yield "KINK", counted(counters["kink"]) or "nothing yet"


def _facts(answer: Mapping[str, Any]) -> Iterator[Row]:
    """Of the daemon itself."""
    tun, listeners = answer["tun"], answer["listeners"]
    queues = f"; {answer['queues']} queues" if answer["queues"] > 1 else ""
    yield "principal", answer["principal"]
    yield "tickets", tickets(answer["tickets"])
    yield "device", f"{tun['name']}, MTU {tun['mtu']}, {', '.join(tun['addresses']) or 'no addresses'}"
    yield "engine", f"{answer['engine']}: {answer['engine_reason']}{queues}"
    yield "ciphers", answer["ciphers"]
    yield "offloads", offloads(answer["offloads"])
    yield "listening", f"KINK {', '.join(listeners['kink']) or 'on the ESP port'}; ESP {', '.join(listeners['esp'])}"


def tickets(state: Mapping[str, Any]) -> str:
    """What is at hand should the KDC go, and whether it has."""
    first = f"{state['kept']}, the first ends in {duration(state['first_ends'])}" if state["kept"] else "none"
    return f"{first}, {state['not_renewed']} could not be renewed" if state["not_renewed"] else first


def offloads(state: Mapping[str, str | None]) -> str:
    """Those in use, and why others are not."""
    used = ", ".join(name for name, reason in state.items() if reason is None)
    return "; ".join([used or "none", *(f"no {name}: {reason}" for name, reason in state.items() if reason)])


def _conclusion(worst_first: Sequence[Mapping[str, Any]], tunnels: Sequence[Mapping[str, Any]]) -> Row:
    """For whoever sees the end first: the worst there is, and who has it."""
    if not worst_first:
        return "idle", "there is no peer"
    state = peer_state(worst_first[0])
    up = sum(policy["state"] == "established" for policy in tunnels)
    words = f"{up} of {len(tunnels)} tunnels up"
    if state in ("established", "idle"):
        return state, words
    alike = ORDER[:2] if state in ORDER[:2] else (state,)
    names = [peer["name"] for peer in worst_first if peer_state(peer) in alike]
    who = ", ".join(names) if len(names) <= MOST_NAMES else f"{len(names)} of {len(worst_first)} peers, on top"
    return state, f"{who}; {words}"
