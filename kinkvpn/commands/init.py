"""``kinkvpn init``: a configuration to begin with."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from kinkvpn import values
from kinkvpn.commands.outcome import CANNOT, DONE, complain
from kinkvpn.commands.questions import Unanswered, ask, several
from kinkvpn.config import DEFAULT_PATH, parse
from kinkvpn.config.host import OWN_KEYTAB, SYSTEM_KEYTAB, realm_of
from kinkvpn.config.peer import follows_from
from kinkvpn.config.template import Answers, write
from kinkvpn.document import Unexpected
from kinkvpn.errors import KinkvpnError
from kinkvpn.kerberos.keytab_names import KeytabNamesUnknown, principals_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from kinkvpn.commands.subcommands import Subcommands

T = TypeVar("T")

ABOUT = """Writes a configuration with comments, for two gateways: from options, or by asking for what they do not say.
What is found on this host, such as the principal in its keytab, is proposed. What was written is checked, and the next
command said. It holds no secret."""


def add(commands: Subcommands) -> None:
    """Its options."""
    command = commands.add_parser("init", help="write a configuration, by asking or from options", description=ABOUT)
    command.add_argument("--peer", metavar="HOST", help="the other gateway: its host name, or an address")
    command.add_argument("--local", action="append", metavar="SUBNET", help="behind this host; repeatable")
    command.add_argument("--remote", action="append", metavar="SUBNET", help="behind the peer; repeatable")
    inside = "of this host inside the tunnel, where no interface of it is in a --local; repeatable"
    command.add_argument("--address", action="append", default=[], metavar="ADDRESS/LENGTH", help=inside)
    command.add_argument("--principal", metavar="NAME", help="this host's; default the kink/ one in its keytab")
    command.add_argument("--keytab", type=Path, metavar="FILE", help="this host's; default the one beside the file")
    follows = "default kink/ and the peer's host name, in this host's realm"
    command.add_argument("--peer-principal", metavar="NAME", help=follows)
    command.add_argument("--boot", action="store_true", help="make SAs at the start, not with the first packet")
    where = f"where to; - is standard output; default {DEFAULT_PATH}"
    command.add_argument("-o", "--output", type=Path, default=DEFAULT_PATH, metavar="FILE", help=where)
    command.add_argument("--force", action="store_true", help="overwrite a file that is there")
    command.set_defaults(run=run)


class Missing(KinkvpnError):
    """An option that nobody can be asked for, or that is wrong."""


def run(asked: argparse.Namespace) -> int:
    """``kinkvpn init``."""
    path: Path = asked.output
    printed = str(path) == "-"
    try:
        if path.exists() and not asked.force and not printed:
            raise Missing(f"{path} is there already: --force overwrites it")
        answers = gather(asked, DEFAULT_PATH if printed else path)
        text = write(answers)
        parse(text, DEFAULT_PATH if printed else path.absolute())
        if printed:
            sys.stdout.write(text)
            return DONE
        save(path, text)
    except (Missing, Unanswered) as error:
        return complain(error, CANNOT)
    say_what_is_next(answers, path)
    return DONE


def gather(asked: argparse.Namespace, path: Path) -> Answers:
    """What the options say, and for the rest whoever sits there. Raises Missing, Unanswered."""
    keytab, own = _keytab(asked, path)
    principal = _principal(asked, own)
    peer = _one(asked, "peer", "the other gateway's host name or address", values.host_address)
    follows = follows_from(peer, realm_of(principal))
    given = asked.peer_principal
    if given or not follows:
        given = _one(asked, "peer_principal", "its principal", values.principal, f"kink/HOST@{realm_of(principal)}")
    subnets = several(values.network)
    return Answers(
        principal=principal,
        keytab=keytab,
        found=asked.keytab is None and principal == own,
        peer=peer,
        peer_principal=given or "",
        local=_one(asked, "local", "subnets behind this host", subnets, _subnets_inside),
        remote=_one(asked, "remote", "subnets behind the other", subnets),
        addresses=tuple(_read("address", values.interface, each) for each in asked.address),
        boot=asked.boot,
    )


def _one(
    asked: argparse.Namespace,
    name: str,
    question: str,
    read: Callable[[object], T],
    default: str | Callable[[], str] = "",
) -> T:
    """What option ``name`` says; without it, what is answered."""
    given = getattr(asked, name)
    if given:
        return _read(name, read, " ".join(given) if isinstance(given, list) else given)
    if not sys.stdin.isatty():
        raise Missing(f"--{name.replace('_', '-')} is missing: expected {question}, or a terminal to ask at")
    return ask(question, read, default if isinstance(default, str) else default())


def _principal(asked: argparse.Namespace, own: str) -> str:
    """What is in the keytab is not asked for, unless there is somebody to ask."""
    if own and not asked.principal and not sys.stdin.isatty():
        return own
    return _one(asked, "principal", "this host's principal", values.principal, lambda: own or _usual_principal())


def _read(name: str, read: Callable[[object], T], value: str) -> T:
    try:
        return read(value)
    except Unexpected as expected:
        raise Missing(f"--{name.replace('_', '-')} {value}: expected {expected}") from None


def _keytab(asked: argparse.Namespace, path: Path) -> tuple[Path, str]:
    """Where this host's keytab is, or is to be; and its one kink/ principal, if there is one."""
    beside = path.absolute().parent / OWN_KEYTAB
    places = [asked.keytab] if asked.keytab is not None else [beside, SYSTEM_KEYTAB]
    there = next((place for place in places if place.exists()), None)
    if there is None:
        return (asked.keytab or beside).absolute(), ""
    try:
        found = [name for name in principals_of(there) if name.startswith("kink/")]
    except KeytabNamesUnknown:
        found = []
    return there.absolute(), found[0] if len(found) == 1 else ""


def _usual_principal() -> str:
    """Of this host's name, where the realm is known."""
    from kinkvpn.kerberos.libkrb5 import Context, Krb5Error

    name = socket.getfqdn().lower()
    try:
        realm = Context().realm_of(name)
    except (KinkvpnError, Krb5Error):
        realm = ""
    return f"kink/{name}@{realm}" if realm and "." in name else ""


def _subnets_inside() -> str:
    from kinkvpn.service.surroundings import subnets_inside

    return ", ".join(map(str, subnets_inside()))


def save(path: Path, text: str) -> None:
    """Raises Missing, with why not."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.new")
        # A name that can be guessed, in a folder where everybody may write perhaps: not through a link that is there.
        beside.unlink(missing_ok=True)
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        beside.replace(path)
    except OSError as error:
        raise Missing(f"{path} cannot be written: {error.strerror}") from None


def say_what_is_next(answers: Answers, path: Path) -> None:
    """The commands, in their order."""
    named = "" if path == DEFAULT_PATH else f" -c {path}"
    subnets = " ".join(
        [*(f"--local {each}" for each in answers.remote), *(f"--remote {each}" for each in answers.local)]
    )
    host = answers.principal.rpartition("@")[0].partition("/")[2] or "HOST"
    print(f"{path} is written, and good.")
    if not answers.keytab.exists():
        service = answers.principal.rpartition("@")[0]
        print(f'before:    kadmin -q "addprinc -randkey {service}"')
        print(f'           kadmin -q "ktadd -k {answers.keytab} {service}"')
    print(f"here:      kinkvpn check{named} && kinkvpn up{named}")
    print(f"at {answers.peer}:  kinkvpn init --peer {host} {subnets}")
