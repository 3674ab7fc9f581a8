"""The KDC, asked for our ticket-granting ticket and a ticket to ourselves: what both say of keys and clocks."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import trio

from kinkvpn.decode.asn1 import read_ap_req
from kinkvpn.doctor.finding import Finding, error, note, ok, warning
from kinkvpn.doctor.keys import fetch_keys, login, names, source
from kinkvpn.kerberos import libkrb5
from kinkvpn.kerberos.credentials import Credentials
from kinkvpn.kerberos.session import KDC_ERR_ETYPE_NOSUPP, KRB_AP_ERR_BAD_INTEGRITY, KRB_AP_ERR_SKEW, Acceptor
from kinkvpn.kerberos.tickets import (
    KDC_ERR_C_PRINCIPAL_UNKNOWN,
    KDC_ERR_MUST_USE_USER2USER,
    KDC_ERR_PREAUTH_FAILED,
    TicketSource,
    TicketUnavailable,
    allowed_skew,
)
from kinkvpn.proto.ports import ApRequestRefused

if TYPE_CHECKING:
    from pathlib import Path

    from kinkvpn.config import HostSettings
    from kinkvpn.decode.asn1 import Sealed
    from kinkvpn.doctor.examination import Patient, Report
    from kinkvpn.kerberos.session import ServiceTicket
    from kinkvpn.proto.ports import TicketRefusal

# Ours. Of the skew that Kerberos allows: a clock that has gone that far is not being set by anybody.
DRIFT_PART: Final = 0.2
# Ours. Who works on a cache that ends within the hour will be asked for a password in the middle of something.
SOON_SECONDS: Final = 3600
SET_CLOCK: Final = "timedatectl set-ntp true"


async def granting(patient: Patient, report: Report) -> None:
    """Our ticket-granting ticket: the KDC is there, knows us, and agrees about key, enctype and clock."""
    if patient.configuration is None:
        return
    host = patient.configuration.host
    tickets = TicketSource(Credentials(host.principal, keytab=host.initiator_keytab, ccache=host.ccache))
    realm = realm_of(host.principal)
    started = trio.current_time()
    try:
        ticket = await tickets.get(f"krbtgt/{realm}@{realm}", deadline=host.kdc_timeout)
    except TicketUnavailable as unavailable:
        report(refused(host, unavailable.refusal))
        return
    patient.tickets = tickets
    took = (trio.current_time() - started) * 1000
    report(ok("kdc", f"the KDC of {realm} knows us by {source(host)}, in {took:.0f} ms"))
    report(clock(-ticket.clock_offset, allowed_skew(libkrb5.Context()), f"the KDC of {realm}"))
    if host.ccache and host.client_keytab is None:
        report(expiry(host.ccache, host.principal, ticket.endtime - time.time()))


def realm_of(principal: str) -> str:
    """The part behind the last ``@``; krb5.conf's default realm where there is none."""
    return libkrb5.Context().canonical(principal).rpartition("@")[2]


def refused(host: HostSettings, refusal: TicketRefusal) -> Finding:
    """Why there is no ticket-granting ticket, by what the KDC said, or by its silence."""
    reason, realm = refusal.reason, realm_of(host.principal)
    mend = (
        fetch_keys(host.initiator_keytab, host.principal)
        if host.initiator_keytab
        else login(host.ccache or "", host.principal)
    )
    match refusal.code:
        case code if code == KDC_ERR_C_PRINCIPAL_UNKNOWN:
            add = f"kadmin -q 'addprinc -randkey {host.principal.partition('@')[0]}'"
            return error("principal-unknown", reason, "it was never made, or is written another way", add)
        case code if code in (KDC_ERR_PREAUTH_FAILED, KRB_AP_ERR_BAD_INTEGRITY):
            return error("keytab-stale", reason, "its key was changed since; old keytabs do not follow", mend)
        case code if code == KDC_ERR_ETYPE_NOSUPP:
            return error("enctypes-refused", reason, "what krb5.conf permits and what the KDC has do not meet", mend)
        case code if code == KRB_AP_ERR_SKEW:
            return error("clock-skew", reason, "Kerberos takes nobody whose clock is further off", SET_CLOCK)
        case None if "no answer from" in reason:
            why = "without it there are no new tunnels; those that stand last as long as their tickets"
            return error("kdc-silent", reason, why, f"nc -vz {first_kdc(realm) or 'KDC'} 88")
        case None if "Cannot find KDC" in reason:
            why = "krb5.conf does not name one, and DNS has no _kerberos._udp record"
            return error("realm-unknown", reason, why, "$EDITOR /etc/krb5.conf")
        case _:
            return error("no-ticket", reason, "these are libkrb5's words", mend)


def first_kdc(realm: str) -> str:
    """Its host, as krb5.conf has it; empty where DNS has to know."""
    listed = libkrb5.Context().profile_values("realms", realm, "kdc")
    return listed[0].rpartition(":")[0].strip("[]") or listed[0] if listed else ""


