"""Where ``kinkvpn status`` and the like find the daemon: [control]."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kinkvpn import values

if TYPE_CHECKING:
    from kinkvpn.document import Table


@dataclass(frozen=True, slots=True)
class ControlSettings:
    """Where ``kinkvpn status`` and ``kinkvpn down`` find the daemon."""

    socket: Path = Path("/run/kinkvpn/kinkvpn.sock")


def read_control(table: Table, directory: Path) -> ControlSettings:
    """[control]; a relative path in it starts at ``directory``."""
    settings = ControlSettings(socket=table.get("socket", values.socket_path(directory), ControlSettings().socket))
    table.close()
    return settings
