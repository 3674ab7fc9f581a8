"""Commands that are run when the host or a peer comes and goes: [hooks]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kinkvpn import values

if TYPE_CHECKING:
    from kinkvpn.document import Table


@dataclass(frozen=True, slots=True)
class HookSettings:
    """Commands, each a program and its arguments; an empty one is none.

    Args:
        up, down: when the daemon has started, and before it takes away what it has made of the host.
        peer_up, peer_down: when the first pair of SAs with a peer stands, and when the last one has gone.
        timeout: seconds that any of them may take.
    """

    up: tuple[str, ...] = ()
    down: tuple[str, ...] = ()
    peer_up: tuple[str, ...] = ()
    peer_down: tuple[str, ...] = ()
    timeout: float = 10.0


def read_hooks(table: Table) -> HookSettings:
    """[hooks]."""
    default = HookSettings()
    settings = HookSettings(
        up=table.get("up", values.command, default.up),
        down=table.get("down", values.command, default.down),
        peer_up=table.get("peer_up", values.command, default.peer_up),
        peer_down=table.get("peer_down", values.command, default.peer_down),
        timeout=table.get("timeout", values.seconds(0.1, 300), default.timeout),
    )
    table.close()
    return settings
