"""The laboratory with a NAT on its wire: the kernel's own, nftables masquerade, in a namespace between the hosts.

       host a ------------ inside  nat  outside ------------ host b
              10.64.0.2  10.64.0.1      192.0.2.1   192.0.2.2

Host a is the road warrior: nothing on host b names its address, and nothing but the NAT leads to it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from support.lab import amend

from kinkvpn.demo.lab import SITES, WIRE, DaemonOptions, Lab
from kinkvpn.demo.namespace import Namespace, join

INSIDE: Final = "10.64.0.1"
CLIENT: Final = "10.64.0.2"
OUTSIDE: Final = "192.0.2.1"
ELSEWHERE: Final = "192.0.2.3"

RULES: Final = """\
flush ruleset
table ip nat {{
    chain postrouting {{
        type nat hook postrouting priority srcnat
        oifname "outside" meta l4proto udp masquerade to :{first}-{last}
    }}
}}
table ip filter {{
    chain forward {{
        type filter hook forward priority filter
        {dropped}
    }}
}}
"""


class NatLab(Lab):
    """A laboratory whose host a is behind a NAT."""

    def start_hosts(self) -> None:
        """Both hosts and the NAT, connected; :meth:`tell` configures. Raises LabFailed."""
        self.nat = self._undo.enter_context(Namespace("nat"))
        behind = replace(SITES[0], wire=CLIENT)
        self._realm_of[behind] = self._realm_of[SITES[0]]
        a, b = self._host(behind), self._host(SITES[1])
        join(a.namespace, WIRE, self.nat, "inside")
        join(b.namespace, WIRE, self.nat, "outside")
        self.nat.ip(f"address add {INSIDE}/24 dev inside", f"address add {OUTSIDE}/29 dev outside")
        self.nat.run(["sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"])
        a.namespace.ip(f"address add {CLIENT}/24 dev {WIRE}", f"route add 192.0.2.0/29 via {INSIDE}")
        b.namespace.ip(f"address add {b.site.wire}/29 dev {WIRE}")
        self.hosts = a, b
        self.outside = OUTSIDE
        self.translate(20_000)

    def tell(self, options: DaemonOptions | None = None, **client: object) -> None:
        """Fresh configurations; ``client`` are further keys of host a's peer."""
        a, b = self.hosts
        a.configure(b, options or DaemonOptions())
        amend(a, "[peer]", **client)
        b.configure(a, replace(options or DaemonOptions(), start="demand"))
        text = b.configuration.read_text()
        b.configuration.write_text(text.replace(f'address = "{CLIENT}"\n', ""))

    def translate(self, first: int, *, dropped: int | None = None) -> None:
        """Masquerade to a hundred ports from ``first`` on, and forward nothing to UDP port ``dropped``."""
        rule = "" if dropped is None else f"udp dport {dropped} drop"
        self.nat.run(["nft", "-f", "-"], stdin=RULES.format(first=first, last=first + 99, dropped=rule))

    def rebind(self, outside: str, first: int) -> None:
        """Another address or none, other ports, and every mapping forgotten: the kernel drops those of an address that
        goes. What was on its way to the old one is lost.
        """
        self.nat.ip(f"address del {self.outside}/29 dev outside")
        self.translate(first)
        self.nat.ip(f"address add {outside}/29 dev outside")
        self.outside = outside

    def forget_after(self, seconds: int) -> None:
        """How long a mapping lasts that carries nothing; kernels have 30 and 120 s by default."""
        for name in ("nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream"):
            self.nat.run(["sh", "-c", f"echo {seconds} >/proc/sys/net/netfilter/{name}"])
