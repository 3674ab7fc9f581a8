"""A patient for ``kinkvpn doctor``: a configuration as text, looked at by one look at a time, and what is found.

What is found here, or by the command, is what a test that ``provokes`` a finding has provoked.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio
from support.namespaces import within
from support.unprivileged import as_user

from kinkvpn import cli, config
from kinkvpn.doctor import clear, view
from kinkvpn.doctor.examination import Examination, Look, Patient, in_thread
from kinkvpn.kerberos.libkrb5 import Context
from kinkvpn.kerberos.session import PERMITTED_ENCTYPES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import pytest

    from kinkvpn.doctor.finding import Finding

# What findings say to type, and the Debian package that it is in.
PROGRAMS = {
    "apt-get": "apt",
    "chmod": "coreutils",
    "getent": "libc-bin",
    "host": "bind9-host",
    "ip": "iproute2",
    "kadmin": "krb5-user",
    "kill": "procps",
    "kinit": "krb5-user",
    "kvno": "krb5-user",
    "ls": "coreutils",
    "modprobe": "kmod",
    "mv": "coreutils",
    "nc": "netcat-openbsd",
    "nft": "nftables",
    "ss": "iproute2",
    "sysctl": "procps",
    "timedatectl": "systemd",
}
# Of the other configuration: krb5.conf(5).
KERBEROS = "[libdefaults]"

# Names of all findings since the test began.
TOLD: set[str] = set()

HOST = '[host]\nprincipal = "kink/west.example.com@EXAMPLE.COM"\nkeytab = "keytab"\n'
PEER = """
[[peer]]
name = "east"
principal = "{peer}"
{address}
{more}
[[peer.policy]]
local = "{local}"
remote = "{remote}"
{how}
"""


def text_of(
    host: str = HOST,
    *,
    sections: str = "",
    peer: str = "kink/east.example.com@EXAMPLE.COM",
    address: str = "192.0.2.2",
    local: str = "10.1.0.0/24",
    remote: str = "10.2.0.0/24",
    how: str = "",
    more: str = "",
) -> str:
    """One peer with one policy; without an ``address``, it has to call."""
    where = f'address = "{address}"' if address else ""
    peer = PEER.format(peer=peer, address=where, local=local, remote=remote, how=how, more=more)
    return f"{host}\n{sections}\n{peer}"


def configuration(host: str = HOST, directory: Path = Path("/nowhere"), **peer: str) -> config.Configuration:
    """The same, read; no file of it is there."""
    return config.parse(text_of(host, **peer), directory / "kinkvpn.toml")


def patient(configured: config.Configuration | Path | None) -> Patient:
    """With all its peers; of a configuration that is a file, as it is read."""
    if isinstance(configured, Path):
        there = config.load(configured)
        return Patient(there, there.peers, configured)
    return Patient(configured, configured.peers if configured else ())


def written(directory: Path, host: str, **peer: str) -> Path:
    """A configuration as a file; its path."""
    file = directory / "kinkvpn.toml"
    file.write_text(text_of(host, **peer))
    return file


def found(findings: Iterator[Finding] | list[Finding]) -> dict[str, Finding]:
    """By name. What they say to do can be done."""
    named = {finding.name: finding for finding in findings}
    for finding in named.values():
        check_mend(view.told(finding))
    TOLD.update(named)
    return named


def check_mend(finding: Mapping[str, Any]) -> None:
    """Fails unless what the finding says to type can be typed, and what it says to write can be read."""
    for part in finding["command"].split(" && ") if finding["command"] else ():
        check_command(shlex.split(part))
    if finding["there"]:
        assert finding["command"]
        assert finding["peer"]
    if finding["setting"]:
        check_setting(**finding["setting"])


def check_command(words: list[str]) -> None:
    """One that a shell would start."""
    assert not re.search(r"[<>#|;&…]|\.\.\.", " ".join(words)), "no more than a command, and nothing left to fill in"
    program, *arguments = words[1:] if words[0] == "sudo" else words
    if program == "kinkvpn":
        cli.parser().parse_args(arguments)
    elif program == "${EDITOR:-vi}":
        assert Path(arguments[-1]).is_absolute()
    elif program != sys.executable:
        assert program in PROGRAMS, f"{program}: in no package of Debian's that is named in tests/support/doctor.py"


def check_setting(file: str, section: str, line: str) -> None:
    """A key and a value that are read where they are to be written, in place of what the key may have there."""
    key, _, value = (part.strip() for part in line.partition("="))
    if section == KERBEROS:
        context = Context({key: value})
        assert context.profile_values("libdefaults", key)[0] == value
        assert context.permitted_enctypes() & PERMITTED_ENCTYPES
        return
    path, _, number = file.partition(":")
    text = Path(path).read_text().splitlines()
    at = int(number) if number else len(text := [*text, section])
    assert text[at - 1].strip() == section
    table = list(takewhile(lambda each: not each.startswith("["), text[at:]))
    kept = [each for each in table if each.partition("=")[0].strip() != key]
    config.parse("\n".join([*text[:at], line, *kept, *text[at + len(table) :]]), Path(path))


def kept_in(namespace: str, who: Patient) -> dict[str, dict[str, Any]]:
    """What is found of the kill switch in that network namespace, by name.

    In a fork: trio starts programs from threads that it keeps, which are in the namespace of whoever was their first.
    """

    def look() -> list[dict[str, Any]]:
        findings: list[Finding] = []
        trio.run(clear.kept_in, who, findings.append)
        return list(map(view.told, findings))

    told = as_user(lambda: within(namespace, look), user=0)
    return answered(0, json.dumps({"exit": 0, "findings": told}))


def answered(code: int, output: str) -> dict[str, dict[str, Any]]:
    """Likewise, of ``kinkvpn doctor --json``, which ends with ``code`` as it says."""
    answer = json.loads(output)
    assert code == answer["exit"]
    for each in answer["findings"]:
        check_mend(each)
    TOLD.update(each["name"] for each in answer["findings"])
    return {each["name"]: each for each in answer["findings"]}


def examined(who: Patient, *looks: Look) -> dict[str, Finding]:
    """What these looks find, by name."""
    return found(trio.run(Examination(who).run, looks))


def look(find: Callable[[Patient], Iterator[Finding]], seconds: float = 300.0) -> Look:
    """A look that blocks."""
    return Look(find.__name__, in_thread(find), seconds)


def host_section(principal: str, **keys: object) -> str:
    """[host]; paths and names as they are."""
    return f'[host]\nprincipal = "{principal}"\n' + "".join(f'{key} = "{value}"\n' for key, value in keys.items())


def keytab_by_hand(path: Path, principal: str, password: str, kvno: int, *enctypes: str) -> Path:
    """ktutil(1): keys of that password under that number, whatever a KDC has."""
    entries = "".join(f"addent -password -p {principal} -k {kvno} -e {enctype}\n{password}\n" for enctype in enctypes)
    done = subprocess.run(
        ["ktutil"], input=f"{entries}wkt {path}\nquit\n", text=True, capture_output=True, check=True, timeout=60
    )
    assert path.exists(), done.stderr
    return path


def provoked_as_said(request: pytest.FixtureRequest) -> Iterator[None]:
    """A fixture's body: what a test says that it provokes, the doctor has told of."""
    TOLD.clear()
    yield
    said = {name for mark in request.node.iter_markers("provokes") for name in mark.args}
    assert said <= TOLD, f"not provoked: {', '.join(sorted(said - TOLD))}"
