"""The laboratory with two routers between the hosts, whose link can become narrower, and who need not say so.

    host a ------------- near ------------- far ------------- host b
        10.64.1.2  10.64.1.1  10.64.3.0/24  10.64.2.1  10.64.2.2         and 2001:db8:1::/64 to 2001:db8:3::/64

No interface of a host is ever narrow: what is too large is lost, or returned, on the way.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from support.lab import amend

from kinkvpn.demo.lab import SITES, WIRE, Lab
from kinkvpn.demo.namespace import Namespace, join

if TYPE_CHECKING:
    from kinkvpn.demo.lab import Host

WIDE: Final = 1500
NARROW: Final = 1280

# What a firewall does that was meant to keep ping out.
SILENT: Final = """\
table inet silence {
    chain output {
        type filter hook output priority filter
        icmp type destination-unreachable drop
        icmpv6 type packet-too-big drop
    }
}
"""


class PathLab(Lab):
    """A laboratory with a path."""

    def start_hosts(self) -> None:
        """Hosts and routers, connected; :meth:`tell` configures. Raises LabFailed."""
        self.routers = [self._undo.enter_context(Namespace(name)) for name in ("near", "far")]
        sites = [replace(site, wire=f"10.64.{number}.2") for number, site in enumerate(SITES, 1)]
        for before, site in zip(SITES, sites, strict=True):
            self._realm_of[site] = self._realm_of[before]
        a, b = map(self._host, sites)
        near, far = self.routers
        join(near, "middle", far, "middle")
        for number, host, router in ((1, a, near), (2, b, far)):
            join(host.namespace, WIRE, router, "host")
            other = 3 - number
            host.namespace.ip(
                f"address add 10.64.{number}.2/24 dev {WIRE}",
                f"address add 2001:db8:{number}::2/64 dev {WIRE} nodad",
                f"route add 10.64.0.0/16 via 10.64.{number}.1",
                f"route add 2001:db8::/32 via 2001:db8:{number}::1",
            )
            router.ip(
                f"address add 10.64.{number}.1/24 dev host",
                f"address add 2001:db8:{number}::1/64 dev host nodad",
                f"address add 10.64.3.{number}/24 dev middle",
                f"address add 2001:db8:3::{number}/64 dev middle nodad",
                f"route add 10.64.{other}.0/24 via 10.64.3.{other}",
                f"route add 2001:db8:{other}::/64 via 2001:db8:3::{other}",
            )
            # Whoever asks for a neighbour on behalf of another does it from a link-local address (RFC 4861 §4.3).
            for device in ("host", "middle"):
                router.ip(f"address add fe80::{number}/64 dev {device} nodad")
            for family in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
                router.run(["sh", "-c", f"echo 1 >/proc/sys/net/{family}"])
        self.hosts = a, b

    def outer(self, host: Host, version: int) -> str:
        """The address of ``host`` on the path."""
        return host.site.wire if version == 4 else f"2001:db8:{1 + self.hosts.index(host)}::2"

    def tell(self, version: int, **values: object) -> None:
        """Fresh configurations for that outer IP version; ``values`` are further keys of each peer."""
        a, b = self.hosts
        for host, peer in ((a, b), (b, a)):
            host.configure(peer, self._options)
            amend(host, "kink", listen=[self.outer(host, version)])
            amend(host, "[peer]", address=self.outer(peer, version), **values)

    def widen(self, octets: int = WIDE) -> None:
        """The link between the routers carries so many octets from now on."""
        for router in self.routers:
            router.ip(f"link set middle mtu {octets}")

    def say(self, aloud: bool) -> None:
        """Whether the routers tell who sends what is too large."""
        for router in self.routers:
            router.run(["nft", "-f", "-"], stdin="flush ruleset\n" + ("" if aloud else SILENT))

    def forget(self) -> None:
        """What the hosts have learnt of the path."""
        for host in self.hosts:
            for family in ("-4", "-6"):
                host.namespace.run(["ip", family, "route", "flush", "cache"])
