"""A patient for ``kinkvpn doctor``: a configuration as text, looked at by one look at a time, and what is found.

What is found here, or by the command, is what a test that ``provokes`` a finding has provoked.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from kinkvpn import config
from kinkvpn.doctor.examination import Examination, Look, Patient, in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pytest

    from kinkvpn.doctor.finding import Finding

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


def configuration(
    host: str = HOST,
    *,
    sections: str = "",
    peer: str = "kink/east.example.com@EXAMPLE.COM",
    address: str = "192.0.2.2",
    local: str = "10.1.0.0/24",
    remote: str = "10.2.0.0/24",
    how: str = "",
    more: str = "",
    directory: Path = Path("/nowhere"),
) -> config.Configuration:
    """One peer with one policy; without an ``address``, it has to call."""
    where = f'address = "{address}"' if address else ""
    peer = PEER.format(peer=peer, address=where, local=local, remote=remote, how=how, more=more)
    return config.parse(f"{host}\n{sections}\n{peer}", directory / "kinkvpn.toml")


def patient(configured: config.Configuration | None) -> Patient:
    """With all its peers."""
    return Patient(configured, configured.peers if configured else ())


def found(findings: Iterator[Finding] | list[Finding]) -> dict[str, Finding]:
    """By name."""
    named = {finding.name: finding for finding in findings}
    TOLD.update(named)
    return named


def answered(code: int, output: str) -> dict[str, dict[str, Any]]:
    """Likewise, of ``kinkvpn doctor --json``, which ends with ``code`` as it says."""
    answer = json.loads(output)
    assert code == answer["exit"]
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
