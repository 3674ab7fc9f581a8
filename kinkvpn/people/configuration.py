"""A daemon's configuration without a file: who asks is in the credential cache, the rest a gateway says."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from esp.sa import Endpoint
from kinkvpn import values
from kinkvpn.config import ESP_PORT, KINK_PORT, HostSettings, parse
from kinkvpn.document import Unexpected
from kinkvpn.kerberos.credentials import Credentials
from kinkvpn.kerberos.libkrb5 import ConfigUnusable
from kinkvpn.kerberos.library import LibraryUnusable
from kinkvpn.kerberos.session import Acceptor
from kinkvpn.kerberos.tickets import TicketSource
from kinkvpn.people.acceptance import Wishes, accept
from kinkvpn.people.errand import Errand, GatewaySilent, NothingLent
from kinkvpn.people.identity import Identity, find_identity, gateway_principal
from kinkvpn.proto.lease import Wanted
from kinkvpn.proto.settings import PeerSettings
from kinkvpn.proto.whereabouts import KinkOver
from kinkvpn.service.devices import listening_addresses
from kinkvpn.service.obstacles import StartRefused
from kinkvpn.service.preflight import reach_kdc, resolve_address
from kinkvpn.service.transport import KinkTransport

if TYPE_CHECKING:
    from kinkvpn.config import Configuration
    from kinkvpn.proto.lease import Lease

log = logging.getLogger(__name__)

# Ours. Five transmissions: a gateway that has not answered by then is not where it is looked for.
PATIENCE = 10.0
EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 # the answer comes to whatever address the request left from
DEFAULT_WISHES = Wishes()


async def configuration_for(
    gateway: str,
    *,
    machine: bytes,
    wishes: Wishes = DEFAULT_WISHES,
    ccache: str | None = None,
    principal: str | None = None,
) -> Configuration:
    """What a daemon needs to be told to be in ``gateway``'s network.

    It asks the KDC and the gateway, and touches nothing of the host: ``tun.addresses``, the policies' remote subnets
    and ``dns`` of what it returns are what the gateway lends; whatever else is a default, and may be replaced.

    Args:
        gateway: its host name, which its principal has; or that and a port for ESP and KINK, ``gw.example.com:4501``.
        machine: which of the person's it is for, in 16 octets: ``this_machine``, or one of several that are on it.
        wishes: what may go there.
        ccache: a credential cache as libkrb5 names it; None for the default one.
        principal: the gateway's, where it is not the one that krb5.conf and the KDC find for ``kink/GATEWAY``.

    Raises:
        StartRefused: no tickets, no such gateway, or it lends nothing that is wanted: a line that says what to do.
    """
    try:
        host, port = place_of(gateway)
    except Unexpected as expected:
        raise StartRefused(f"{gateway}: expected {expected}") from None
    try:
        identity = find_identity(ccache)
        log.info("tickets_used", extra={"fields": {"principal": identity.principal, "ccache": identity.ccache}})
    except (ConfigUnusable, LibraryUnusable) as error:
        raise StartRefused(str(error)) from error
    address = await resolve_address(host, {4, 6})
    tickets = TicketSource(Credentials(identity.principal, ccache=identity.ccache))
    own = HostSettings(identity.principal, ccache=identity.ccache)
    await reach_kdc(tickets, own)
    server = principal or await gateway_principal(host, tickets, own.kdc_timeout)
    peer = _peer(host.removesuffix("."), server, address, port)
    named = {"gateway": peer.name, "principal": server, "address": address}
    log.info("gateway_asked", extra={"fields": named})
    lease = await _lent(identity, machine, peer, tickets, own.kdc_timeout)
    accepted, routes, servers = accept(lease, wishes)
    for route in routes:
        log.warning("route_not_taken", extra={"fields": {"gateway": host, "route": str(route)}})
    for each in servers:
        reason = "no route that is taken leads to it"
        log.warning("dns_not_taken", extra={"fields": {"gateway": host, "server": str(each), "reason": reason}})
    if not accepted.routes:
        raise StartRefused(_nothing_wanted(host, lease))
    lent = {"addresses": accepted.addresses, "routes": accepted.routes, "servers": accepted.servers}
    log.info("lent", extra={"fields": {"gateway": peer.name, **lent, "domains": accepted.domains}})
    made = parse(written(peer, identity, accepted), Path.cwd() / peer.name)
    return replace(made, host=replace(made.host, machine=machine))


def place_of(gateway: str) -> tuple[str, int]:
    """Host name and port for ESP and KINK of a gateway, as it is typed: ``gw.example.com`` or ``gw.example.com:4501``.

    Raises:
        Unexpected: it is neither.
    """
    host, _, port = gateway.rpartition(":") if gateway.count(":") == 1 else (gateway, "", "")
    try:
        return values.host_address(host), values.port(int(port)) if port else ESP_PORT
    except (Unexpected, ValueError):
        raise Unexpected("a gateway's host name, such as gateway.example.com") from None


def _peer(name: str, principal: str, address: str, port: int) -> PeerSettings:
    return PeerSettings(
        name, principal, Endpoint(address, KINK_PORT), Endpoint(address, port), (), kink_over=KinkOver.ESP_PORT
    )


async def _lent(
    identity: Identity, machine: bytes, gateway: PeerSettings, tickets: TicketSource, ticket_deadline: float
) -> Lease:
    transport = KinkTransport(listening_addresses(EVERYWHERE), 0)
    try:
        errand = Errand(
            gateway,
            identity.principal,
            machine,
            kerberos=Acceptor([identity.principal], None),
            tickets=tickets,
            transport=transport,
            ticket_deadline=ticket_deadline,
        )
        return await errand.ask(Wanted(), PATIENCE)
    except GatewaySilent as silent:
        where = f"{gateway.name} ({gateway.esp.address})"
        advice = f"kinkvpn doctor {gateway.name} looks for the cause"
        raise StartRefused(f"{where} does not answer on UDP port {gateway.esp.port}: {silent}; {advice}") from silent
    except NothingLent as nothing:
        raise StartRefused(f"{gateway.name} lends nothing to {identity.principal}: {nothing}") from nothing
    finally:
        transport.close()


def _nothing_wanted(gateway: str, lease: Lease) -> str:
    offered = ", ".join(map(str, lease.routes)) or "no routes"
    return f"{gateway} offers {offered}, which is not private: --accept-route SUBNET or --all-traffic takes it"


def written(gateway: PeerSettings, identity: Identity, lease: Lease) -> str:
    """The configuration in TOML, as a person could have written it who knew the lease."""
    quoted = json.dumps  # a TOML basic string is a JSON one, but for what no name here can have
    lines = [
        "[host]",
        f"principal = {quoted(identity.principal)}",
        f"ccache = {quoted(identity.ccache)}",
        "[kink]",
        'over = "4500"',  # which a NAT lets answers through to, and no other program has taken
        "[tun]",
        f"addresses = {quoted([f'{own}/{own.max_prefixlen}' for own in lease.addresses])}",
        "[dns]",
        *([f"servers = {quoted(list(map(str, lease.servers)))}"] if lease.servers else []),
        *([f"domains = {quoted(list(lease.domains))}"] if lease.servers and lease.domains else []),
        *_past_it(lease),
        "[[peer]]",
        f"name = {quoted(gateway.name)}",
        f"principal = {quoted(gateway.principal)}",
        f"address = {quoted(gateway.esp.address)}",
        f"esp_port = {gateway.esp.port}",
        'start = "boot"',
    ]
    for own in lease.addresses:
        routes = [str(route) for route in lease.routes if route.version == own.version]
        if routes:
            lines += ["[[peer.policy]]", f"local = {quoted(str(own))}", f"remote = {quoted(routes)}"]
    return "\n".join([*lines, ""])


def _past_it(lease: Lease) -> list[str]:
    """Of everything, what cannot go through a tunnel that is not there yet: tickets for it, and names where the gateway
    has no servers for them.
    """
    if all(route.prefixlen for route in lease.routes):
        return []
    known = ["kdc"] if lease.servers else ["kdc", "dns"]
    return ["[clear]", f"bypass = {json.dumps(known)}"]
