"""What ``bench datapath`` compares, in the order of its table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bench.contestants.kernel_libipsec import KernelLibipsec
from bench.contestants.kinkvpn import Ceiling, Kinkvpn
from bench.contestants.openvpn import OpenVpn
from bench.contestants.veth import Veth
from bench.contestants.wireguard_go import WireguardGo

if TYPE_CHECKING:
    from bench.contestants.contestant import Contestant

CONTESTANTS: Final[tuple[Contestant, ...]] = (
    Veth(),
    OpenVpn(),
    KernelLibipsec(),
    WireguardGo(),
    Kinkvpn("kinkvpn"),
    Kinkvpn("kinkvpn-openssl", ("ESP_ENGINE=native", "ESP_CIPHER_LIBRARY=openssl"), compiled=True),
    Kinkvpn("kinkvpn-portable", ("ESP_ENGINE=portable",)),
    Ceiling(),
)
