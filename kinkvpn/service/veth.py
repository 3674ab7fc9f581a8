"""A veth pair for :mod:`esp.veth`: one end for the host, under the name that a TUN would have, and one for us."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyroute2 import IPRoute, NetlinkError

if TYPE_CHECKING:
    from typing import Any

IFF_NOARP = 0x80  # linux/if.h: nobody at the other end would answer
IN6_ADDR_GEN_MODE_NONE = 1  # linux/if_link.h: no address of the kernel's own making, and nothing said of it
LONGEST_MTU = 65_535  # drivers/net/veth.c, ETH_MAX_MTU
LONGEST_NAME = 15  # linux/if.h, IFNAMSIZ less one
# Ours. What says whose a pair is that has outlived us: a TUN goes with its descriptor, this only with its namespace.
OWNER = "kinkvpn"


@dataclass(frozen=True, slots=True)
class Pair:
    """``host`` is the host's end, ``end`` ours, ``hardware`` the address of the first, six octets."""

    host: str
    end: str
    hardware: bytes


def end_of(host: str) -> str:
    """The name of our end."""
    return f"{host[: LONGEST_NAME - 1]}~"


def make_pair(host: str) -> Pair:
    """A pair in the namespace of this process, our end up; the other one is whoever's who configures the host.

    Raises:
        NetlinkError: EPERM without CAP_NET_ADMIN, EOPNOTSUPP where the kernel has no veth, EEXIST for a name that
            somebody has who lives.
    """
    end = end_of(host)
    with IPRoute() as netlink:
        _clear(netlink, host)
        netlink.link("add", ifname=host, kind="veth", peer={"ifname": end})
        for name in (host, end):
            (index,) = netlink.link_lookup(ifname=name)
            netlink.link("set", index=index, flags=IFF_NOARP, change=IFF_NOARP, ifalias=_alias(os.getpid()))
            with suppress(NetlinkError):  # without IPv6 there is nothing to be kept quiet
                netlink.link("set", index=index, IFLA_AF_SPEC=_QUIET)
        # What comes out of the tunnel is as long as the peer likes; what goes in is cut to the host's end.
        netlink.link("set", index=index, mtu=LONGEST_MTU, state="up")
        (link,) = netlink.get_links(ifname=host)
        return Pair(host, end, bytes.fromhex(link.get_attr("IFLA_ADDRESS").replace(":", "")))


_QUIET: dict[str, Any] = {"attrs": [["AF_INET6", {"attrs": [["IFLA_INET6_ADDR_GEN_MODE", IN6_ADDR_GEN_MODE_NONE]]}]]}


def remove_pair(host: str) -> None:
    """The pair, if it is there; both ends go."""
    with IPRoute() as netlink, suppress(NetlinkError):
        for index in netlink.link_lookup(ifname=host):
            netlink.link("delete", index=index)


def _alias(pid: int) -> str:
    return f"{OWNER} {pid}"


def _clear(netlink: IPRoute, host: str) -> None:
    """A pair that a predecessor had no time to remove; one of somebody who lives stays, and is in the way."""
    for index in netlink.link_lookup(ifname=host):
        owner, _, pid = (netlink.get_links(index)[0].get_attr("IFLA_IFALIAS") or "").partition(" ")
        if owner == OWNER and not _lives(pid):
            netlink.link("delete", index=index)


def _lives(pid: str) -> bool:
    """Another process of that number. In a container each start has the number of the one before."""
    return pid != str(os.getpid()) and os.path.exists(f"/proc/{pid}")
