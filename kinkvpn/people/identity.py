"""Who somebody is, and who the gateway is, by what kinit has left."""

from __future__ import annotations

import hmac
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kinkvpn.kerberos.libkrb5 import Context, Krb5Error
from kinkvpn.kerberos.tickets import KDC_ERR_S_PRINCIPAL_UNKNOWN, TicketUnavailable
from kinkvpn.proto.extensions import MACHINE_OCTETS
from kinkvpn.service.obstacles import StartRefused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kinkvpn.kerberos.tickets import TicketSource

MACHINE_ID = Path("/etc/machine-id")


@dataclass(frozen=True, slots=True)
class Identity:
    """A person.

    Args:
        principal: with its realm.
        ccache: where the tickets are, as libkrb5 names it.
    """

    principal: str
    ccache: str

    @property
    def realm(self) -> str:
        """Of the principal."""
        return self.principal.rpartition("@")[2]


def find_identity(ccache: str | None = None, environment: Mapping[str, str] = os.environ) -> Identity:
    """Whose tickets are in ``ccache``, or in the default credential cache if that is None.

    Raises:
        StartRefused: there are none, or they were found and are somebody else's; says where it was looked, and what
            to do.
        LibraryUnusable: no MIT libkrb5.
    """
    try:
        context = Context()
        name = ccache or default_ccache(context, environment)
        if ccache is None:
            _refuse_others(name, environment)
    except Krb5Error as error:
        raise StartRefused(f"krb5.conf: {error}") from error
    try:
        return Identity(context.unparse(context.ccache_principal(context.ccache(name))), name)
    except Krb5Error as error:
        raise StartRefused(f"no tickets in {name}: {error}; kinit gets some, --ccache names another place") from error


def _refuse_others(name: str, environment: Mapping[str, str]) -> None:
    """Names below /tmp are free for all: who has put tickets of theirs there would have us be them. A file that is
    there has to be root's, ours, or that of whoever called us by sudo.
    """
    path = Path(name.removeprefix("FILE:").removeprefix("DIR::").removeprefix("DIR:"))
    caller = environment.get("SUDO_UID", "")
    allowed = {0, os.geteuid(), *([int(caller)] if caller.isdecimal() and not os.geteuid() else [])}
    try:
        owners = {path.lstat().st_uid, path.stat().st_uid}
    except (OSError, ValueError):
        return  # of another kind, which has its own ways; or libkrb5 says that it is not there
    for uid in sorted(owners - allowed):
        raise StartRefused(
            f"tickets in {name} are those of uid {uid}, who has not asked: --ccache says that they are meant"
        )


def default_ccache(context: Context, environment: Mapping[str, str]) -> str:
    """The cache of whoever runs this; under sudo, of the person who called it and has no tickets as root."""
    caller = environment.get("SUDO_UID", "")
    if environment.get("KRB5CCNAME") or not caller.isdecimal() or os.geteuid():
        return context.default_ccache()
    named = context.profile_values("libdefaults", "default_ccache_name")
    if named:
        return named[0].replace("%{uid}", caller).replace("%{euid}", caller)
    # What libkrb5 was built with has the uid last (krb5.conf(5)), and it has filled in ours.
    ours, own = context.default_ccache(), str(os.getuid())
    return ours.removesuffix(own) + caller if ours.endswith(own) else ours


async def gateway_principal(gateway: str, tickets: TicketSource, deadline: float) -> str:
    """``kink/GATEWAY`` (RFC 4430 §4.2.1) in the realm that krb5.conf puts that host in, or else the KDC (RFC 6806 §8).

    Args:
        gateway: its host name.
        tickets: the person's.
        deadline: seconds.

    Raises:
        StartRefused: there is no ticket for it, and why.
    """
    try:
        return (await tickets.get(f"kink/{gateway}@", deadline=deadline)).issued_to()
    except TicketUnavailable as unavailable:
        refusal = unavailable.refusal
        hint = f"; {_another_name(gateway)}" if refusal.code == KDC_ERR_S_PRINCIPAL_UNKNOWN else ""
        raise StartRefused(f"{refusal.reason}{hint}") from unavailable


def _another_name(gateway: str) -> str:
    named = "--principal says which it has"
    if ":" in gateway or gateway.replace(".", "").isdecimal():
        return f"a gateway's principal has its host name: use that, or {named}"
    return named if "." in gateway else f"use its whole name, such as {gateway}.example.com, or {named}"


def likely_principal(gateway: str, identity: Identity) -> str:
    """The same without asking anybody: in the person's realm where krb5.conf does not say."""
    context = Context()
    return f"kink/{gateway.lower()}@{context.realm_of(gateway.lower()) or identity.realm}"


def this_machine(machine_id: Path = MACHINE_ID) -> bytes:
    """Sixteen octets that are this machine's at every start, or, where it has no id, at this one.

    Not the id itself, "which must not be exposed in untrusted environments": what a keyed hash makes of it for this
    program (machine-id(5)).
    """
    known = _id(machine_id)
    if not known:
        return secrets.token_bytes(MACHINE_OCTETS)
    return hmac.digest(known, b"kinkvpn machine", "sha256")[:MACHINE_OCTETS]


def machine_of(kept: bytes, machine_id: Path = MACHINE_ID) -> bytes:
    """Likewise, of one of several on this host; ``kept`` is drawn by lot and this one's. In a copy of its files on a
    host with another id it is another machine, and so is it in another container of an image that has an id.
    """
    return hmac.digest(kept, b"kinkvpn machine" + _id(machine_id), "sha256")[:MACHINE_OCTETS]


def _id(machine_id: Path) -> bytes:
    """Empty where there is none."""
    try:
        text = machine_id.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return b""
    return bytes.fromhex(text) if re.fullmatch(r"[0-9a-f]{32}", text) else b""
