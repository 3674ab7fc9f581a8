"""People who are let in by a rule: each a peer that comes into being at their first authentic command, and goes again.

Nothing is kept of somebody whom no rule names, and of somebody who is let in no more than of a configured peer, as many
as the configuration says. They go when their ticket has ended and no newer one was seen, when they have said good-bye
or were given up for dead, and when they have asked for nothing since they came.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from ipaddress import ip_network
from typing import TYPE_CHECKING

import trio

from esp.policy import Selector
from esp.sa import Encapsulation, Endpoint, Mode, SecurityProtocol
from esp.suite import DEFAULT_SUITES
from kinkvpn.admission import first_rule
from kinkvpn.errors import AuthenticationFailed
from kinkvpn.proto.ports import NotAdmitted
from kinkvpn.proto.settings import PeerSettings, PolicySettings, UserToUser
from kinkvpn.service.pool import Pool
from kinkvpn.service.tunnels import protecting

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from esp.dataplane import Dataplane
    from kinkvpn.admission import Rule
    from kinkvpn.config import PeopleSettings
    from kinkvpn.proto.lease import Address, Lease
    from kinkvpn.proto.peer import Peer
    from kinkvpn.proto.ports import AcceptedRequest
    from kinkvpn.service.keying import Keying
    from kinkvpn.service.paths import Carrier

log = logging.getLogger(__name__)

# Ours. Between two looks at who has gone. A ticket that has ended lets nobody in anyway; what it has let in may take so
# much longer.
LOOK_SECONDS = 5.0
# Ours. Whoever has no SAs may be about to make some: with a KDC that is slow a CREATE comes seconds after the STATUS,
# and after a network that was away for a moment, minutes.
LINGER_SECONDS = 120.0


class Guests:
    """Those who are here.

    Args:
        settings: of the gateway.
        own: addresses of the gateway, which are nobody else's.
        dataplane: gets their policies.
        clock: POSIX seconds, by which tickets end.
    """

    def __init__(
        self,
        settings: PeopleSettings,
        own: Iterable[Address],
        dataplane: Dataplane,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._dataplane = dataplane
        self._clock = clock
        self._pool = Pool(settings.pool, settings.fixed, frozenset(own))
        self._here: dict[str, tuple[PeerSettings, Rule]] = {}
        self._coming: frozenset[str] = frozenset()

    def admit(self, accepted: AcceptedRequest) -> PeerSettings:
        """The peer that whoever sent an authentic command is to be from now on, for whom the data plane is ready.

        Raises:
            NotAdmitted: no rule names them, there are too many already, there is no address left, or they are about to
                be a peer of the configuration.
        """
        principal = accepted.client
        if principal in self._coming:
            raise NotAdmitted(f"{principal} is about to be a peer of the configuration")
        rule = first_rule(self._settings.rules, principal, lambda: _groups(accepted))
        if rule is None:
            raise NotAdmitted(f"no peer is configured with principal {principal}, and no rule lets it in")
        if len(self._here) >= self._settings.most:
            raise NotAdmitted(
                f"{principal} would be let in, and there are {len(self._here)} people already (people.most)"
            )
        addresses = self._pool.take(principal)
        guest = self._guest(principal, replace(rule.lease, addresses=addresses))
        if not guest.policies:
            self._pool.give_back(principal)
            raise NotAdmitted(f"{principal} would be let in, and people.addresses has none left")
        self._dataplane.change_policies((), protecting(guest))
        self._here[principal] = guest, rule
        log.info("guest_came", extra={"fields": {"peer": principal, "addresses": " ".join(map(str, addresses))}})
        return guest

    def _guest(self, principal: str, lease: Lease) -> PeerSettings:
        """One pair of SAs for each route, and an address of its family."""
        pairs = [(route, own) for own in lease.addresses for route in lease.routes if route.version == own.version]
        policies = tuple(
            PolicySettings(f"{principal}/{number}", Selector(route, ip_network(own)), entry=principal)
            for number, (route, own) in enumerate(pairs, 1)
        )
        return PeerSettings(
            name=principal,
            principal=principal,
            # Wherever they are heard; and their tickets are a person's, whom no keytab opens (RFC 4430 §3.1).
            kink=Endpoint("", 0),
            esp=Endpoint("", 0),
            policies=policies,
            user_to_user=UserToUser.ALWAYS,
            probe_after=self._settings.probe_after,
            dead_after=self._settings.dead_after,
            lease=lease,
        )

    def change(self, keying: Keying, settings: PeopleSettings, peers: Collection[str]) -> None:
        """Other rules from now on, and for those who are here: whom they still let in comes again, by their daemon.

        Args:
            keying: has them as peers.
            settings: with the same addresses.
            peers: principals that are about to be configured peers, and no guests until the next change: the kernel is
                asked for routes meanwhile, and who was seen off is back at once.
        """
        self._settings, self._coming = settings, frozenset(peers)
        for principal, (_, rule) in list(self._here.items()):
            if rule not in settings.rules:
                self._leave(keying, principal, "its rule is gone")
            elif principal in peers:
                self._leave(keying, principal, "it is a peer of the configuration now")

    async def see_off(self, keying: Keying) -> None:
        """Let go who is to go, until cancelled."""
        while True:
            await trio.sleep(LOOK_SECONDS)
            for principal in list(self._here):
                reason = self._over(keying.peers[principal])
                if reason:
                    self._leave(keying, principal, reason)

    def _over(self, peer: Peer) -> str:
        """Why ``peer`` is to go; empty if not."""
        if self._clock() > peer.ticket_ends:
            return "its ticket has ended"
        quiet = peer.last_heard is None or peer.last_heard + LINGER_SECONDS < trio.current_time()
        if quiet and not peer.busy and not any(peer.pairs(policy) for policy in peer.policies):
            return "it has no SAs"
        return ""

    def _leave(self, keying: Keying, principal: str, reason: str) -> None:
        guest, _ = self._here.pop(principal)
        keying.remove_peer(principal)
        self._dataplane.change_policies([policy.name for policy in guest.policies], ())
        self._pool.give_back(principal)
        log.info("guest_left", extra={"fields": {"peer": principal, "reason": reason}})


def carriers_of_anybody() -> list[Carrier]:
    """What SAs with whoever may come can be like, as far as sizes go; where they come from is not known."""
    return [(suite, Mode.TUNNEL, Encapsulation.UDP, SecurityProtocol.ESP, "") for suite in DEFAULT_SUITES]


def _groups(accepted: AcceptedRequest) -> frozenset[str]:
    try:
        return accepted.groups()
    except AuthenticationFailed as error:
        raise NotAdmitted(f"{accepted.client}: {error}") from error
