"""What may leave this host in the clear: [clear]."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from kinkvpn import values
from kinkvpn.document import Unexpected

if TYPE_CHECKING:
    from esp.policy import Network
    from kinkvpn.document import Table


class Block(Enum):
    """What must not leave it otherwise than through the tunnel, whether there is one or not."""

    NOTHING = "nothing"
    PROTECTED = "protected"
    EVERYTHING = "everything"


class Known(Enum):
    """What goes past the tunnel, by a name for it."""

    LAN = "lan"
    KDC = "kdc"
    DNS = "dns"


@dataclass(frozen=True, slots=True)
class ClearSettings:
    """Split tunnel and kill switch.

    Args:
        bypass: what goes past the tunnel, whatever the peers' policies say.
        block: what is kept in besides.
    """

    bypass: tuple[Known | Network, ...] = ()
    block: Block = Block.NOTHING


def read_clear(table: Table) -> ClearSettings:
    """[clear]."""
    default = ClearSettings()
    settings = ClearSettings(
        bypass=table.items("bypass", _bypassed, default.bypass),
        block=table.get("block", values.one_of(Block), default.block),
    )
    table.close()
    return settings


def _bypassed(value: object) -> Known | Network:
    try:
        return Known(value)
    except ValueError:
        pass
    try:
        return values.network(value)
    except Unexpected as expected:
        raise Unexpected(f'"lan", "kdc", "dns", or {expected}') from None
