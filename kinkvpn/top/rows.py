"""A look as rows of tables: text alone, whatever a peer or a KDC had to say (RFC 4430 has no charset)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from kinkvpn import view
from kinkvpn.metrics import seconds_left
from kinkvpn.terminal import printable
from kinkvpn.top.history import sparkline

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kinkvpn.api.client import Event
    from kinkvpn.top.history import History
    from kinkvpn.top.look import Look

TUNNELS = ("Tunnel", "State", "Left", "In", "Out", "Traffic")
SAS = ("SPI", "Tunnel", "Way", "Left", "Packets", "Octets", "Suite")
DROPS = ("Dropped", "Packets", "Now")


class Tunnel(NamedTuple):
    """A policy in the table: what it is sorted by, and its cells."""

    key: str
    peer: str
    state: str
    left: float
    rate: float
    cells: tuple[str, ...]


# What a column is sorted by, in the order of the key that changes it: the first is as configured, but for those that
# somebody has to look at.
SORTS = ("down first", "name", "state", "rate", "time left")


def counters_of(look: Look) -> dict[str, int]:
    """What grows, by name: ``octets in``, ``dropped``, ``east/1 out``, ``dropped replayed``."""
    counters = look.status["counters"]
    found = {"octets in": counters["octets_in"], "octets out": counters["octets_out"]}
    found["dropped"] = sum(counters["drops"].values())
    found |= {f"dropped {reason}": count for reason, count in counters["drops"].items()}
    for policy in policies_of(look):
        for way in ("in", "out"):
            found[f"{policy['name']} {way}"] = policy[f"octets_{way}"]
    return found


def policies_of(look: Look) -> Iterator[Mapping[str, Any]]:
    """Of every peer."""
    return (policy for peer in look.status["peers"] for policy in peer["policies"])


def tunnels(look: Look, history: History, *, matching: str = "", sort: str = SORTS[0], spark: int = 16) -> list[Tunnel]:
    """A row for each policy that has ``matching`` in its name, state or peer, sorted.

    Args:
        look, history: what was seen, and how it grew.
        matching: in any case.
        sort: one of SORTS.
        spark: columns for a sparkline.
    """
    rows = [_tunnel(peer, policy, history, spark) for peer in look.status["peers"] for policy in peer["policies"]]
    wanted = matching.casefold()
    shown = [row for row in rows if wanted in f"{row.key} {row.peer} {row.state}".casefold()]
    orders = {
        "down first": lambda row: row.state in ("established", "idle"),
        "name": lambda row: row.key,
        "state": lambda row: (row.state == "established", row.state, row.key),
        "rate": lambda row: -row.rate,
        "time left": lambda row: row.left,
    }
    return sorted(shown, key=orders[sort])


def _tunnel(peer: Mapping[str, Any], policy: Mapping[str, Any], history: History, spark: int) -> Tunnel:
    name, state = policy["name"], view.policy_state(policy)
    rates = {way: history.rate(f"{name} {way}") for way in ("in", "out")}
    both = [sum(pair) for pair in zip(history.rates(f"{name} in"), history.rates(f"{name} out"), strict=True)]
    left = seconds_left(policy)
    ends = view.duration(left) if policy["since"] is not None else _why(policy)
    cells = (name, state, ends, view.bits(rates["in"] * 8), view.bits(rates["out"] * 8), sparkline(both, spark))
    return Tunnel(name, peer["name"], state, left, sum(rates.values()), tuple(map(printable, cells)))


def _why(policy: Mapping[str, Any]) -> str:
    """Of one without SAs: how often it has failed, and when it is tried again."""
    if not policy["failures"]:
        return "-"
    return f"try in {view.duration(policy['next_try'])}" if policy["next_try"] is not None else "failed"


def sas(look: Look) -> list[tuple[str, ...]]:
    """A row for each SA, those that end first on top."""
    ordered = sorted(look.sas, key=lambda sa: (_left(sa) is None, _left(sa) or 0.0, sa["policy"], sa["direction"]))
    return [
        (
            sa["spi"],
            printable(sa["policy"]),
            sa["direction"],
            "-" if _left(sa) is None else view.duration(_left(sa) or 0.0),
            str(sa["packets"]),
            view.octets(sa["octets"]),
            sa["suite"],
        )
        for sa in ordered
    ]


def _left(sa: Mapping[str, Any]) -> float | None:
    """Seconds until it ends; None for one that waits for its ACK or its end."""
    return None if sa["since"] is None or sa["lifetime"] is None else max(0.0, sa["lifetime"] - sa["since"])


def drops(look: Look, history: History) -> list[tuple[str, ...]]:
    """A row for each reason that there was, the most frequent on top."""
    counted = sorted(look.status["counters"]["drops"].items(), key=lambda each: -each[1])
    return [(reason, str(count), f"{history.rate(f'dropped {reason}'):.3g}/s") for reason, count in counted]


def told(event: Event) -> str:
    """An event as a line of the log has it, the date left out."""
    if event.type == "lost":
        return f"{event.data.get('lost')} events came too fast to be kept"
    said = {name: value for name, value in event.data.items() if name not in ("time", "level", "event", "logger")}
    words = " ".join(f"{name}={value}" for name, value in said.items() if name != "traceback")
    clock = str(event.data.get("time", ""))[11:19]
    return printable(f"{clock} {event.data.get('event', '')} {words}")
