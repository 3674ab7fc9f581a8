"""Where ``kinkvpn status`` and the like find the daemon: [control]."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from kinkvpn import values

if TYPE_CHECKING:
    from kinkvpn.document import Table


class GroupMay(Enum):
    """What those may do who are let in by their group alone."""

    LOOK = "look"
    CHANGE = "change"


@dataclass(frozen=True, slots=True)
class ControlSettings:
    """Where ``kinkvpn status`` and ``kinkvpn down`` find the daemon, and who may beside its own user and root.

    Args:
        socket: its path.
        group: whose members may open it; empty for nobody's.
        group_may: what they may do.
    """

    socket: Path = Path("/run/kinkvpn/kinkvpn.sock")
    group: str = ""
    group_may: GroupMay = GroupMay.LOOK


def read_control(table: Table) -> ControlSettings:
    """[control]; a relative path in it starts where the file is."""
    settings = ControlSettings(
        socket=table.get("socket", values.socket_path(table.directory), ControlSettings().socket),
        group=table.get("group", values.label, ""),
        group_may=table.get("group_may", values.one_of(GroupMay), GroupMay.LOOK),
    )
    table.close()
    return settings
