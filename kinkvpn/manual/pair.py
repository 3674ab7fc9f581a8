"""A pair of SAs that somebody has written down, and the same pair as the host at its other end has it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from esp.policy import Selector
    from esp.sa import Endpoint, SaParameters


@dataclass(frozen=True, slots=True)
class Pair:
    """The two SAs of one policy (RFC 4301 §4.1: an SA is one-way).

    Args:
        local: this host's outer address and port; the other end is the ``remote`` of both SAs.
        outbound, inbound: with one selector, as this host sees it.
    """

    local: Endpoint
    outbound: SaParameters
    inbound: SaParameters

    @property
    def remote(self) -> Endpoint:
        """The other end's outer address and port."""
        return self.outbound.remote

    def turned_about(self) -> Pair:
        """As the other end has it."""
        return Pair(self.remote, self._turn(self.inbound), self._turn(self.outbound))

    def _turn(self, sa: SaParameters) -> SaParameters:
        local = self.remote.address if sa.local else ""
        return replace(sa, remote=self.local, local=local, selector=_turn_selector(sa.selector))


def _turn_selector(selector: Selector) -> Selector:
    return replace(
        selector,
        local=selector.remote,
        remote=selector.local,
        local_port=selector.remote_port,
        remote_port=selector.local_port,
    )
