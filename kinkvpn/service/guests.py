"""People who are let in by a rule: each machine of theirs a peer that comes into being at its first authentic command,
and goes again.

Nothing is kept of somebody whom no rule names, and of somebody who is let in no more than of a configured peer, as many
as the configuration says. They go when their ticket has ended and no newer one was seen, when they have said good-bye
or were given up for dead, and when they have asked for nothing since they came.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from functools import partial
from ipaddress import ip_network
from math import inf
from typing import TYPE_CHECKING

import trio

from esp.policy import Selector
from esp.sa import Encapsulation, Endpoint, Mode, SecurityProtocol
from esp.suite import DEFAULT_SUITES
from kinkvpn.admission import NO_GROUPS, first_rule, lacks_groups
from kinkvpn.errors import AuthenticationFailed
from kinkvpn.proto.ports import NotAdmitted
from kinkvpn.proto.settings import PeerSettings, PolicySettings, UserToUser
from kinkvpn.service.pool import Pool
from kinkvpn.service.tunnels import protecting

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

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
# Ours. A machine that has said and sent nothing for so long makes room for another of its principal's, and comes back
# by itself when it has something to send. Shorter, and somebody who makes machines up would fill the memory of
# those who have gone (``roster``).
SILENT_SECONDS = 30.0


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

    def admit(
        self, keying: Keying, accepted: AcceptedRequest, machine: bytes, wished: Sequence[Address] = ()
    ) -> PeerSettings:
        """The peer that the machine is to be that sent an authentic command, for which the data plane is ready.

        Args:
            keying: has the others as peers.
            accepted: whose it is.
            machine: which of theirs; empty where it does not say. One that is here comes again.
            wished: addresses that it has had, or would have.

        Raises:
            NotAdmitted: no rule names them, there are too many already, there is no address left, or they are about to
                be a peer of the configuration.
        """
        principal = accepted.client
        if principal in self._coming:
            raise NotAdmitted(f"{principal} is about to be a peer of the configuration")
        rules, groups = self._settings.rules, partial(_groups, accepted)
        rule = first_rule(rules, principal, groups)
        if rule is None:
            why = f": {NO_GROUPS}" if lacks_groups(rules, principal, groups) else ""
            raise NotAdmitted(f"no peer is configured with principal {principal}, and no rule lets it in{why}")
        self._leave_as(keying, principal, machine, wished)
        name = self._place(keying, principal)
        addresses = self._pool.take(principal, wished, machine)
        guest = self._guest(name, principal, machine, replace(rule.lease, addresses=addresses))
        if not guest.policies:
            self._pool.give_back(principal, machine)
            raise NotAdmitted(f"{principal} would be let in, and people.addresses has none left")
        self._dataplane.change_policies((), protecting(guest))
        self._here[name] = guest, rule
        log.info("guest_came", extra={"fields": {"peer": name, "addresses": " ".join(map(str, addresses))}})
        return guest

    def _leave_as(self, keying: Keying, principal: str, machine: bytes, wished: Sequence[Address]) -> None:
        """Have that machine go, if it is here, for it to come with other addresses."""
        whose = ((name, guest) for name, (guest, _) in self._here.items() if guest.principal == principal)
        name = next((name for name, guest in whose if guest.machine == machine), None)
        if name is None:
            return
        if not any(map(self._pool.is_free, wished)):
            others = ", ".join(map(str, wished))
            raise NotAdmitted(f"{principal} comes with {others}, which it is not lent: kinkvpn up asks anew")
        self._leave(keying, name, "it has other addresses")

    def _place(self, keying: Keying, principal: str) -> str:
        """What the next machine of ``principal`` is called; where they are all here, the one that has been silent the
        longest goes.
        """
        names = [principal, *(f"{principal}#{number}" for number in range(2, self._settings.machines + 1))]
        free = next((name for name in names if name not in self._here), None)
        if free is None:
            silent = min(names, key=lambda name: self._heard(keying, name))
            if self._heard(keying, silent) + SILENT_SECONDS > trio.current_time():
                count = len(names)
                raise NotAdmitted(f"{principal} would be let in, and is here with {count} machines (people.machines)")
            self._leave(keying, silent, "another machine of its principal has come")
            return silent
        if len(self._here) >= self._settings.most:
            raise NotAdmitted(
                f"{principal} would be let in, and there are {len(self._here)} people already (people.most)"
            )
        return free

    def _heard(self, keying: Keying, name: str) -> float:
        """When something authentic of that guest came, a command or a packet."""
        times = keying.peers[name].last_heard, self._dataplane.last_heard(name)
        return max((time for time in times if time is not None), default=-inf)

    def _guest(self, name: str, principal: str, machine: bytes, lease: Lease) -> PeerSettings:
        """One pair of SAs for each route, and an address of its family."""
        pairs = [(route, own) for own in lease.addresses for route in lease.routes if route.version == own.version]
        suites = self._settings.suites
        policies = tuple(
            PolicySettings(f"{name}/{number}", Selector(route, ip_network(own)), suites, entry=name)
            for number, (route, own) in enumerate(pairs, 1)
        )
        return PeerSettings(
            name=name,
            principal=principal,
            # Wherever they are heard; and their tickets are a person's, whom no keytab opens (RFC 4430 §3.1).
            kink=Endpoint("", 0),
            esp=Endpoint("", 0),
            policies=policies,
            user_to_user=UserToUser.ALWAYS,
            probe_after=self._settings.probe_after,
            dead_after=self._settings.dead_after,
            lease=lease,
            machine=machine,
        )

    def change(self, keying: Keying, settings: PeopleSettings, peers: Collection[str]) -> None:
        """Other rules from now on, and for those who are here: whom they still let in comes again, by their daemon.

        Args:
            keying: has them as peers.
            settings: what is lent, and to whom; who has what they would not be given is seen off.
            peers: principals that are about to be configured peers, and no guests until the next change: the kernel is
                asked for routes meanwhile, and who was seen off is back at once.
        """
        self._settings, self._coming = settings, frozenset(peers)
        for holder in self._pool.change(settings.pool, settings.fixed):
            names = [name for name, (guest, _) in self._here.items() if (guest.principal, guest.machine) == holder]
            self._leave(keying, names[0], "it has another address by now")
        for name, (guest, rule) in list(self._here.items()):
            if rule not in settings.rules:
                self._leave(keying, name, "its rule is gone")
            elif guest.principal in peers:
                self._leave(keying, name, "it is a peer of the configuration now")

    async def see_off(self, keying: Keying) -> None:
        """Let go who is to go, until cancelled."""
        while True:
            await trio.sleep(LOOK_SECONDS)
            for name in list(self._here):
                reason = self._over(keying.peers[name])
                if reason:
                    self._leave(keying, name, reason)

    def _over(self, peer: Peer) -> str:
        """Why ``peer`` is to go; empty if not."""
        if self._clock() > peer.ticket_ends:
            return "its ticket has ended"
        quiet = peer.last_heard is None or peer.last_heard + LINGER_SECONDS < trio.current_time()
        if quiet and not peer.busy and not any(peer.pairs(policy) for policy in peer.policies):
            return "it has no SAs"
        return ""

    def _leave(self, keying: Keying, name: str, reason: str) -> None:
        guest, _ = self._here.pop(name)
        keying.remove_peer(name)
        self._dataplane.change_policies([policy.name for policy in guest.policies], ())
        self._pool.give_back(guest.principal, guest.machine)
        log.info("guest_left", extra={"fields": {"peer": name, "reason": reason}})


def carriers_of_anybody() -> list[Carrier]:
    """What SAs with whoever may come can be like, as far as sizes go; where they come from is not known."""
    return [(suite, Mode.TUNNEL, Encapsulation.UDP, SecurityProtocol.ESP, "") for suite in DEFAULT_SUITES]


def _groups(accepted: AcceptedRequest) -> frozenset[str]:
    try:
        return accepted.groups()
    except AuthenticationFailed as error:
        raise NotAdmitted(f"{accepted.client}: {error}") from error
