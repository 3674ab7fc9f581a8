"""No tunnel: the inner addresses are on the wire itself. What the two TCP stacks and the wire can do."""

from __future__ import annotations

import platform
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bench.contestants.contestant import Setting, Tunnel
from bench.underlay import INNER, underlay
from kinkvpn.demo.lab import WIRE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Veth:
    """The wire."""

    name = "veth"

    def obstacle(self) -> str | None:
        return None

    def takes(self, setting: Setting) -> bool:
        return setting == Setting()

    @contextmanager
    def tunnel(self, setting: Setting, directory: Path) -> Iterator[Tunnel]:
        with underlay() as ends:
            for side, end in enumerate(ends):
                for version, addresses in INNER.items():
                    near, far = addresses[side], addresses[1 - side]
                    length, nodad = (32, "") if version == 4 else (128, "nodad")
                    end.ip(
                        f"address add {near}/{length} dev {WIRE} {nodad}",
                        f"route add {far}/{length} dev {WIRE} src {near}",
                    )
            yield Tunnel(ends, "none", (), f"Linux {platform.release()}")
