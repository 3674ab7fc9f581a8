"""Tickets for the peers: whether the KDC knows each by the name that is configured, with a key, over which realms."""

from __future__ import annotations

import json
import shlex
import socket
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import trio

from kinkvpn.decode.asn1 import read_ap_req
from kinkvpn.doctor.finding import Finding, error, note, ok, warning
from kinkvpn.doctor.kdc import reach_kdc, realm_of
from kinkvpn.doctor.keys import asked_of_kadmin, edit, krb5_conf, krb5_default, names, unqualified
from kinkvpn.kerberos import libkrb5
from kinkvpn.kerberos.session import KDC_ERR_ETYPE_NOSUPP, PERMITTED_ENCTYPES
from kinkvpn.kerberos.tickets import (
    KDC_ERR_MUST_USE_USER2USER,
    KDC_ERR_S_PRINCIPAL_UNKNOWN,
    TicketSource,
    TicketUnavailable,
)
from kinkvpn.proto.gettgt import KDC_HAS_NO_KEY
from kinkvpn.proto.settings import UserToUser

if TYPE_CHECKING:
    from kinkvpn.config import PeerConfiguration
    from kinkvpn.doctor.examination import Patient, Report
    from kinkvpn.kerberos.session import ServiceTicket
    from kinkvpn.proto.ports import TicketRefusal

# Ours. Trips to the KDC at once; a gateway with a thousand peers is through in a few seconds.
AT_ONCE: Final = 8
# Ours. A resolver that is there answers in milliseconds, and DNS is not what is looked at.
RESOLVE_SECONDS: Final = 3.0


async def tickets(patient: Patient, report: Report) -> None:
    """One for each peer, several at once, told in the order of the configuration."""
    if patient.tickets is None:
        return
    told: dict[str, list[Finding]] = {peer.name: [] for peer in patient.peers}
    free = trio.CapacityLimiter(AT_ONCE)

    async def look(peer: PeerConfiguration) -> None:
        async with free:
            await _look(patient, peer, told[peer.name].append)

    async with trio.open_nursery() as nursery:
        for peer in patient.peers:
            nursery.start_soon(look, peer)
    for findings in told.values():
        for finding in findings:
            report(finding)


async def _look(patient: Patient, peer: PeerConfiguration, report: Report) -> None:
    assert patient.tickets is not None
    assert patient.configuration is not None
    deadline = patient.configuration.host.kdc_timeout
    instance = peer.principal.partition("@")[0].partition("/")[2]
    if instance != instance.lower():
        why = "RFC 4430 §4.2.1 has the host's name in lower case, and principals are compared letter by letter"
        report(warning("principal-case", f"{peer.principal} has capital letters", why, peer=peer.name))
    dns = await names_in_dns(peer)
    try:
        ticket = await patient.tickets.get(peer.principal, deadline=deadline)
    except TicketUnavailable as unavailable:
        report(await _refused(patient, patient.tickets, peer, unavailable.refusal, dns))
        return
    report(_good(peer, ticket))
    if dns and instance not in dns:
        line = f"DNS calls {peer.address} {' and '.join(dns)}, the configuration {instance}"
        why = "kinkvpn asks for what is configured; what asks DNS first (kinit -S, ssh) gets another ticket"
        setting = krb5_default("dns_canonicalize_hostname = false")
        report(note("principal-dns", line, why, peer=peer.name).mended_by(setting))


def _good(peer: PeerConfiguration, ticket: ServiceTicket) -> Finding:
    sealed = read_ap_req(ticket.make_request().ap_req).ticket.sealed
    if sealed.enctype not in PERMITTED_ENCTYPES:
        line = f"the KDC makes tickets for {peer.principal} with {names({sealed.enctype})}"
        why = "that is the only key that it has, and the peer refuses such tickets (RFC 8429)"
        return error("enctype-peer", line, why, rekeyed(peer.principal), peer.name)
    return ok("peer-ticket", f"a ticket for {peer.principal}, {names({sealed.enctype})}", peer.name)


def rekeyed(principal: str) -> str:
    """What gives a principal keys of the realm's present enctypes; its keytab has to follow."""
    return asked_of_kadmin(f"cpw -randkey {unqualified(principal)}")


