"""What the API lists, as people read it: tables of peers, policies, SAs and counters, and an event as a line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from kinkvpn.view import duration, octets, peer_state, policy_state, printable, traffic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

Row = tuple[str, ...]


class Listing(NamedTuple):
    """Headings, those of numbers with a ``>`` before them, and what makes rows of an answer."""

    heading: Row
    rows: Callable[[Mapping[str, Any]], Iterator[Row]]


def peers(answer: Mapping[str, Any]) -> Iterator[Row]:
    """A row for each peer; how many of its policies have SAs."""
    for peer in answer["peers"]:
        states = [policy["state"] for policy in peer["policies"]]
        up = f"{states.count('established')}/{len(states)}"
        heard = "never" if peer["last_heard"] is None else duration(peer["last_heard"])
        yield peer["name"], peer_state(peer), peer["address"] or "-", heard, up, printable(peer["principal"])


def policies(answer: Mapping[str, Any]) -> Iterator[Row]:
    """A row for each policy."""
    for policy in answer["policies"]:
        age = "-" if policy["since"] is None else duration(policy["since"])
        flow = f"{policy['local']} > {policy['remote']}"
        yield policy["name"], policy_state(policy), age, traffic(policy, "in"), traffic(policy, "out"), flow


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
        yield f"{policy['name']}: spi in {policy['spi_in']} out {policy['spi_out']}, {policy['suite']}{took}"


def event(data: Mapping[str, Any]) -> str:
    """``2026-03-01T12:00:00.000Z warning create_failed peer=west reason=no answer``."""
    fields = [f"{name}={value}" for name, value in data.items() if name not in ("time", "level", "event", "logger")]
    return printable(
        " ".join([str(data.get("time", "")), f"{data.get('level', ''):7}", str(data.get("event")), *fields])
    )
