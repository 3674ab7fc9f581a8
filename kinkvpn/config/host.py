"""This host in Kerberos: [host]."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kinkvpn import values
from kinkvpn.kerberos.keytab_names import KeytabNamesUnknown, principals_of

if TYPE_CHECKING:
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
        machine: which of its principal's this is, in 16 octets; of a person's alone, whom no file names.
    """

    principal: str
    keytab: Path | None = None
    client_keytab: Path | None = None
    ccache: str | None = None
    krb5_config: Path | None = None
    kdc_timeout: float = 5.0
    replay_cache: str = "dfl:"
    machine: bytes = b""

    @property
    def initiator_keytab(self) -> Path | None:
        """What credentials are got with. A ``ccache`` alone is somebody else's to keep fresh; with a
        ``client_keytab`` it is where ours go.
        """
        return self.client_keytab or (None if self.ccache else self.keytab)


# Where the keytab is looked for if nobody says: beside the configuration, then the system's.
OWN_KEYTAB = "keytab"
SYSTEM_KEYTAB = Path("/etc/krb5.keytab")


def read_host(table: Table) -> HostSettings:
    """[host]. Without any key it is the one ``kink/`` entry of the keytab, wherever that usually is."""
    path = values.file_path(table.directory)
    keytab = table.get("keytab", path, None)
    client_keytab = table.get("client_keytab", path, None)
    ccache = table.get("ccache", values.cache_name, None)
    if not any(key in table for key in ("keytab", "client_keytab", "ccache")):
        keytab = next((each for each in (table.directory / OWN_KEYTAB, SYSTEM_KEYTAB) if each.exists()), None)
        if keytab is None:
            table.report('host.keytab is missing: expected keytab = "/etc/krb5.keytab", or client_keytab, or ccache')
    host = HostSettings(
        principal=_principal(table, keytab),
        keytab=keytab,
        client_keytab=client_keytab,
        ccache=ccache,
        krb5_config=table.get("krb5_config", path, None),
        kdc_timeout=table.get("kdc_timeout", values.seconds(0.1, 60), 5.0),
        replay_cache=table.get("replay_cache", values.replay_cache, "dfl:"),
    )
    table.close()
    return host


def _principal(table: Table, keytab: Path | None) -> str:
    expected = "one such as kink/gw.example.com@EXAMPLE.COM"
    if "principal" in table or keytab is None:
        return table.require("principal", values.principal, "", expected)
    table.get("principal", values.principal, "")
    try:
        found = [name for name in principals_of(keytab) if name.startswith("kink/")]
    except KeytabNamesUnknown as error:
        table.report(f"host.principal is missing: expected {expected}, for {error}")
        return ""
    if len(found) != 1:
        have = f"{keytab} has {', '.join(found)}" if found else f"{keytab} has no kink/ entry"
        table.report(f"host.principal is missing: expected {expected}, for {have}")
    return found[0] if len(found) == 1 else ""


def realm_of(principal: str) -> str:
    """What is behind the @."""
    return principal.rpartition("@")[2]
