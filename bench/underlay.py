"""What every tunnel runs over: two namespaces and the veth pair between them, an MTU of 1,500, IPv4 and IPv6.

Addresses outside are those of RFC 5737 and RFC 3849, inside those of the laboratory of the demo.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final, TypeAlias

from kinkvpn.demo.lab import SITES, WIRE
from kinkvpn.demo.namespace import Namespace, join

if TYPE_CHECKING:
    from collections.abc import Iterator

Ends: TypeAlias = tuple[Namespace, Namespace]

# By IP version; the first is where what is measured begins.
OUTER: Final = {4: ("192.0.2.1", "192.0.2.2"), 6: ("2001:db8::1", "2001:db8::2")}
INNER: Final = {version: tuple(site.inner_address(version) for site in SITES) for version in (4, 6)}
MTU: Final = 1500
IP_OCTETS: Final = {4: 20, 6: 40}
UDP_OCTETS: Final = 8


@contextmanager
def underlay() -> Iterator[Ends]:
    """Both ends, connected, reachable at their outer addresses.

    Raises:
        LabFailed: the kernel or its configuration refuses.
    """
    with ExitStack() as held:
        ends = held.enter_context(Namespace("a")), held.enter_context(Namespace("b"))
        join(ends[0], WIRE, ends[1], WIRE)
        for side, end in enumerate(ends):
            end.ip(
                f"address add {OUTER[4][side]}/30 dev {WIRE}",
                f"address add {OUTER[6][side]}/126 dev {WIRE} nodad",
            )
        yield ends


@contextmanager
def split_on_the_wire(ends: Ends) -> Iterator[None]:
    """The wire takes no datagram larger than its MTU, as with a NIC that cannot segment UDP (no USO).

    The kernel then cuts what was sent with UDP_SEGMENT before it reaches the wire, and the far end gets the pieces.
    """
    for end in ends:
        end.run(["ethtool", "-K", WIRE, "tx-udp-segmentation", "off"])
    try:
        yield
    finally:
        for end in ends:
            end.run(["ethtool", "-K", WIRE, "tx-udp-segmentation", "on"])
