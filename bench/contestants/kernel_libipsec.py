"""strongSwan with kernel-libipsec: ESP in charon's own threads, keyed by IKEv2, OpenSSL for the cipher.

Its TUN has an MTU of 1,400 and always reads as much: a larger MTU cuts packets off.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from bench import strongswan
from bench.contestants.contestant import Setting, Tunnel
from bench.underlay import INNER, OUTER, underlay

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class KernelLibipsec:
    """Two charons, as :mod:`bench.strongswan` starts them."""

    name = "strongswan"

    def obstacle(self) -> str | None:
        return "; ".join(strongswan.missing()) or None

    def takes(self, setting: Setting) -> bool:
        return True

    @contextmanager
    def tunnel(self, setting: Setting, directory: Path) -> Iterator[Tunnel]:
        with underlay() as ends, ExitStack() as held:
            sessions, pids = [], []
            for side, end in enumerate(ends):
                end.ip(
                    f"address add {INNER[4][side]}/32 dev lo",
                    f"address add {INNER[6][side]}/128 dev lo nodad",
                    f"route add default via {OUTER[4][1 - side]}",
                    f"route add default via {OUTER[6][1 - side]}",
                )
                charon = strongswan.Charon(end.name, end, directory / end.name)
                held.callback(charon.close)
                sessions.append(charon.session())
                pids.append(charon.process.pid)
                _load(sessions[side], side, setting)
            strongswan.establish(sessions[0])
            version = sessions[0].version()["version"].decode()
            yield Tunnel(ends, setting.suite, tuple(pids), f"strongSwan {version} (kernel-libipsec)")


def _load(session: strongswan.Session, side: int, setting: Setting) -> None:
    strongswan.configure(
        session,
        side,
        addresses=OUTER[setting.outer],
        inside=[[f"{INNER[4][each]}/32", f"{INNER[6][each]}/128"] for each in (0, 1)],
        suite=setting.suite.replace("-", ""),
    )
