"""What this host keeps up with its peers: policies, routes and keying, made together and changed together."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import trio

from esp.policy import Policy
from esp.sa import Encapsulation, Mode, SecurityProtocol
from kinkvpn.service.devices import network_plan
from kinkvpn.service.roster import PeerRefused
from kinkvpn.traffic import AFTER, PROTECTING, overlaps, show_selector

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence, Set

    from esp.dataplane import Dataplane
    from esp.sa import Endpoint
    from kinkvpn.config import TunSettings
    from kinkvpn.proto.settings import PeerSettings, PolicySettings
    from kinkvpn.service.keying import Keying
    from kinkvpn.service.netconf import NetworkPlan
    from kinkvpn.service.paths import PathMtus
    from kinkvpn.service.place import Configured


@dataclass(frozen=True, slots=True)
class Exceptions:
    """What is bypassed or discarded, in order, ahead of the peers' policies and behind them."""

    before: tuple[Policy, ...] = ()
    after: tuple[Policy, ...] = ()


@dataclass(frozen=True, slots=True)
class Altered:
    """A peer that stays, with other settings.

    Args:
        settings: with the same principal and place.
        ended: names of policies that are not in it, or whose SAs would be others by it: those it has now go.
    """

    settings: PeerSettings
    ended: frozenset[str]


def policies_of(exceptions: Exceptions, peers: Iterable[PeerSettings]) -> list[Policy]:
    """The SPD, in order."""
    peers_own = [policy for peer in peers for policy in protecting(peer)]
    return [*exceptions.before, *peers_own, *(replace(policy, rank=AFTER) for policy in exceptions.after)]


def protecting(peer: PeerSettings) -> list[Policy]:
    """A peer's policies as the data plane has them."""
    return [
        Policy(
            policy.name,
            policy.selector,
            peer=peer.name,
            answer_within=peer.probe_after,
            large=peer.tries_path,
            rank=PROTECTING,
        )
        for policy in peer.policies
    ]


def without_udp(policies: Iterable[PolicySettings]) -> set[SecurityProtocol]:
    """What goes in IP itself, and so needs sockets of its own."""
    return {policy.protocol for policy in policies if policy.encapsulation is Encapsulation.RAW}


def plan_of(
    tun: TunSettings, exceptions: Exceptions, peers: Collection[PeerSettings], sockets: Sequence[Endpoint]
) -> NetworkPlan:
    """The host as it is wanted.

    Args:
        tun: the device, which exists.
        exceptions: of all of them.
        peers: who are here.
        sockets: those that ESP and KINK leave from.
    """
    policies = [policy for peer in peers for policy in peer.policies]
    return network_plan(
        tun,
        [policy.selector.remote for policy in policies],
        [peer.esp.address for peer in peers],
        sockets,
        [policy.selector for policy in policies if policy.mode is Mode.TRANSPORT],
        policies_of(exceptions, peers),
        ah=any(policy.protocol is SecurityProtocol.AH for policy in policies),
    )


def warn_of_legacy(peers: Iterable[PeerSettings]) -> None:
    """Say what it costs, for each peer that may have a legacy suite."""
    for peer in peers:
        for suite in {
            suite.name: suite for policy in peer.policies for suite in policy.suites if suite.legacy
        }.values():
            log.warning(
                "legacy_suite", extra={"fields": {"peer": peer.name, "suite": suite.name, "reason": suite.cost}}
            )


