"""Two data planes with subnets of both IP versions behind them, on anything; and on real TUNs, sockets and a wire."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_network
from typing import TYPE_CHECKING

import trio
from support.namespaces import namespace, run, wait_for_address, within
from support.tunnel import twin

from esp.dataplane import Dataplane
from esp.link import UdpLink
from esp.offload import ALL_OFFLOADS
from esp.policy import Policy, Selector
from esp.sa import Endpoint, Lifetime, SaParameters
from esp.suite import SUITES
from esp.tun import PacketDevice, TunDevice
from esp.veth import VethDevice, open_sockets
from kinkvpn.service.veth import make_pair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from esp.engine import Engine
    from esp.link import Link
    from esp.offload import Offloads
    from esp.tun import Tun

SUITE = SUITES["aes256-gcm16"]
KEYMAT = bytes(range(SUITE.keymat_octets))
LEFT, RIGHT = Endpoint("192.0.2.1", 4500), Endpoint("192.0.2.2", 4500)
FAMILIES = {"ipv4": ("10.0.1.0/24", "10.0.2.0/24"), "ipv6": ("fd00:1::/64", "fd00:2::/64")}
FOREVER = Lifetime()


def dataplane_of(
    tun: Tun,
    link: Link,
    mine: int,
    receive_control: Callable[[bytes, Endpoint], None],
    offset: float = 0.0,
    engine: str = "portable",
    queues: int = 1,
) -> Dataplane:
    """One with policies for both families; ``mine`` is which of a family's two subnets is inside."""
    make_engine: Callable[..., Engine] = twin(engine)
    make: Callable[..., Dataplane] = Dataplane
    if engine == "native":
        from esp.native.dataplane import NativeDataplane

        make, make_engine = NativeDataplane, partial(make_engine, lanes=queues)
    dataplane = make(
        make_engine(random=os.urandom),
        tun,
        link,
        clock=lambda: trio.current_time() + offset,
        receive_control=receive_control,
    )
    assert dataplane.engine_name == engine
    for family in FAMILIES:
        dataplane.add_policy(Policy(family, selector(family, mine)))
    return dataplane


def selector(family: str, mine: int) -> Selector:
    """The traffic of that family, as the host with that subnet sees it."""
    subnets = FAMILIES[family]
    return Selector(ip_network(subnets[mine]), ip_network(subnets[1 - mine]))


def sa(spi: int, family: str, mine: int, remote: Endpoint, lifetime: Lifetime = FOREVER) -> SaParameters:
    """An SA of it; all have the same keys."""
    return SaParameters(spi, SUITE, KEYMAT, family, selector(family, mine), remote, lifetime)


@dataclass(frozen=True, slots=True)
class Site:
    """A namespace with its data plane on a real TUN and real sockets."""

    net: str
    tun: PacketDevice
    link: UdpLink
    dataplane: Dataplane
    control: list[tuple[bytes, Endpoint]]


@contextmanager
def sites(engine: str, queues: int = 1, device: str = "tun") -> Iterator[tuple[Site, Site]]:
    """Two namespaces, a veth between them, and beyond each device the other's subnets. All gone when the block ends."""
    with namespace() as left, namespace() as right:
        run("ip", "-n", left, "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", right)
        made = _site(left, 0, engine, queues, device), _site(right, 1, engine, queues, device)
        try:
            yield made
        finally:
            for each in made:
                each.tun.close()
                each.link.close()


def veth(name: str, offloads: Offloads = ALL_OFFLOADS, queues: int = 1, mtu: int = 1400) -> VethDevice:
    """One end of a pair in the namespace of this thread."""
    pair = make_pair(name)
    run("ip", "link", "set", name, "mtu", str(mtu))
    descriptors = open_sockets(pair.host, pair.end, offloads, queues)
    return VethDevice(name, descriptors, pair.hardware, offloads=offloads)


def _site(net: str, mine: int, engine: str, queues: int, device: str) -> Site:
    run("ip", "-n", net, "addr", "add", f"192.0.2.{mine + 1}/24", "dev", "wire")
    run("ip", "-n", net, "link", "set", "wire", "up")
    open_device = partial(veth, mtu=1400) if device == "veth" else partial(TunDevice, mtu=1400)
    tun: PacketDevice = within(net, partial(open_device, "kink0", queues=queues))
    for subnets in FAMILIES.values():
        inside, outside = ip_network(subnets[mine]), ip_network(subnets[1 - mine])
        run("ip", "-n", net, "addr", "add", f"{inside[1]}/{inside.prefixlen}", "dev", "kink0", *_nodad(inside.version))
        run("ip", "-n", net, "link", "set", "kink0", "up")
        run("ip", "-n", net, "route", "add", str(outside), "dev", "kink0")
        wait_for_address(net, str(inside[1]))
    link = within(net, lambda: UdpLink.bind(queues=queues))
    control: list[tuple[bytes, Endpoint]] = []
    dataplane = dataplane_of(tun, link, mine, lambda *come: control.append(come), engine=engine, queues=queues)
    return Site(net, tun, link, dataplane, control)


def _nodad(version: int) -> list[str]:
    return ["nodad"] if version == 6 else []


def key_sites(sender: Site, receiver: Site, mine: int, lifetime: Lifetime = FOREVER) -> list[int]:
    """SAs of both families from ``sender``, the one with that subnet; their SPIs."""
    spis = []
    for family in FAMILIES:
        spi = receiver.dataplane.allocate_spi()
        receiver.dataplane.install_inbound(sa(spi, family, 1 - mine, (LEFT, RIGHT)[mine], lifetime))
        sender.dataplane.install_outbound(sa(spi, family, mine, (LEFT, RIGHT)[1 - mine], lifetime))
        spis.append(spi)
    return spis
