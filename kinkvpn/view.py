"""Words for what people read: how long, how much, and how things stand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

# A row of a table, a cell for each of its columns; with fewer, it is a note that belongs to the row before it.
Row = tuple[str, ...]
# Its heading, and its rows.
Table = tuple[Row, Sequence[Row]]


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


def counted(counters: Mapping[str, int]) -> str:
    """``replayed 2, too_old 1``: those that are not zero."""
    return ", ".join(f"{name} {count}" for name, count in counters.items() if count)