class Tunnels:
    """Those that are up, with ``peers``.

    Args:
        tun: the device, its MTU settled.
        sockets: that ESP and KINK leave from.
        paths: looks at those to new peers.
        network: has a plan of :func:`plan_of`.
        dataplane: has the policies.
        keying: has the peers.
        exceptions, peers: that all of these have.
    """

    def __init__(
        self,
        *,
        tun: TunSettings,
        sockets: Sequence[Endpoint],
        paths: PathMtus,
        network: Configured,
        dataplane: Dataplane,
        keying: Keying,
        exceptions: Exceptions,
        peers: Iterable[PeerSettings],
    ) -> None:
        self._tun = tun
        self._sockets = sockets
        self._paths = paths
        self._network = network
        self._dataplane = dataplane
        self._keying = keying
        self._exceptions = exceptions
        self._one_at_a_time = trio.Lock()
        self.peers = {peer.name: peer for peer in peers}
        self._sealed_without_udp: Set[SecurityProtocol] = without_udp(
            policy for peer in self.peers.values() for policy in peer.policies
        )

    async def add(self, peer: PeerSettings) -> None:
        """Have one more. Raises as :meth:`change`."""
        await self.change(come=[peer])

    async def remove(self, name: str) -> None:
        """Have one less, whose SAs are deleted. Raises as :meth:`change`."""
        await self.change(gone=[name])

    async def change(
        self,
        gone: Collection[str] = (),
        come: Collection[PeerSettings] = (),
        exceptions: Exceptions | None = None,
        altered: Collection[Altered] = (),
        tun: TunSettings | None = None,
    ) -> None:
        """Some peers less, then some more; one of the same name takes the place of another. The rest goes on: not a
        packet of it is lost, nor of an altered one but for what has ended of it.

        Args:
            gone: names of those that are to go.
            come: those that are to come.
            exceptions: instead of those there are; None for no change.
            altered: those that go on otherwise.
            tun: what is led into the device, by policies or to people; None for no change.

        Raises:
            PeerRefused: there cannot be such a peer beside those that stay; nothing has changed.
            NetworkRefused: the kernel would not have a route or a rule; nothing has changed.
        """
        async with self._one_at_a_time:
            others = {each.settings.name: each.settings for each in altered}
            kept = {name: peer for name, peer in self.peers.items() if name not in gone and name not in others}
            self._check(gone, [*others.values(), *come], kept.values())
            peers = {name: others.get(name) or peer for name, peer in self.peers.items() if name not in gone}
            peers |= {peer.name: peer for peer in come}
            wanted = self._exceptions if exceptions is None else exceptions
            warn_of_legacy([*others.values(), *come])
            self._paths.learn(peer.esp.address for peer in come)
            led = self._tun if tun is None else replace(self._tun, routes=tun.routes, lent=tun.lent)
            await self._network.change(plan_of(led, wanted, peers.values(), self._sockets))
            # From here on in one turn: no packet and no message comes between.
            before = policies_of(self._exceptions, self.peers.values())
            after = policies_of(wanted, peers.values())
            self.peers, self._exceptions, self._tun = peers, wanted, led
            for name in gone:
                self._keying.remove_peer(name)
            for each in altered:
                self._keying.change_peer(each.settings, each.ended)
            self._dataplane.change_policies(*_difference(before, after))
            for name in others:
                self._keying.start_peer(name)
            for peer in come:
                self._keying.add_peer(peer)

    def _check(self, gone: Collection[str], come: Iterable[PeerSettings], kept: Collection[PeerSettings]) -> None:
        for name in gone:
            if name not in self.peers:
                raise PeerRefused(f"no peer {name!r}; there are {', '.join(self.peers) or 'none'}")
        # And those who have come by themselves, by a rule.
        guests = [peer.settings for name, peer in self._keying.peers.items() if name not in self.peers]
        others = [*kept, *guests]
        for peer in come:
            if without_udp(peer.policies) - self._sealed_without_udp:
                raise PeerRefused(f"peer {peer.name}: no socket for ESP or AH without UDP is open: restart for it")
            _check_apart(peer, others)
            others.append(peer)


def _check_apart(peer: PeerSettings, others: Collection[PeerSettings]) -> None:
    """Raises PeerRefused: somebody else has its name, its principal, a policy's name or some of its traffic."""
    for other in others:
        if other.name == peer.name:
            raise PeerRefused(f"there is a peer {peer.name} already")
        if other.principal == peer.principal:
            raise PeerRefused(f"peer {peer.name}: peer {other.name} has principal {peer.principal} already")
    owners = {policy.name: other.name for other in others for policy in other.policies}
    for policy in peer.policies:
        if policy.name in owners:
            raise PeerRefused(f"peer {peer.name}: peer {owners[policy.name]} has a policy {policy.name} already")
    own = {policy.name for policy in peer.policies}
    everybodys: list[PolicySettings] = [policy for other in (*others, peer) for policy in other.policies]
    for one, two in overlaps(everybodys, lambda policy: policy.selector):
        mine, theirs = (one, two) if one.name in own else (two, one)
        if mine.name in own and theirs.name not in own:
            raise PeerRefused(
                f"peer {peer.name}: policy {mine.name} ({show_selector(mine.selector)}) overlaps "
                f"policy {theirs.name} ({show_selector(theirs.selector)}) of peer {owners[theirs.name]}"
            )


def _difference(before: Sequence[Policy], after: Sequence[Policy]) -> tuple[list[str], list[Policy], list[Policy]]:
    """Names of those that go, those that come, and those that stay with something else to be told of them. Of one rank
    those that are no peer's are made anew, for their order, unless all of them stay.
    """
    gone: list[str] = []
    come: list[Policy] = []
    told: list[Policy] = []
    for rank in sorted({policy.rank for policy in (*before, *after)}):
        old, new = ([policy for policy in each if policy.rank == rank] for each in (before, after))
        if rank == PROTECTING:
            traffic = {_traffic(policy) for policy in old} & {_traffic(policy) for policy in new}
            same = set(old)
            told = [policy for policy in new if _traffic(policy) in traffic and policy not in same]
            old, new = ([policy for policy in each if _traffic(policy) not in traffic] for each in (old, new))
        if old != new:
            gone += [policy.name for policy in old]
            come += new
    return gone, come, told


def _traffic(policy: Policy) -> Policy:
    """What it is about, and not what is told of it."""
    return replace(policy, answer_within=None, large=False)
