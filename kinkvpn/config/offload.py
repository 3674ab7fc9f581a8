"""Which offloads may be used: [offload]."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from esp.offload import Offload, Offloads
from kinkvpn import values

if TYPE_CHECKING:
    from kinkvpn.document import Table


class Switch(Enum):
    """Whether something is used where it is of use."""

    AUTO = "auto"
    OFF = "off"


def read_offload(table: Table) -> Offloads:
    """[offload], of any file that has one: those that may be used."""
    switches = {each.value: table.get(each.value, values.one_of(Switch), Switch.AUTO) for each in Offload}
    table.close()
    return Offloads(**{name: switch is Switch.AUTO for name, switch in switches.items()})
