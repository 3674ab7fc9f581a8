"""Where names are looked up while the tunnel is up: [dns]."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kinkvpn import values

if TYPE_CHECKING:
    from kinkvpn.document import Table

# resolv.conf(5) has three and six; systemd-resolved takes more.
MAXIMUM_SERVERS = 8
MAXIMUM_DOMAINS = 8


@dataclass(frozen=True, slots=True)
class DnsSettings:
    """Name servers.

    Args:
        servers: to be asked; none leaves the host's alone.
        domains: that they know, and that short names are completed with.
        file: resolv.conf, for a host that has no program to look after it.
    """

    servers: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    file: Path = Path("/etc/resolv.conf")


NO_DNS = DnsSettings()


def read_dns(table: Table) -> DnsSettings:
    """[dns]; relative paths start where the file is."""
    settings = DnsSettings(
        servers=table.items("servers", values.ip_address, NO_DNS.servers),
        domains=table.items("domains", values.domain, NO_DNS.domains),
        file=table.get("file", values.file_path(table.directory), NO_DNS.file),
    )
    for key, most in (("servers", MAXIMUM_SERVERS), ("domains", MAXIMUM_DOMAINS)):
        if table.sound and len(getattr(settings, key)) > most:
            table.report_value((key,), table.written(key), f"at most {most} of them")
    if table.sound and settings.domains and not settings.servers:
        table.report_value(("domains",), table.written("domains"), "servers beside it")
    table.close()
    return settings
