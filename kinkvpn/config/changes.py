"""What of a configuration is another in one written later, and which of that takes a restart."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING

from kinkvpn.errors import KinkvpnError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kinkvpn.config.configuration import Configuration
    from kinkvpn.config.peer import PeerConfiguration

# What a running daemon can take over.
CHANGEABLE = {"peers", "before", "after", "log.level", "clear.bypass", "clear.block"}
CHANGEABLE.add("tun.lent")  # which is people.addresses, and named as that
CHANGEABLE |= {f"people.{name}" for name in ("rules", "most", "machines", "suites", "probe_after", "dead_after")}
# As they are written, where that is another name.
_WRITTEN = {
    "esp.engine.choice": "esp.engine",
    "esp.engine.library": "esp.cipher_library",
    "esp.engine.queues": "esp.queues",
    "people.pool": "people.addresses",
}


class RestartNeeded(KinkvpnError):
    """Something that is written cannot come about in a running daemon; a line for each."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What is to be done.

    Args:
        gone: names of peers that are written no more.
        changed, come: peers that are written otherwise, and new ones.
    """

    gone: tuple[str, ...]
    changed: tuple[PeerConfiguration, ...]
    come: tuple[PeerConfiguration, ...]


def changes(running: Configuration, written: Configuration) -> Changes:
    """From ``running`` to ``written``.

    Raises:
        RestartNeeded: a line for each key that cannot change.
    """
    fixed = list(_fixed("", running, written))
    if fixed:
        raise RestartNeeded("\n".join(fixed))
    before = {peer.name: peer for peer in running.peers}
    after = {peer.name: peer for peer in written.peers}
    return Changes(
        gone=tuple(name for name in before if name not in after),
        changed=tuple(peer for name, peer in after.items() if name in before and peer != before[name]),
        come=tuple(peer for name, peer in after.items() if name not in before),
    )


def _fixed(path: str, running: object, written: object) -> Iterator[str]:
    """A line for each key below ``path`` that is another, and may not be."""
    if path in CHANGEABLE or running == written:
        return
    if is_dataclass(running) and type(running) is type(written):
        for field in fields(running):
            name = f"{path}.{field.name}" if path else field.name
            yield from _fixed(name, getattr(running, field.name), getattr(written, field.name))
        return
    yield f"{_WRITTEN.get(path, path)} is another one now, which takes a restart: nothing has been changed"
