"""What ESP takes of the host: sockets, a TUN device, and how the host's routes are to lead there."""

from __future__ import annotations

import os
import socket
from collections import defaultdict
from contextlib import AsyncExitStack, ExitStack, suppress
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING

from pyroute2 import NetlinkError

from esp.fit import Inside
from esp.link import LinkUnavailable, UdpLink
from esp.offload import ALL_OFFLOADS
from esp.policy import networks_of
from esp.raw import AhLink, Links, RawLink
from esp.sa import SecurityProtocol
from esp.tun import DEVICE, TunDevice, TunUnavailable
from esp.veth import VethDevice, open_sockets
from kinkvpn.config import DeviceKind
from kinkvpn.service.inherited import inherited
from kinkvpn.service.netconf import NetworkPlan
from kinkvpn.service.obstacles import (
    StartRefused,
    explain_bind,
    explain_listen,
    explain_packet,
    explain_raw,
    explain_tun,
    explain_veth,
)
from kinkvpn.service.rules import needs_rules, own_rules, policy_rules
from kinkvpn.service.veth import make_pair, remove_pair

if TYPE_CHECKING:
    from collections.abc import Sequence, Set

    from esp.offload import Offloads
    from esp.policy import Addresses, Policy, Selector
    from esp.sa import Endpoint
    from esp.tun import PacketDevice
    from kinkvpn.config import Listen, TunSettings


def listening_addresses(listen: Sequence[str]) -> tuple[str, ...]:
    """``listen``, without ``::`` where the kernel has no IPv6 and something is left."""
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).close()
    except OSError:
        return tuple(address for address in listen if address != "::") or tuple(listen)
    return tuple(listen)


def esp_addresses(listen: Sequence[str]) -> tuple[str, ...]:
    """Where ESP listens: with KINK. One socket carries a family, so several addresses of one take its wildcard."""
    families: defaultdict[int, list[str]] = defaultdict(list)
    for address in listen:
        families[ip_address(address).version].append(address)
    wildcards = {4: "0.0.0.0", 6: "::"}  # noqa: S104 # only for who listens on several addresses
    return tuple(one[0] if len(one) == 1 else wildcards[family] for family, one in families.items())


def network_plan(
    tun: TunSettings,
    protected: Sequence[Addresses],
    outside: Sequence[str],
    sockets: Sequence[Endpoint],
    between_hosts: Sequence[Selector] = (),
    policies: Sequence[Policy] = (),
    *,
    ah: bool = False,
) -> NetworkPlan:
    """The host as it is wanted.

    Args:
        tun: the device, which exists.
        protected: what is behind the peers.
        outside: the peers' outer addresses; an empty one is not known yet.
        sockets: those that ESP and KINK leave from.
        between_hosts: selectors of transport mode. The remote one is where the peer is, as a rule, known or not.
        policies: all of them, in order; may be left out where they all protect.
        ah: some of the ``sockets`` are for AH.
    """
    routes = (*(subnet for one in protected for subnet in networks_of(one)), *tun.lent) if tun.routes else ()
    rules = policy_rules(policies) if tun.routes else ()
    known = tuple(sorted(set(outside) - {""}))
    wanted = rules or needs_rules(routes, known) or (between_hosts and routes)
    return NetworkPlan(
        device=tun.name,
        mtu=settled(tun),
        addresses=tun.addresses,
        routes=routes,
        outside=known,
        rules=(*own_rules(sockets, ah=ah), *rules) if wanted else (),
        table=tun.table,
        sources={
            remote: str(networks_of(each.local)[0].network_address)
            for each in between_hosts
            for remote in networks_of(each.remote)
        },
    )


def open_link(
    addresses: Sequence[str],
    port: int,
    hop_limit: int | None = None,
    offloads: Offloads = ALL_OFFLOADS,
    queues: int = 1,
) -> UdpLink:
    """Of the sockets that we were given, or new ones. Raises StartRefused, with who has the port or what is missing."""
    given = inherited("esp")
    if given and queues > 1:
        raise StartRefused(f"esp.queues is {queues}: expected 1 with the sockets of a service manager")
    if given:
        return UdpLink(given, hop_limit=hop_limit, offloads=offloads)
    try:
        return UdpLink.bind(port, addresses, hop_limit=hop_limit, offloads=offloads, queues=queues)
    except LinkUnavailable as error:
        raise StartRefused(explain_bind(error.local.address, error.local.port, error.errno)) from error


