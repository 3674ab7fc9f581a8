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

    from esp.policy import Network
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


QUESTIONS = {
    "principal": "this host's principal",
    "peer": "the other gateway's host name or address",
    "peer_principal": "its principal",
    "local": "subnets behind this host",
    "remote": "subnets behind the other",
}


class Missing(KinkvpnError):
    """An option that nobody can be asked for, or that is wrong."""


def run(asked: argparse.Namespace) -> int:
    """``kinkvpn init``."""
    path: Path = asked.output
    printed = str(path) == "-"
    try:
        if path.exists() and not asked.force and not printed:
            raise Missing(f"{path} is there already: --force overwrites it")
        if not printed:
            check_place(path)
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
    _check_complete(asked, own)
    principal = _principal(asked, own)
    realm = realm_of(principal)
    peer = _one(asked, "peer", other_gateway(principal))
    given = asked.peer_principal
    if given or not follows_from(peer, realm):
        given = _one(asked, "peer_principal", another(values.principal, principal))
    local = _one(asked, "local", several(values.network), _subnets_inside)
    return Answers(
        principal=principal,
        keytab=keytab,
        found=asked.keytab is None and principal == own,
        peer=peer,
        peer_principal=given or "",
        local=local,
        remote=_one(asked, "remote", behind_the_other(local)),
        addresses=tuple(_read("address", values.interface, each) for each in asked.address),
        boot=asked.boot,
    )


def _check_complete(asked: argparse.Namespace, own: str) -> None:
    """Raises Missing, with all that nobody can be asked for."""
    needed = [name for name in QUESTIONS if name != "peer_principal" and not (name == "principal" and own)]
    lines = [_missing(name) for name in needed if not getattr(asked, name)]
    if lines and not sys.stdin.isatty():
        raise Missing("\n".join(lines))


def _missing(name: str) -> str:
    return f"--{name.replace('_', '-')} is missing: expected {QUESTIONS[name]}, or a terminal to ask at"


def _one(
    asked: argparse.Namespace, name: str, read: Callable[[object], T], default: Callable[[], str] = lambda: ""
) -> T:
    """What option ``name`` says; without it, what is answered."""
    given = getattr(asked, name)
    if given:
        return _read(name, read, " ".join(given) if isinstance(given, list) else given)
    if not sys.stdin.isatty():
        raise Missing(_missing(name))
    return ask(QUESTIONS[name], read, default())


def _principal(asked: argparse.Namespace, own: str) -> str:
    """What is in the keytab is not asked for, unless there is somebody to ask."""
    if own and not asked.principal and not sys.stdin.isatty():
        return own
    return _one(asked, "principal", values.principal, lambda: own or _usual_principal())


def other_gateway(principal: str) -> Callable[[object], str]:
    """A reader of a host that has not our own principal."""

    def read(value: object) -> str:
        host = values.host_address(value)
        if follows_from(host, realm_of(principal)) == principal:
            raise Unexpected("the other gateway, and that is this host's own name")
        return host

    return read


def another(read: Callable[[object], str], ours: str) -> Callable[[object], str]:
    """A reader of what is not ``ours``."""

    def read_other(value: object) -> str:
        found = read(value)
        if found == ours:
            raise Unexpected("another than this host's")
        return found

    return read_other


def behind_the_other(local: tuple[Network, ...]) -> Callable[[object], tuple[Network, ...]]:
    """A reader of subnets that what is behind us can have policies with."""

    def read(value: object) -> tuple[Network, ...]:
        found = several(values.network)(value)
        if not {*found}.isdisjoint(local):
            raise Unexpected("other subnets than those behind this host")
        families = {network.version for network in local}
        if {network.version for network in found} != families:
            which = " and of ".join(f"IPv{version}" for version in sorted(families))
            raise Unexpected(f"subnets of {which}, as there are behind this host")
        return found

    return read


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


def check_place(path: Path) -> None:
    """Raises Missing before anybody has answered anything, as far as can be told."""
    there = next(parent for parent in path.absolute().parents if parent.exists())
    if path.is_dir() or not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        reason = "it is a directory" if path.is_dir() else f"uid {os.geteuid()} may not write in {there}"
        raise Missing(f"{path} cannot be written: {reason}; -o names another place")


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
