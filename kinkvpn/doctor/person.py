"""Somebody with tickets and the name of a gateway, and no configuration: what there is to look at for them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from kinkvpn.config import parse
from kinkvpn.config.host import HostSettings
from kinkvpn.kerberos.credentials import Credentials
from kinkvpn.kerberos.tickets import TicketSource
from kinkvpn.people.configuration import place_of
from kinkvpn.people.identity import find_identity, gateway_principal, likely_principal
from kinkvpn.service.obstacles import StartRefused

if TYPE_CHECKING:
    from kinkvpn.config import Configuration
    from kinkvpn.people.identity import Identity

# What it lends is not known before it is asked, and nothing of this host is touched for it: no policy is looked at.
PLACEHOLDER = "0.0.0.0/0"


def configuration_of(gateway: str) -> Configuration:
    """As ``kinkvpn up GATEWAY`` would begin with.

    Raises:
        Unexpected: that is no host name, nor one and a port.
        StartRefused: there are no tickets.
        LibraryUnusable: no MIT libkrb5.
    """
    host, port = place_of(gateway)
    identity = find_identity()
    quoted = json.dumps
    text = "\n".join(
        [
            "[host]",
            f"principal = {quoted(identity.principal)}",
            f"ccache = {quoted(identity.ccache)}",
            "[kink]",
            'over = "4500"',
            "[[peer]]",
            f"name = {quoted(host)}",
            f"principal = {quoted(_principal(host, identity))}",
            f"address = {quoted(host)}",
            f"esp_port = {port}",
            "[[peer.policy]]",
            f"local = {quoted(PLACEHOLDER)}",
            f"remote = {quoted(PLACEHOLDER)}",
        ]
    )
    configuration = parse(text, Path.cwd() / host)
    return replace(configuration, peers=tuple(replace(peer, policies=()) for peer in configuration.peers))


def _principal(gateway: str, identity: Identity) -> str:
    """That the KDC finds for ``gateway``; where it does not, what to look at for the reason."""

    async def ask() -> str:
        tickets = TicketSource(Credentials(identity.principal, ccache=identity.ccache))
        return await gateway_principal(gateway, tickets, HostSettings(identity.principal).kdc_timeout)

    try:
        return trio.run(ask)
    except StartRefused:
        return likely_principal(gateway, identity)
