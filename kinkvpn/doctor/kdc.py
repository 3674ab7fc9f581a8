"""The KDC, asked for our ticket-granting ticket and a ticket to ourselves: what both say of keys and clocks."""

from __future__ import annotations

import re
import shlex
import time
from typing import TYPE_CHECKING, Final

import trio

from kinkvpn.decode.asn1 import read_ap_req
from kinkvpn.doctor.finding import Finding, error, note, ok, warning
from kinkvpn.doctor.keys import (
    SAFE_ENCTYPES,
    asked_of_kadmin,
    edit,
    fetch_keys,
    krb5_conf,
    krb5_default,
    login,
    names,
    source,
    unqualified,
)
from kinkvpn.doctor.people import own_groups
from kinkvpn.kerberos import libkrb5
from kinkvpn.kerberos.credentials import Credentials
from kinkvpn.kerberos.session import (
    KDC_ERR_ETYPE_NOSUPP,
    KRB_AP_ERR_BAD_INTEGRITY,
    KRB_AP_ERR_SKEW,
    KRB_AP_ERR_TKT_EXPIRED,
    Acceptor,
)
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

    from kinkvpn.config import HostSettings, PeopleSettings
    from kinkvpn.decode.asn1 import Sealed
    from kinkvpn.doctor.examination import Patient, Report
    from kinkvpn.kerberos.session import ServiceTicket
    from kinkvpn.proto.ports import TicketRefusal

# Ours. Of the skew that Kerberos allows: a clock that has gone that far is not being set by anybody.
DRIFT_PART: Final = 0.2
# Ours. Who works on a cache that ends within the hour will be asked for a password in the middle of something.
SOON_SECONDS: Final = 3600
# As krb5.conf(5) writes it: a host, perhaps with a transport before it and a port behind.
KDC_PLACE: Final = re.compile(r"(?:\w+/)?\[?([^]]*?)\]?(?::(\d+))?")
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
    allowed = allowed_skew(libkrb5.Context())
    patient.clock_is_right = abs(ticket.clock_offset) <= allowed * DRIFT_PART
    report(clock(-ticket.clock_offset, allowed, f"the KDC of {realm}"))
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
            add = asked_of_kadmin(f"addprinc -randkey {unqualified(host.principal)}")
            return error("principal-unknown", reason, "it was never made, or is written another way", add)
        case code if code in (KDC_ERR_PREAUTH_FAILED, KRB_AP_ERR_BAD_INTEGRITY):
            return error("keytab-stale", reason, "its key was changed since; old keytabs do not follow", mend)
        case code if code == KDC_ERR_ETYPE_NOSUPP:
            found = error("enctypes-refused", reason, "what krb5.conf permits and what the KDC has do not meet", mend)
            narrowed = libkrb5.Context().profile_values("libdefaults", "permitted_enctypes")
            return found.mended_by(krb5_default(SAFE_ENCTYPES)) if narrowed else found
        case code if code == KRB_AP_ERR_TKT_EXPIRED:
            return error("ccache-expired", reason, "nothing comes up, and what was up ends with them", mend)
        case code if code == KRB_AP_ERR_SKEW:
            return error("clock-skew", reason, "Kerberos takes nobody whose clock is further off", SET_CLOCK)
        case None if "no answer from" in reason:
            why = "without it there are no new tunnels; those that stand last as long as their tickets"
            return error("kdc-silent", reason, why, reach_kdc(realm))
        case None if "Cannot find KDC" in reason:
            why = "krb5.conf does not name one, and DNS has no _kerberos._udp record"
            return error("realm-unknown", reason, why, edit(krb5_conf()))
        case _:
            return error("no-ticket", reason, "these are libkrb5's words", mend)


def reach_kdc(realm: str) -> str:
    """Asks whether a KDC of ``realm`` is there: the first that krb5.conf has, or where DNS says that they are."""
    listed = libkrb5.Context().profile_values("realms", realm, "kdc")
    if not listed:
        return f"host -t SRV _kerberos._udp.{realm}"
    place = KDC_PLACE.fullmatch(listed[0])
    return shlex.join(["nc", "-vz", *((place[1], place[2] or "88") if place else (listed[0], "88"))])


def clock(ahead: float, allowed: int, whose: str, peer: str = "", *, theirs: bool = False) -> Finding:
    """What it means that this host's clock is ``ahead`` seconds ahead of that of ``whose``.

    Args:
        ahead: less than none if it is behind.
        allowed: seconds that Kerberos does.
        whose: for a person.
        peer: whose it is, if a peer's.
        theirs: it is theirs that is wrong, for ours is right by the KDC's.
    """
    line = f"this host's clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} that of {whose}"
    right = ", and ours is right by the KDC's" if theirs else ""
    if abs(ahead) > allowed:
        why = f"{allowed} s are allowed, beyond that every ticket is refused{right}"
        found = error("clock-skew", line, why, SET_CLOCK, peer)
    elif abs(ahead) > allowed * DRIFT_PART:
        why = f"{allowed} s are allowed, and nobody seems to set it{right}"
        found = warning("clock-drift", line, why, SET_CLOCK, peer)
    else:
        return ok("clock", line if abs(ahead) >= 1 else f"the clock is that of {whose}", peer)
    return found.over_there() if theirs else found


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
            allowed = asked_of_kadmin(f"modprinc +allow_svr {unqualified(host.principal)}")
            report(note("own-user-to-user", line, why, allowed))
        else:
            report(warning("no-own-ticket", unavailable.refusal.reason, "so the keytab's kvno was not compared"))
        return
    for finding in await trio.to_thread.run_sync(
        _accepted, host.principal, keytab, ticket, patient.configuration.people
    ):
        report(finding)


def _accepted(principal: str, keytab: Path, ticket: ServiceTicket, people: PeopleSettings) -> list[Finding]:
    ap_req = ticket.make_request().ap_req
    sealed = read_ap_req(ap_req).ticket.sealed
    context = libkrb5.Context()
    wanted, entries = context.canonical(principal), context.keytab_entries(context.keytab(f"FILE:{keytab}"))
    ours = {(kvno, enctype) for name, kvno, enctype in entries if name == wanted}
    acceptor = Acceptor([principal], keytab, replay_cache="none:", clock_offset=ticket.clock_offset)
    try:
        accepted = acceptor.accept(ap_req)
    except ApRequestRefused as refusal:
        return [_unopened(principal, keytab, ours, sealed, str(refusal))]
    return [_opened(keytab, {kvno for kvno, _ in ours}, sealed), *own_groups(accepted, people, realm_of(principal))]


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
