"""Who sits at a terminal and has typed a gateway's name: of what the log has, the lines that are for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

from kinkvpn.terminal import folded, printable, width_of

if TYPE_CHECKING:
    from collections.abc import Mapping


class Person:
    """Told of the log's events, as ``told_to`` has them; warnings they see in the log itself.

    Args:
        out: their terminal.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._inside = self._been = False

    def take(self, event: Mapping[str, object]) -> None:
        """One event."""
        line = self._line(str(event["event"]), event)
        if line:
            self._out.write(f"{folded(printable(line), width_of(self._out))}\n")
            self._out.flush()

    def _line(self, name: str, about: Mapping[str, object]) -> str:
        match name:
            case "tickets_used":
                return f"{about['principal']}, by the tickets in {about['ccache']}"
            case "gateway_asked":
                return f"asking {about['gateway']} ({about['address']}) for an address ..."
            case "lent":
                names = _listed(about["servers"])
                asked = f"; names are asked of {names}" if names else ""
                return f"it lends {_listed(about['addresses'])}, and leads to {_listed(about['routes'])}{asked}"
            case "sa_established" if not self._inside:
                again, self._inside, self._been = self._been, True, True
                return f"in its network{' again' if again else ': Ctrl-C ends that, kinkvpn status shows more'}"
            case "peer_dead" | "peer_restarted":
                self._inside = False
            case "slept":
                return f"asleep for {about['seconds']} s"
            case "moved":
                return f"in another network, at {about['to']}"
            case "stopping":
                return "leaving ..."
        return ""


def _listed(values: object) -> str:
    return ", ".join(map(str, values)) if isinstance(values, list) else str(values)
