"""What of a configuration is another in one written later, and how much of a running daemon has to end for it."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from enum import Enum
from itertools import chain, count
from typing import TYPE_CHECKING

from kinkvpn.errors import KinkvpnError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from kinkvpn.config.configuration import Configuration
    from kinkvpn.config.peer import PeerConfiguration
    from kinkvpn.proto.settings import PolicySettings


class Reach(Enum):
    """What ends where a key has another value."""

    NOTHING = "nothing: it is taken over, and what asks for it from then on has the new value"
    POLICY = "the policy's SAs"
    PEER = "all that is known of the peer, and its SAs"
    DAEMON = "the daemon: it takes a restart"


# By place in the configuration's objects; ``peer`` is each peer, ``policy`` each of a peer's. A key that is not here
# would be nobody's, so a test looks for it.
_BY_REACH = {
    # What SAs are made of and last is their own, and the next ones are made by what is written then. But what goes
    # where is decided for every packet, and whoever changes how it is protected means the next one.
    Reach.POLICY: "policy.name policy.selector policy.protocol policy.mode policy.encapsulation",
    # Somebody else, or at another place: nothing that is known of who was there is known of him.
    Reach.PEER: "peer.name peer.principal peer.address peer.port peer.esp_port",
    # Sockets, devices, threads and credentials are opened once, some of them with rights that are gone by now.
    Reach.DAEMON: """
        host.principal host.keytab host.client_keytab host.ccache host.krb5_config host.replay_cache host.machine
        kink.listen kink.port kink.over
        esp.port esp.hop_limit esp.engine.choice esp.engine.library esp.engine.queues
        tun.name tun.addresses tun.mtu tun.clamp_mss tun.table tun.device tun.fd
        offload.tso offload.uso offload.coalesce offload.udp_segment offload.udp_gro
        control.socket control.group
        log.keys
        metrics.listen
        dns.servers dns.domains dns.file
    """,
    Reach.NOTHING: """
        host.kdc_timeout control.group_may metrics.hosts log.level log.format
        hooks.up hooks.down hooks.peer_up hooks.peer_down hooks.timeout
        before after clear.bypass clear.block tun.routes tun.lent
        people.pool people.fixed people.rules people.most people.machines people.suites people.probe_after
        people.dead_after
        peers peer.prf peer.user_to_user peer.delete_grace peer.kink_over peer.extensions
        peer.sas_per_create peer.probe_after peer.dead_after peer.path_probe peer.policies
        policy.suites policy.legacy policy.lifetime_seconds policy.lifetime_kilobytes
        policy.lifetime_packets policy.replay_window policy.esn policy.start policy.pfs policy.confidentiality
        policy.aggregation policy.headers policy.pfs_required policy.responder_nonce policy.entry policy.send_ids
        policy.ids
    """,
}
REACH = {place: reach for reach, places in _BY_REACH.items() for place in places.split()}
# As they are written, where that is another name.
_WRITTEN = {
    "esp.engine.choice": "esp.engine",
    "esp.engine.library": "esp.cipher_library",
    "esp.engine.queues": "esp.queues",
}


class RestartNeeded(KinkvpnError):
    """Something that is written cannot come about in a running daemon; a line for each."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What is to be done.

    Args:
        gone: names of peers that are written no more.
        replaced: those that are somebody else, or elsewhere, by the same name.
        altered: those that are written otherwise, and stay.
        come: new ones.
        ended: by altered peer, names of policies that are written no more, or whose SAs would be others.
    """

    gone: tuple[str, ...]
    replaced: tuple[PeerConfiguration, ...]
    altered: tuple[PeerConfiguration, ...]
    come: tuple[PeerConfiguration, ...]
    ended: Mapping[str, frozenset[str]]


def changes(running: Configuration, written: Configuration) -> Changes:
    """From ``running`` to ``written``.

    Raises:
        RestartNeeded: a line for each key that cannot change.
    """
    fixed = [place for place in differences("", running, written) if REACH[place] is Reach.DAEMON]
    if fixed:
        lines = (f"{_WRITTEN.get(place, place)} is another one now, which takes a restart" for place in fixed)
        raise RestartNeeded("\n".join(f"{line}: nothing has been changed" for line in lines))
    before = {peer.name: peer for peer in running.peers}
    after = {peer.name: peer for peer in written.peers}
    other = [peer for name, peer in after.items() if name in before and peer != before[name]]
    replaced = tuple(peer for peer in other if _reaches(Reach.PEER, "peer", before[peer.name], peer))
    return Changes(
        gone=tuple(name for name in before if name not in after),
        replaced=replaced,
        altered=tuple(peer for peer in other if peer not in replaced),
        come=tuple(peer for name, peer in after.items() if name not in before),
        ended={peer.name: _ended(before[peer.name], peer) for peer in other if peer not in replaced},
    )


def differences(path: str, running: object, written: object) -> Iterator[str]:
    """Places in :data:`REACH`, from ``path`` on, at which two objects differ."""
    if running == written:
        return
    if path in REACH:
        yield path
        return
    assert is_dataclass(running)
    assert type(running) is type(written)
    for field in fields(running):
        name = f"{path}.{field.name}" if path else field.name
        yield from differences(name, getattr(running, field.name), getattr(written, field.name))


def _reaches(reach: Reach, path: str, running: object, written: object) -> bool:
    return any(REACH[place] is reach for place in differences(path, running, written))


def _ended(running: PeerConfiguration, written: PeerConfiguration) -> frozenset[str]:
    after = {policy.name: policy for policy in written.policies}
    return frozenset(
        policy.name
        for policy in running.policies
        if policy.name not in after or _reaches(Reach.POLICY, "policy", policy, after[policy.name])
    )


def with_names_of(running: Configuration, written: Configuration) -> Configuration:
    """``written``, but policies that were given a number keep the one that they run by.

    They were numbered as they stand in the file: one more in front of them would make all of them somebody else.
    """
    before = {peer.name: peer.policies for peer in running.peers}
    everybodys = {policy.name for policy in written.policies}

    def renamed(peer: PeerConfiguration) -> PeerConfiguration:
        others = everybodys - {policy.name for policy in peer.policies}
        return replace(peer, policies=_renamed(before.get(peer.name, ()), peer.policies, others))

    return replace(written, peers=tuple(map(renamed, written.peers)))


def _renamed(
    running: Sequence[PolicySettings], written: Sequence[PolicySettings], taken: set[str]
) -> tuple[PolicySettings, ...]:
    """The policies of one peer, each with the name that one with the same traffic has in ``running``."""
    at_work = {(policy.selector, _given(policy.name)): policy.name for policy in running}
    names = [at_work.get((policy.selector, _given(policy.name)), "") for policy in written]
    used = {*taken, *names}
    for index, policy in enumerate(written):
        if not names[index] or names[index] in taken:
            numbered = (f"{_given(policy.name)}/{number}" for number in count(1))
            names[index] = next(name for name in chain([policy.name], numbered) if name not in used)
            used.add(names[index])
    return tuple(replace(policy, name=name) for policy, name in zip(written, names, strict=True))


def _given(name: str) -> str:
    """A policy's own name or its peer's, without the number that it got besides."""
    return name.partition("/")[0]
