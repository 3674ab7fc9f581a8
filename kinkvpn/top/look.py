"""One look at a daemon by its API, and all that a screen shows of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kinkvpn.api.client import Client, Event, peer_path

if TYPE_CHECKING:
    from pathlib import Path

# Ours. Whoever looks every second has no use for an answer that takes longer, and to quit waits for it.
PATIENCE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen.

    Args:
        status: as ``GET /v1/status`` has it.
        sas: as ``GET /v1/sas``.
        events: that came since the look before, oldest first.
    """

    status: dict[str, Any]
    sas: list[dict[str, Any]]
    events: list[Event]


class Observer:
    """Looks at the daemon behind a control socket. What it raises is :class:`kinkvpn.api.client.Client`'s.

    Every look is a connection of its own: the daemon may be another one each time.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._newest = ""

    def look(self) -> Look:
        """Blocks for as long as the daemon takes, PATIENCE_SECONDS at most."""
        with Client(self.path, PATIENCE_SECONDS) as daemon:
            events = list(daemon.events(self._newest, follow=False))
            look = Look(daemon.status(), daemon.get("/v1/sas")["sas"], events)
        self._newest = next((event.id for event in reversed(events) if event.id), self._newest)
        return look

    def rekey(self, peer: str) -> str:
        """Make new keys with ``peer``; what came of it, in words."""
        with Client(self.path) as daemon:
            made = daemon.post(f"{peer_path(peer)}/rekey")["policies"]
        return f"{peer}: new keys for {', '.join(policy['name'] for policy in made)}"