async def _refused(
    patient: Patient, source: TicketSource, peer: PeerConfiguration, refusal: TicketRefusal, dns: list[str]
) -> Finding:
    """Why there is none, and who has to do what about it."""
    assert patient.configuration is not None
    reason, realm, ours = refusal.reason, realm_of(peer.principal), realm_of(patient.configuration.host.principal)
    match refusal.code:
        case code if code in KDC_HAS_NO_KEY:
            return _without_key(patient, peer, reason)
        case code if code == KDC_ERR_ETYPE_NOSUPP:
            why = "its keys are of enctypes that krb5.conf or kinkvpn does not permit"
            return error("enctype-peer", reason, why, rekeyed(peer.principal), peer.name)
        case None if "no answer from" in reason:
            why = "its KDC has to be reached from here too, not only ours"
            return error("kdc-silent", reason, why, reach_kdc(realm), peer.name)
        case None if "Cannot find KDC" in reason:
            why = "krb5.conf does not say where a KDC of that realm is, and DNS has no _kerberos._udp record"
            return error("realm-unknown", reason, why, edit(krb5_conf()), peer.name)
    if realm != ours:
        gap = await missing_hop(source, ours, realm)
        if gap is not None:
            return _no_way(peer, *gap)
    if refusal.code == KDC_ERR_S_PRINCIPAL_UNKNOWN:
        return await _unknown(patient, source, peer, reason, dns)
    return error("no-peer-ticket", reason, "these are libkrb5's words", f"kvno {peer.principal}", peer.name)


def _without_key(patient: Patient, peer: PeerConfiguration, reason: str) -> Finding:
    if peer.user_to_user is UserToUser.NEVER:
        why = 'the configuration has user_to_user = "never" for it'
        setting = patient.setting_of(peer, 'user_to_user = "auto"')
        return error("user-to-user-forbidden", reason, why, peer=peer.name).mended_by(setting)
    why = "the peer is asked for its ticket-granting ticket then (RFC 4430 §3.1): one round trip more"
    return note("user-to-user", f"{peer.principal} has no key at the KDC: user-to-user", why, peer=peer.name)


async def _unknown(
    patient: Patient, source: TicketSource, peer: PeerConfiguration, reason: str, dns: list[str]
) -> Finding:
    """Nobody of that name; perhaps there is one of the name that DNS has."""
    service, _, realm = peer.principal.partition("/")[0], "", realm_of(peer.principal)
    instance = peer.principal.partition("@")[0].partition("/")[2]
    for name in dict.fromkeys([instance.lower(), *dns]):
        candidate = f"{service}/{name}@{realm}"
        if name != instance and await known(source, candidate):
            why = f"there is {candidate}, as DNS or small letters have it: write that, or make the other one"
            setting = patient.setting_of(peer, f"principal = {json.dumps(candidate)}")
            again = patient.kinkvpn("up", name) if patient.gateway else ""
            return error("principal-as-dns", reason, why, again, peer.name).mended_by(setting)
    add = asked_of_kadmin(f"addprinc -randkey {unqualified(peer.principal)}")
    return error("peer-unknown", reason, "it was never made, or is written another way", add, peer.name)


async def known(source: TicketSource, principal: str) -> bool:
    """Whether the KDC makes tickets for it."""
    try:
        await source.get(principal, deadline=RESOLVE_SECONDS)
    except TicketUnavailable as unavailable:
        return unavailable.refusal.code == KDC_ERR_MUST_USE_USER2USER
    return True


# Names.


async def names_in_dns(peer: PeerConfiguration) -> list[str]:
    """What libkrb5 would make of the peer's address where it asks DNS: the canonical name, the name of the address."""
    found: list[str] = []
    if peer.address:
        with trio.move_on_after(RESOLVE_SECONDS):
            found = await trio.to_thread.run_sync(_resolved, peer.address, abandon_on_cancel=True)
    return found


def _resolved(host: str) -> list[str]:
    try:
        answers = socket.getaddrinfo(host, None, type=socket.SOCK_DGRAM, flags=socket.AI_CANONNAME)
        reverse, _ = socket.getnameinfo(answers[0][4], socket.NI_NAMEREQD)
    except OSError:
        reverse = ""
        answers = []
    canonical = answers[0][3] if answers else ""
    numeric = {answer[4][0] for answer in answers}
    return [name.lower() for name in dict.fromkeys((canonical, reverse)) if name and name not in numeric]


# Realms.


def path(ours: str, theirs: str) -> list[str]:
    """The realms from ours to theirs, as [capaths] has it; without one, straight."""
    between = libkrb5.Context().profile_values("capaths", ours, theirs)
    return [ours, *(realm for realm in between if realm != "."), theirs]


async def missing_hop(source: TicketSource, ours: str, theirs: str) -> tuple[str, str, str] | None:
    """The first two realms on the way that do not trust each other, and what was said; None if all of them do."""
    for here, there in pairwise(path(ours, theirs)):
        try:
            await source.get(f"krbtgt/{there}@{here}", deadline=RESOLVE_SECONDS)
        except TicketUnavailable as unavailable:
            return here, there, unavailable.refusal.reason
    return None


def _no_way(peer: PeerConfiguration, here: str, there: str, reason: str) -> Finding:
    line = f"no way from realm {here} to {there}: krbtgt/{there}@{here} is missing ({reason})"
    why = "both realms need that principal with the same password; or [capaths] in krb5.conf names a way round"
    add = f"kadmin -r {here} -q {shlex.quote(f'addprinc krbtgt/{there}@{here}')}"
    return error("realm-path", line, why, add, peer.name)