def open_links(
    addresses: Sequence[str],
    port: int,
    without_udp: Set[SecurityProtocol],
    hop_limit: int | None = None,
    *,
    offloads: Offloads = ALL_OFFLOADS,
    queues: int = 1,
) -> UdpLink | Links:
    """UDP on ``port``, and what goes ``without_udp``. Raises StartRefused, as those below."""
    with ExitStack() as failed:
        udp = open_link(addresses, port, hop_limit, offloads, queues)
        failed.callback(udp.close)
        raw = [open_raw(kind, addresses, hop_limit) for protocol, kind in _RAW.items() if protocol in without_udp]
        failed.pop_all()
    return Links(udp, *raw) if raw else udp


_RAW: dict[SecurityProtocol, type[RawLink]] = {SecurityProtocol.ESP: RawLink, SecurityProtocol.AH: AhLink}


def open_raw(kind: type[RawLink], addresses: Sequence[str], hop_limit: int | None = None) -> RawLink:
    """Raises StartRefused, with what is missing."""
    try:
        return kind.open(addresses, hop_limit=hop_limit)
    except LinkUnavailable as error:
        raise StartRefused(explain_raw(error.local.address, error.errno)) from error


def inside_of(tun: TunSettings) -> Inside:
    """What an engine has to know of the side that the TUN device leads to."""
    return Inside(settled(tun), tuple(each.ip.packed for each in tun.addresses), tun.clamp_mss)


def settled(tun: TunSettings) -> int:
    """The MTU of a device that ``kinkvpn.service.paths`` has settled."""
    assert tun.mtu is not None
    return tun.mtu


def open_device(tun: TunSettings, offloads: Offloads, queues: int = 1) -> PacketDevice:
    """Of the kind that is wanted. Raises StartRefused, with who has the device or what is missing."""
    if tun.fd is not None:
        return adopt_tun(tun, tun.fd, offloads, queues)
    if tun.device is DeviceKind.VETH:
        return open_veth(tun, offloads, queues)
    try:
        return open_tun(tun, offloads, queues)
    except StartRefused:
        if tun.device is DeviceKind.TUN or may_open_tun():
            raise
        with suppress(StartRefused):
            return open_veth(tun, offloads, queues)
        raise  # a container is given a device more easily than two capabilities


def adopt_tun(tun: TunSettings, descriptor: int, offloads: Offloads, queues: int) -> TunDevice:
    """One that whoever started us has opened. Raises StartRefused, with what is wrong with it."""
    if queues > 1:
        raise StartRefused(f"esp.queues is {queues}: expected 1 with tun.fd, which is one queue")
    try:
        return TunDevice.adopt(
            [os.dup(descriptor)], offloads=offloads, local=[each.ip.packed for each in tun.addresses]
        )
    except OSError as error:
        raise StartRefused(f"tun.fd = {descriptor}: {error.strerror}") from error
    except TunUnavailable as error:
        raise StartRefused(f"tun.fd = {descriptor}: {str(error).partition(': ')[2]}") from error


def may_open_tun() -> bool:
    """Whether it is not for want of the device that there is none."""
    try:
        os.close(os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def open_tun(tun: TunSettings, offloads: Offloads, queues: int = 1) -> TunDevice:
    """Raises StartRefused, with who has the device or what is missing."""
    local = [each.ip.packed for each in tun.addresses]
    try:
        return TunDevice(tun.name, mtu=tun.mtu, offloads=offloads, local=local, queues=queues)
    except TunUnavailable as error:
        raise StartRefused(explain_tun(tun.name, error.errno, str(error))) from error


def open_veth(tun: TunSettings, offloads: Offloads, queues: int = 1) -> VethDevice:
    """A pair that goes when the device is closed. Raises StartRefused, with what is missing."""
    try:
        pair = make_pair(tun.name)
        with ExitStack() as failed:
            failed.callback(remove_pair, tun.name)
            descriptors = open_sockets(pair.host, pair.end, offloads, queues)
            failed.pop_all()
    except NetlinkError as error:
        raise StartRefused(explain_veth(tun.name, error.code)) from error
    except OSError as error:
        raise StartRefused(explain_packet(tun.name, error.errno)) from error
    local = [each.ip.packed for each in tun.addresses]
    return VethDevice(
        tun.name, descriptors, pair.hardware, offloads=offloads, local=local, gone=partial(remove_pair, tun.name)
    )


def open_metrics(listen: Listen | None, held: ExitStack | AsyncExitStack) -> socket.socket | None:
    """What listens for those who only look, if anything is to. Raises StartRefused, with what is in the way."""
    if listen is None:
        return None
    family = socket.AF_INET6 if ":" in listen.address else socket.AF_INET
    try:
        return held.enter_context(socket.create_server(listen, family=family))
    except OSError as error:
        raise StartRefused(explain_listen(listen.address, listen.port, error.errno)) from error
