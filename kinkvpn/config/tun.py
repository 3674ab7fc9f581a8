"""The TUN device: [tun]."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from kinkvpn import values

if TYPE_CHECKING:
    from esp.policy import Network
    from kinkvpn.document import Table
    from kinkvpn.values import Interface

# specification
IPV4_MINIMUM_MTU = 576  # every host takes a datagram of this size (RFC 791 §3.1)
IPV6_MINIMUM_MTU = 1280  # RFC 8200 §5

# ours
MAXIMUM_MTU = 65400  # sealed with the widest suite it still fits the 65,507 octets of a UDP datagram over IPv4


class DeviceKind(Enum):
    """What carries packets between the host and us; AUTO is a TUN where /dev/net/tun can be had."""

    AUTO = "auto"
    TUN = "tun"
    VETH = "veth"


@dataclass(frozen=True, slots=True)
class TunSettings:
    """The TUN device.

    Args:
        device: of which kind it is.
        fd: a descriptor of a TUN that somebody else has opened; that one gives it addresses and routes.
        mtu: octets; None is what the paths to the peers leave room for.
        routes: every policy's remote subnet is routed into it.
        lent: subnets of the addresses that people are lent, which lead into it too.
        table: of those routes, where the main table does not do, and the priority of the rules that go with it.
    """

    name: str = "kink0"
    addresses: tuple[Interface, ...] = ()
    mtu: int | None = None
    clamp_mss: bool = True
    routes: bool = True
    table: int = 910
    lent: tuple[Network, ...] = ()
    device: DeviceKind = DeviceKind.AUTO
    fd: int | None = None


def read_tun(table: Table) -> TunSettings:
    """[tun], of any file that has one."""
    default = TunSettings()
    addresses = table.items("addresses", values.interface)
    least = IPV6_MINIMUM_MTU if any(address.version == 6 for address in addresses) else IPV4_MINIMUM_MTU
    settings = TunSettings(
        name=table.get("name", values.device_name, default.name),
        addresses=addresses,
        mtu=table.get("mtu", values.automatic(least, MAXIMUM_MTU), default.mtu),
        clamp_mss=table.get("clamp_mss", values.boolean, default.clamp_mss),
        routes=table.get("routes", values.boolean, default.routes),
        table=table.get("table", values.routing_table, default.table),
        device=table.get("device", values.one_of(DeviceKind), default.device),
        fd=table.get("fd", values.integer(3, 65535), default.fd),
    )
    table.close()
    return settings
