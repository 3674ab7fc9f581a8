"""What this host proves itself with, as far as the host alone can tell: krb5.conf, keytabs, a credential cache."""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kinkvpn.doctor.finding import Finding, Setting, error, note, ok, warning
from kinkvpn.errors import KinkvpnError
from kinkvpn.kerberos import libkrb5
from kinkvpn.kerberos.credentials import (
    CcacheUnusable,
    KeytabEnctypesRefused,
    KeytabLacksPrincipal,
    KeytabMissing,
    KeytabUnreadable,
    check_ccache,
    check_keytab,
    some,
)
from kinkvpn.kerberos.library import LibraryUnusable
from kinkvpn.kerberos.session import PERMITTED_ENCTYPES, enctype_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kinkvpn.config import HostSettings
    from kinkvpn.doctor.examination import Patient

# A group may: that of the daemon (docs/service.md).
OTHERS: Final = stat.S_IRWXO
# What krb5.conf(5) calls all four of AES: what it takes where nobody says anything, without the broken ones.
SAFE_ENCTYPES: Final = "permitted_enctypes = aes"


def found_here(patient: Patient) -> Iterator[Finding]:
    """krb5.conf, then each keytab, then the cache."""
    if patient.configuration is None:
        return
    host = patient.configuration.host
    try:
        if host.krb5_config is not None:
            libkrb5.use_config(host.krb5_config)
        context = libkrb5.Context()
    except KinkvpnError as unusable:
        missing = isinstance(unusable, LibraryUnusable)
        mend = "apt-get install libkrb5-3" if missing else edit(host.krb5_config or krb5_conf())
        yield error("krb5-config", str(unusable), command=mend)
        return
    permitted = context.permitted_enctypes() & PERMITTED_ENCTYPES
    if not permitted:
        why = "kinkvpn takes AES and Camellia (RFC 8429), and what it may use of them is in permitted_enctypes"
        found = error("enctypes-excluded", "krb5.conf permits no enctype that is safe", why)
        yield found.mended_by(krb5_default(SAFE_ENCTYPES))
    for path in dict.fromkeys(each for each in (host.keytab, host.client_keytab) if each is not None):
        yield from _keytab(patient, path, host.principal, permitted)
    if host.ccache is not None and host.client_keytab is None:
        yield from _ccache(host.ccache, host.principal)


def fetch_keys(path: Path, principal: str) -> str:
    """What brings the KDC's present keys here; docs/doctor.md has the same for FreeIPA and Active Directory."""
    return asked_of_kadmin(f"ktadd -k {path} {unqualified(principal)}")


def asked_of_kadmin(query: str) -> str:
    """kadmin(1), as it is typed."""
    return f"kadmin -q {shlex.quote(query)}"


def unqualified(principal: str) -> str:
    """Without its realm, which is kadmin's own."""
    return principal.rpartition("@")[0] or principal


def krb5_conf() -> Path:
    """The one that libkrb5 reads, the first if there are several."""
    return Path(os.environ.get("KRB5_CONFIG", "").partition(":")[0] or "/etc/krb5.conf")


def krb5_default(line: str) -> Setting:
    """A line for what holds in every realm."""
    return Setting(str(krb5_conf()), "[libdefaults]", line)


def edit(path: Path, line: int = 0) -> str:
    """Opens it in whichever editor somebody has."""
    return f"${{EDITOR:-vi}} {f'+{line} ' if line else ''}{shlex.quote(str(path))}"


def _keytab(patient: Patient, path: Path, principal: str, permitted: frozenset[int]) -> Iterator[Finding]:
    mend = fetch_keys(path, principal)
    try:
        enctypes = check_keytab(path, principal)
    except KeytabMissing as missing:
        yield error("keytab-missing", str(missing), command=mend)
        return
    except KeytabUnreadable as unreadable:
        yield _unreadable(patient, path, str(unreadable), mend)
        return
    except KeytabLacksPrincipal as lacking:
        why = "names are compared letter by letter, with the realm and in lower case"
        yield error("keytab-lacks-principal", str(lacking), why, mend)
        return
    except KeytabEnctypesRefused as refused:
        yield error("keytab-enctypes", str(refused), "DES, 3DES and RC4 are broken (RFC 6649, RFC 8429)", mend)
        return
    if permitted and not enctypes & permitted:
        line = f"keytab {path} has {names(enctypes)} of {principal}, krb5.conf permits {names(permitted)}"
        why = "the key that is here may not be used, and the one that may be is not here"
        yield error("enctypes-apart", line, why, mend)
        return
    yield ok("keytab", f"keytab {path} has keys of {principal}: {names(enctypes)}")
    yield from _beside(path, principal)


def _unreadable(patient: Patient, path: Path, line: str, mend: str) -> Finding:
    if os.access(path, os.R_OK):
        why = "kadmin adds to no such file: it is put aside, and made anew"
        return error(
            "keytab-unreadable", line, why, f"mv {shlex.quote(str(path))} {shlex.quote(f'{path}.bad')} && {mend}"
        )
    why = "the daemon's user has to be able to read it, and nobody else; root can look at the rest"
    return error("keytab-unreadable", line, why, patient.in_full())


def _beside(path: Path, principal: str) -> Iterator[Finding]:
    """What a keytab should not have: keys for enctypes that are broken, and readers."""
    context = libkrb5.Context()
    wanted, entries = context.canonical(principal), context.keytab_entries(context.keytab(f"FILE:{path}"))
    weak = {enctype for name, _, enctype in entries if name == wanted} - PERMITTED_ENCTYPES
    if weak:
        line = f"keytab {path} has keys for refused enctypes too: {names(weak)}"
        yield note("keytab-weak-keys", line, "a KDC that still has them may make tickets that we refuse")
    if path.stat().st_mode & OTHERS:
        why = "whoever reads it can be this host, and can read what was recorded of tunnels without PFS"
        yield warning(
            "keytab-permissions", f"keytab {path} can be read by others", why, f"chmod o= {shlex.quote(str(path))}"
        )


def names(enctypes: frozenset[int] | set[int]) -> str:
    """``aes128-cts-hmac-sha1-96 (17), ...``."""
    return some({enctype_name(enctype) for enctype in enctypes})


def _ccache(name: str, principal: str) -> Iterator[Finding]:
    if name.startswith(("KEYRING:", "KCM:")):
        why = "a container sees the host's keyring, or none; and a KCM needs its socket there"
        yield warning(
            "ccache-not-a-file",
            f"credential cache {name} is not a file",
            why,
            login("FILE:/run/kinkvpn/tickets", principal),
        )
    try:
        check_ccache(name, principal)
    except CcacheUnusable as unusable:
        yield error("ccache-unusable", str(unusable), command=login(name, principal))
        return
    yield ok("ccache", f"credential cache {name} is {principal}'s")


def login(ccache: str, principal: str) -> str:
    """What fills it."""
    return shlex.join(["kinit", "-c", ccache, principal])


def source(host: HostSettings) -> str:
    """What credentials are got with, for a person."""
    return f"keytab {host.initiator_keytab}" if host.initiator_keytab else f"credential cache {host.ccache}"
