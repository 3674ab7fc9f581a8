"""``kinkvpn check``: would this configuration work on this host?"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING

from kinkvpn.commands.files import add_config_option
from kinkvpn.commands.outcome import CANNOT, DONE, complain
from kinkvpn.config import engine_settings, load
from kinkvpn.terminal import show_each

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from kinkvpn.commands.subcommands import Subcommands
    from kinkvpn.config import Configuration
    from kinkvpn.proto.settings import PeerSettings

ABOUT = """Reads the configuration, the keytab and krb5.conf, and resolves every peer; says all that is wrong,
or what `kinkvpn up` would do. Starts nothing and asks no KDC. Exit code 2 if something is wrong."""


def add(commands: Subcommands) -> None:
    """Its options."""
    validates = "validate a configuration and this host without starting; needs no root"
    command = commands.add_parser("check", help=validates, description=ABOUT)
    add_config_option(command)
    command.add_argument("--json", action="store_true", help="one JSON object")
    command.set_defaults(run=run)


def run(asked: argparse.Namespace) -> int:
    """``kinkvpn check``."""
    configuration = load(asked.config)
    engine = engine_settings(configuration.esp.engine, os.environ)

    import trio

    from kinkvpn import prospect
    from kinkvpn.service import bypass, kill_switch, preflight
    from kinkvpn.service.daemon import settle_tun
    from kinkvpn.service.engines import choose_engine, obstacle
    from kinkvpn.service.obstacles import StartRefused
    from kinkvpn.service.paths import PathMtus

    configuration = bypass.here(configuration)
    reasons: list[str] = []
    chosen = ""
    try:
        chosen = choose_engine(engine, obstacle()).headline
    except StartRefused as refused:
        reasons += refused.reasons
    reasons += preflight.check_kerberos(configuration.host)
    addresses: dict[str, str] = {}
    peers: tuple[PeerSettings, ...] = ()
    try:
        peers = trio.run(preflight.resolve_peers, configuration)
        addresses = {peer.name: peer.kink.address for peer in peers}
    except StartRefused as refused:
        reasons += refused.reasons
    reasons += key_log_refusals(configuration.log.keys)
    reasons += kill_switch.obstacles(configuration)
    if reasons:
        return complain("\n".join(reasons), CANNOT)
    tun = settle_tun(configuration, peers, PathMtus(addresses.values()))
    if asked.json:
        print(json.dumps(prospect.prospect(configuration, tun, addresses, chosen)))
        return DONE
    print(f"{asked.config} is good: {counted(configuration)}\n")
    show_each(prospect.tables(replace(configuration, tun=tun), addresses, chosen))
    return DONE


def key_log_refusals(path: Path | None) -> list[str]:
    """Why keys cannot be written where they are to be, if at all."""
    from kinkvpn.keylog import KeyLogRefused, check_key_log

    try:
        if path is not None:
            check_key_log(path)
    except KeyLogRefused as refused:
        return [str(refused)]
    return []


def counted(configuration: Configuration) -> str:
    """``1 peer, 2 policies``."""
    peers, policies = len(configuration.peers), len(configuration.policies)
    return f"{peers} peer{'s' if peers != 1 else ''}, {policies} polic{'ies' if policies != 1 else 'y'}"
