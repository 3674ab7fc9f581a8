"""The laboratory with a third namespace on the wire, which forwards: a bridge, or a relay that makes faults.

    host a ------------ left  path  right ------------ host b

Whole: datagrams that were sent as one run (UDP_SEGMENT) cross the path as one, as on a NIC with USO. Split: the kernel
cuts them before they reach the wire.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from bench.relay import Odds, Passed, Relay
from kinkvpn.demo.lab import SITES, WIRE, DaemonOptions, Lab
from kinkvpn.demo.namespace import Namespace, join

if TYPE_CHECKING:
    from pathlib import Path

LEFT, RIGHT = DEVICES = ("left", "right")
MACS: Final = ("02:00:00:00:00:01", "02:00:00:00:00:02")
# Of the hosts on the path, by IP version; with the prefix length that is right for two.
OUTER: Final = {4: (("192.0.2.1", "192.0.2.2"), 30), 6: (("2001:db8::1", "2001:db8::2"), 126)}


class PathLab(Lab):
    """A laboratory with a path.

    Args:
        directory, options: as for any laboratory.
        odds: of the faults; a bridge where there are none.
        seed: of the faults.
        whole: runs of datagrams cross it as one.
        outer: IP version outside the tunnel.
    """

    def __init__(
        self, directory: Path, options: DaemonOptions, *, odds: Odds, seed: int, whole: bool, outer: int = 4
    ) -> None:
        super().__init__(directory, options)
        self._odds, self._seed, self._whole, self._outer = odds, seed, whole, outer
        self._relay: Relay | None = None

    def start_hosts(self) -> None:
        """Both hosts and the path, connected, configured. Raises LabFailed."""
        path = self._undo.enter_context(Namespace("path"))
        addresses, prefix = OUTER[self._outer]
        sites = [replace(site, wire=address) for site, address in zip(SITES, addresses, strict=True)]
        self._realm_of |= {site: self._realm_of[before] for before, site in zip(SITES, sites, strict=True)}
        a, b = map(self._host, sites)
        for host, device, mine, other in ((a, LEFT, 0, 1), (b, RIGHT, 1, 0)):
            join(host.namespace, WIRE, path, device)
            nodad = " nodad" if self._outer == 6 else ""
            # Known for good: while a neighbour is looked for the kernel drops what waits for it, and counts it nowhere.
            host.namespace.ip(
                f"link set dev {WIRE} address {MACS[mine]}",
                f"address add {host.site.wire}/{prefix} dev {WIRE}{nodad}",
                f"neighbour add {addresses[other]} lladdr {MACS[other]} dev {WIRE}",
            )
            if not self._whole:
                host.namespace.run(["ethtool", "-K", WIRE, "tx-udp-segmentation", "off"])
        a.configure(b, self._options)
        b.configure(a, self._options)
        self._forward(path)
        self.hosts = a, b

    def _forward(self, path: Namespace) -> None:
        if self._odds:
            self._relay = Relay(path, DEVICES, self._odds, seed=self._seed, directory=self._directory)
            self._undo.callback(self._relay.kill)
            return
        path.ip(
            "link add name bridge0 type bridge",
            *(f"link set {device} master bridge0" for device in DEVICES),
            "link set bridge0 addrgenmode none up",
        )

    def end_path(self) -> tuple[Passed, Passed] | None:
        """Ends the relay, which says what it did, from a to b and back; None of a bridge. Raises LabFailed."""
        relay, self._relay = self._relay, None
        return relay.end() if relay else None
