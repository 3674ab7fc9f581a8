"""A configuration that was written while the daemon runs takes the place of the one it runs by, or nothing does."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import trio

from kinkvpn.config import load
from kinkvpn.config.changes import changes, with_names_of
from kinkvpn.errors import KinkvpnError
from kinkvpn.service import bypass, kill_switch
from kinkvpn.service.preflight import resolve_peers
from kinkvpn.service.tunnels import Altered, Exceptions

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from kinkvpn.api.answers import Reloaded
    from kinkvpn.config import Configuration, PeopleSettings
    from kinkvpn.config.changes import Changes
    from kinkvpn.service.tunnels import Tunnels

log = logging.getLogger(__name__)


class ReloadRefused(KinkvpnError):
    """Nothing has changed; a line for each reason."""


def _read(source: Path) -> Configuration:
    return bypass.here(load(source))


class Reload:
    """Of one daemon.

    Args:
        source: the file; None where the configuration was made of something else.
        configuration: that runs.
        tunnels: that it has brought about.
        people: takes over what is written of them, and principals that are about to be peers', until the next call.
        others: takes over the rest, at the end, and has no reason to refuse.
    """

    def __init__(
        self,
        source: Path | None,
        configuration: Configuration,
        tunnels: Tunnels,
        people: Callable[[PeopleSettings, Collection[str]], None],
        others: Callable[[Configuration], None],
    ) -> None:
        self._source = source
        self._tunnels, self._people, self._others = tunnels, people, others
        self._one_at_a_time = trio.Lock()
        self.configuration = configuration

    async def __call__(self) -> Reloaded:
        """Read the file again and change what is another in it.

        Raises:
            ReloadRefused: it cannot be read, is no valid configuration, takes a restart, names a host that does not
                resolve, or the kernel will not have what follows from it. Nothing has changed.
        """
        async with self._one_at_a_time:
            try:
                done = await self._reload()
            except KinkvpnError as error:
                for line in str(error).splitlines():
                    log.error("reload_refused", extra={"fields": {"reason": line}})
                raise ReloadRefused(str(error)) from error
        log.info("reloaded", extra={"fields": {what: names for what, names in done.items() if what != "unchanged"}})
        return done

    async def _reload(self) -> Reloaded:
        if self._source is None:
            raise ReloadRefused("there is no file to read again: this daemon was started without one")
        written = with_names_of(self.configuration, await trio.to_thread.run_sync(_read, self._source))
        found = changes(self.configuration, written)
        come = await resolve_peers(replace(written, peers=(*found.replaced, *found.come)))
        altered = await self._altered(written, found)
        replaced = [peer.name for peer in found.replaced]
        await kill_switch.block(written)  # before there is anything new that could go past a tunnel
        self._people(self.configuration.people, {peer.principal for peer in come})
        try:
            exceptions = Exceptions(written.before, written.after)
            await self._tunnels.change((*found.gone, *replaced), come, exceptions, altered, written.tun)
        except KinkvpnError:
            self._people(self.configuration.people, ())
            await kill_switch.block(self.configuration)
            raise
        self._people(written.people, ())
        self._others(written)
        before, self.configuration = self.configuration.peers, written
        return {
            "added": [peer.name for peer in found.come],
            "changed": [peer.name for peer in found.altered],
            "replaced": replaced,
            "removed": list(found.gone),
            "unchanged": [peer.name for peer in written.peers if peer in before],
        }

    async def _altered(self, written: Configuration, found: Changes) -> list[Altered]:
        """Where they are now, which a name that has come to another address meanwhile does not change."""
        running = [self._tunnels.peers[peer.name] for peer in found.altered]
        there = [replace(peer, address=now.kink.address) for peer, now in zip(found.altered, running, strict=True)]
        settings = await resolve_peers(replace(written, peers=tuple(there)))
        return [
            Altered(replace(new, local=now.local or new.local), found.ended[new.name])
            for new, now in zip(settings, running, strict=True)
        ]
