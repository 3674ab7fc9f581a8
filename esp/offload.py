"""Offloads: what the kernel takes and gives in one piece where the wire has many, asked for, in use, or refused.

Each can be asked for or not, is tried out at the start, and may fail later all the same: drivers differ. What has
failed once stays off.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class Offload(Enum):
    """One of them; its value is the name of its field in :class:`Offloads`."""

    TSO = "tso"
    USO = "uso"
    COALESCE = "coalesce"
    UDP_SEGMENT = "udp_segment"
    UDP_GRO = "udp_gro"


@dataclass(frozen=True, slots=True)
class Offloads:
    """A choice of them.

    Args:
        tso: the TUN gives TCP segments of up to 64 kB, for us to cut (linux/if_tun.h, TUN_F_TSO4 and TUN_F_TSO6).
        uso: likewise runs of UDP datagrams (TUN_F_USO4, TUN_F_USO6).
        coalesce: the TUN is given segments of one flow put together again.
        udp_segment: a run of datagrams to one remote is sent in one call (udp(7), UDP_SEGMENT).
        udp_gro: such a run is received in one call (udp(7), UDP_GRO).
    """

    tso: bool = True
    uso: bool = True
    coalesce: bool = True
    udp_segment: bool = True
    udp_gro: bool = True

    def without(self, *others: Offload) -> Offloads:
        """These but for ``others``."""
        return replace(self, **{each.value: False for each in others})

    def has(self, offload: Offload) -> bool:
        """Whether ``offload`` is one of them."""
        return bool(getattr(self, offload.value))


ALL_OFFLOADS = Offloads()
NO_OFFLOADS = ALL_OFFLOADS.without(*Offload)

# Who has which: the TUN, and a UDP socket.
OF_TUN = (Offload.TSO, Offload.USO, Offload.COALESCE)
OF_UDP = (Offload.UDP_SEGMENT, Offload.UDP_GRO)


class Grant:
    """What is in use of those offloads that a device or socket may have, and why the others are not.

    Args:
        wanted: by who configures it.
        possible: what one of its kind may have; others are not its affair.

    Attributes:
        offloads: in use now.
        refusals: reasons, by offload, of those that were wanted and are not in use.
    """

    __slots__ = ("_untold", "offloads", "refusals")

    def __init__(self, wanted: Offloads, possible: Sequence[Offload] = ()) -> None:
        self.offloads = wanted.without(*(each for each in Offload if each not in possible))
        self.refusals: dict[Offload, str] = {}
        self._untold: list[tuple[Offload, str]] = []

    def refuse(self, reason: str, *refused: Offload) -> None:
        """Do without ``refused`` from now on; what is not in use is not refused again."""
        for each in refused:
            if self.offloads.has(each):
                self.refusals[each] = reason
                self._untold.append((each, reason))
        self.offloads = self.offloads.without(*refused)

    def take_refusals(self) -> list[tuple[Offload, str]]:
        """Those that nobody has taken yet, each with its reason."""
        taken, self._untold = self._untold, []
        return taken
