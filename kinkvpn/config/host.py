"""This host in Kerberos: [host]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kinkvpn import values

if TYPE_CHECKING:
    from pathlib import Path

    from kinkvpn.document import Table


@dataclass(frozen=True, slots=True)
class HostSettings:
    """This host in Kerberos. At least one of ``keytab``, ``client_keytab`` and ``ccache`` is there.

    Args:
        principal: ``primary/instance@REALM`` or ``name@REALM``.
        keytab: what AP-REQs are accepted with, and credentials got with where nothing else is given. Without it this
            host answers to user-to-user tickets alone.
        client_keytab: what credentials are got with when it is not ``keytab``.
        ccache: a credential cache as libkrb5 names it.
        krb5_config: instead of the system's krb5.conf.
        kdc_timeout: seconds that one KDC exchange may take.
        replay_cache: a libkrb5 replay cache name.
    """

    principal: str
    keytab: Path | None = None
    client_keytab: Path | None = None
    ccache: str | None = None
    krb5_config: Path | None = None
    kdc_timeout: float = 5.0
    replay_cache: str = "dfl:"

    @property
    def initiator_keytab(self) -> Path | None:
        """What credentials are got with. A ``ccache`` alone is somebody else's to keep fresh; with a
        ``client_keytab`` it is where ours go.
        """
        return self.client_keytab or (None if self.ccache else self.keytab)


def read_host(table: Table, directory: Path) -> HostSettings:
    """[host]; relative paths in it start at ``directory``."""
    path = values.file_path(directory)
    host = HostSettings(
        principal=table.require("principal", values.principal, "", "one such as kink/gw.example.com@EXAMPLE.COM"),
        keytab=table.get("keytab", path, None),
        client_keytab=table.get("client_keytab", path, None),
        ccache=table.get("ccache", values.cache_name, None),
        krb5_config=table.get("krb5_config", path, None),
        kdc_timeout=table.get("kdc_timeout", values.seconds(0.1, 60), 5.0),
        replay_cache=table.get("replay_cache", values.replay_cache, "dfl:"),
    )
    if not any(key in table for key in ("keytab", "client_keytab", "ccache")):
        table.report('host.keytab is missing: expected keytab = "/etc/krb5.keytab", or client_keytab, or ccache')
    table.close()
    return host