def clock(ahead: float, allowed: int, whose: str, peer: str = "") -> Finding:
    """What it means that this host's clock is ``ahead`` seconds ahead of theirs."""
    line = f"this host's clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} that of {whose}"
    if abs(ahead) > allowed:
        return error(
            "clock-skew", line, f"{allowed} s are allowed, beyond that every ticket is refused", SET_CLOCK, peer
        )
    if abs(ahead) > allowed * DRIFT_PART:
        return warning("clock-drift", line, f"{allowed} s are allowed, and nobody seems to set it", SET_CLOCK, peer)
    return ok("clock", line if abs(ahead) >= 1 else f"the clock is that of {whose}", peer)


def expiry(ccache: str, principal: str, remaining: float) -> Finding:
    """When a cache that somebody else fills is spent."""
    line = f"the tickets of {ccache} end in {remaining / 60:.0f} min"
    if remaining < SOON_SECONDS:
        why = "tunnels that stand end with them; who has a client_keytab is not asked again"
        return warning("ccache-ends", line, why, login(ccache, principal))
    return ok("ccache-lasts", line)


async def own_key(patient: Patient, report: Report) -> None:
    """A ticket for ourselves, taken as a peer's would be: whether the keytab has the key that the KDC seals with."""
    if patient.configuration is None or patient.tickets is None or patient.configuration.host.keytab is None:
        return
    host, keytab = patient.configuration.host, patient.configuration.host.keytab
    try:
        ticket = await patient.tickets.get(host.principal, deadline=host.kdc_timeout)
    except TicketUnavailable as unavailable:
        if unavailable.refusal.code == KDC_ERR_MUST_USE_USER2USER:
            line = f"the KDC makes user-to-user tickets only for {host.principal}"
            why = "peers reach us all the same where they do user-to-user (RFC 4430 §3.1); racoon2 does not"
            report(note("own-user-to-user", line, why, f"kadmin -q 'modprinc +allow_svr {host.principal}'"))
        else:
            report(warning("no-own-ticket", unavailable.refusal.reason, "so the keytab's kvno was not compared"))
        return
    report(await trio.to_thread.run_sync(_accepted, host.principal, keytab, ticket))


def _accepted(principal: str, keytab: Path, ticket: ServiceTicket) -> Finding:
    ap_req = ticket.make_request().ap_req
    sealed = read_ap_req(ap_req).ticket.sealed
    context = libkrb5.Context()
    wanted, entries = context.canonical(principal), context.keytab_entries(context.keytab(f"FILE:{keytab}"))
    ours = {(kvno, enctype) for name, kvno, enctype in entries if name == wanted}
    acceptor = Acceptor([principal], keytab, replay_cache="none:", clock_offset=ticket.clock_offset)
    try:
        acceptor.accept(ap_req)
    except ApRequestRefused as refusal:
        return _unopened(principal, keytab, ours, sealed, str(refusal))
    return _opened(keytab, {kvno for kvno, _ in ours}, sealed)


def _opened(keytab: Path, kvnos: set[int], sealed: Sealed) -> Finding:
    """The key is the right one; the number that it goes by may still be a surprise."""
    issued = sealed.kvno
    if issued is None or issued in kvnos:
        return ok("keytab-kvno-fits", f"keytab {keytab} opens what the KDC makes for us, kvno {issued}")
    line = f"keytab {keytab} has kvno {listed(kvnos)}, the KDC makes tickets with kvno {issued}; the key fits"
    if kvnos == {0}:
        why = "tools for Active Directory write kvno 0: MIT Kerberos tries the key all the same, others do not"
        return note("keytab-kvno-zero", line, why)
    return note("keytab-kvno-odd", line, "somebody wrote the keytab by hand, or numbers are cut to eight bits")


def _unopened(principal: str, keytab: Path, ours: set[tuple[int, int]], sealed: Sealed, words: str) -> Finding:
    issued, mend = sealed.kvno, fetch_keys(keytab, principal)
    if sealed.enctype not in {enctype for _, enctype in ours}:
        has = names({enctype for _, enctype in ours})
        line = f"the KDC makes tickets for us with {names({sealed.enctype})}, keytab {keytab} has {has}"
        return error("keytab-enctype", line, "no peer's ticket can be opened here", mend)
    if issued is not None and issued not in {kvno for kvno, _ in ours}:
        line = (
            f"keytab {keytab} has kvno {listed({kvno for kvno, _ in ours})}, the KDC makes tickets with kvno {issued}"
        )
        why = "the key was changed at the KDC and not brought here: every peer's ticket is refused"
        return error("keytab-kvno", line, why, mend)
    why = f"same kvno and another key: a keytab of another KDC, or a key that was set again ({words})"
    return error("keytab-key", f"keytab {keytab} does not open what the KDC makes for us", why, mend)


def listed(kvnos: set[int]) -> str:
    """``2 and 3``."""
    return " and ".join(map(str, sorted(kvnos)))
