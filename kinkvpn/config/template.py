"""A configuration to begin with, as somebody writes it by hand: what was answered, and in comments what could be."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from esp.policy import Network
    from kinkvpn.values import Interface


@dataclass(frozen=True, slots=True)
class Answers:
    """What a gateway has to know.

    Args:
        principal: this host's; found says that the file need not.
        keytab: of this host.
        found: the keytab is where it is looked for, and has this ``kink/`` principal and no other.
        peer: host name or address of the other end.
        peer_principal: empty where it follows from ``peer``.
        local, remote: subnets behind this host and behind the other.
        addresses: of this host inside the tunnel, if it has no interface in ``local``.
        boot: make SAs at the start, not with the first packet.
    """

    principal: str
    keytab: Path
    found: bool
    peer: str
    peer_principal: str
    local: tuple[Network, ...]
    remote: tuple[Network, ...]
    addresses: tuple[Interface, ...] = ()
    boot: bool = False


def write(answers: Answers) -> str:
    """The file."""
    sections = [_host(answers), _tun(answers), _peer(answers)]
    return "\n".join([_HEAD, *("\n".join([*section, ""]) for section in sections), _TAIL])


_HEAD = """\
# As `kinkvpn init` has written it. `kinkvpn check` says what it comes to, and
# `kinkvpn reload` has a running daemon take over what is changed in peers and
# policies. Every key there is: docs/configuration.md.
"""

_TAIL = """\
# More peers go here, each with a [[peer]] of its own, or into files of their
# own in the folder beside this one.
"""


def _host(answers: Answers) -> list[str]:
    lines = ["[host]", f"principal = {json.dumps(answers.principal)}", f"keytab = {json.dumps(str(answers.keytab))}"]
    if answers.found:
        return ["# Who this is, to Kerberos. It follows from the keytab, and need not be said.", *_out(lines)]
    return ["# Who this is, to Kerberos, and where its key is.", *lines]


def _tun(answers: Answers) -> list[str]:
    about = "# Its own addresses inside the tunnel, where no interface has one in `local`."
    if answers.addresses:
        return [about, "[tun]", f"addresses = {_texts(answers.addresses)}"]
    return [about, *_out(["[tun]", f"addresses = {_texts([_example(answers.local[0])])}"])]


def _example(network: Network) -> str:
    return f"{network[-2] if network.num_addresses > 2 else network[0]}/{network.max_prefixlen}"


def _peer(answers: Answers) -> list[str]:
    start = ['start = "boot"'] if answers.boot else _out(['start = "boot"  # without it, with the first packet'])
    written = [f"principal = {json.dumps(answers.peer_principal)}"] if answers.peer_principal else []
    return [
        "# The other end: where it is, and which subnets are behind the two. It has to",
        "# be the principal kink/ADDRESS in the realm of this host, unless one is named.",
        "[[peer]]",
        f"address = {json.dumps(answers.peer)}",
        *written,
        *start,
        f"local = {_texts(answers.local)}",
        f"remote = {_texts(answers.remote)}",
        *_out(['suites = ["aes256-gcm16"]', "lifetime = 28800  # seconds", 'pfs = "x25519"']),
    ]


def _texts(values: Sequence[object]) -> str:
    texts = [str(value) for value in values]
    return json.dumps(texts[0] if len(texts) == 1 else texts)


def _out(lines: Sequence[str]) -> list[str]:
    return [f"# {line}" for line in lines]
