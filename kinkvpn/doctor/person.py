"""Somebody with tickets and the name of a gateway, and no configuration: what there is to look at for them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from kinkvpn import values
from kinkvpn.config import parse
from kinkvpn.people.identity import find_identity, gateway_principal

if TYPE_CHECKING:
    from kinkvpn.config import Configuration

# What it lends is not known before it is asked, and nothing of this host is touched for it: no policy is looked at.
PLACEHOLDER = "0.0.0.0/0"


def configuration_of(gateway: str) -> Configuration:
    """As ``kinkvpn up GATEWAY`` would begin with.

    Raises:
        Unexpected: that is no host name.
        StartRefused: there are no tickets.
        LibraryUnusable: no MIT libkrb5.
    """
    host = values.host_address(gateway)
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
            f"principal = {quoted(gateway_principal(host, identity))}",
            f"address = {quoted(host)}",
            "[[peer.policy]]",
            f"local = {quoted(PLACEHOLDER)}",
            f"remote = {quoted(PLACEHOLDER)}",
        ]
    )
    configuration = parse(text, Path.cwd() / host)
    return replace(configuration, peers=tuple(replace(peer, policies=()) for peer in configuration.peers))
