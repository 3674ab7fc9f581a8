"""Whom names are asked for in a mount namespace: resolv.conf of our own, and nobody outside by a Unix socket.

A network namespace does not confine sockets that have a path. Through them the C library would ask services of the
host, which ask the network outside, in the clear (nsswitch.conf(5): nscd, nss-resolve, nss-mdns).
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from kinkvpn.rootless.namespace import Step, attempting, mount

if TYPE_CHECKING:
    from collections.abc import Sequence

RESOLV_CONF = Path("/etc/resolv.conf")
# Where the sockets of those services are.
ASKED_OUTSIDE = tuple(map(Path, ("/run/nscd", "/var/run/nscd", "/run/systemd/resolve", "/run/avahi-daemon")))

MS_BIND = 0x1000  # linux/mount.h


def use_resolvers(resolvers: Sequence[str], search: Sequence[str] = ()) -> None:
    """Have names be asked of ``resolvers``, addresses in text form, in this mount namespace; none leaves resolv.conf.

    Raises:
        StepRefused: a mount is refused, or there is no directory for a file of a moment.
    """
    before = RESOLV_CONF.read_bytes() if RESOLV_CONF.exists() else b""
    hide(ASKED_OUTSIDE)
    text = "".join(f"nameserver {each}\n" for each in resolvers)
    text += f"search {' '.join(search)}\n" if search else ""
    target = Path(os.path.realpath(RESOLV_CONF))
    with attempting(Step.MOUNT):
        if not target.exists() and target.parent.is_dir():
            target.write_bytes(before)  # it was in what is hidden now
        if resolvers:
            cover(target, text)


def hide(directories: Sequence[Path]) -> None:
    """Have each of ``directories`` that there is be empty here. Raises StepRefused."""
    for each in dict.fromkeys(path.resolve() for path in directories if path.is_dir()):
        with attempting(Step.MOUNT):
            mount("none", str(each), "tmpfs")


def cover(path: Path, text: str) -> None:
    """Have ``path``, a file, hold ``text`` here. Raises OSError."""
    # What is mounted stays when its name goes, so nothing is left that somebody would have to remove.
    with tempfile.NamedTemporaryFile("w", prefix="kinkvpn-") as file:
        file.write(text)
        file.flush()
        os.fchmod(file.fileno(), 0o644)
        mount(file.name, str(path), "none", MS_BIND)
