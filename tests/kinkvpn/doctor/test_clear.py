"""The kill switch as the doctor finds it without a daemon; beside one: tests/interop/test_doctor.py."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
from support.doctor import HOST, TOLD, answered, configuration, found, kept_in, patient, written
from support.namespaces import namespace, run
from support.unprivileged import as_user

from kinkvpn.doctor import clear
from kinkvpn.service.kill_switch import SYSTEM, table_of

if TYPE_CHECKING:
    from kinkvpn.doctor.finding import Finding

BLOCKED = '[clear]\nblock = "everything"\n'


def seen(sections: str = BLOCKED) -> dict[str, Finding]:
    """What is found with that configuration."""
    who = patient(configuration(sections=sections))
    findings: list[Finding] = []
    trio.run(clear.kept_in, who, findings.append)
    return found(findings)


@pytest.mark.root
def test_where_there_is_none_and_none_is_wanted_nothing_is_said() -> None:
    assert as_user(lambda: list(seen(""))) == []


@pytest.mark.provokes("kill-switch-hidden")
@pytest.mark.root
def test_who_may_not_look_says_so() -> None:
    names = as_user(lambda: list(seen()))
    TOLD.update(names)  # in another process
    assert names == ["kill-switch-hidden"]


@pytest.mark.provokes("kill-switch-missing")
@pytest.mark.root
def test_a_host_without_nft(tmp_path: Path) -> None:
    """One where what is at its place cannot be executed, which is as good as nothing."""
    file, nothing = written(tmp_path, HOST, sections=BLOCKED, address=""), tmp_path / "nothing"
    nothing.touch()
    there = {
        path for place in os.get_exec_path() + SYSTEM.split(":") if (path := Path(place, "nft").resolve()).exists()
    }
    covered = "".join(f"mount --bind {nothing} {path} && " for path in there)
    command = shlex.join([sys.executable, "-m", "kinkvpn", "doctor", "--json", "-c", str(file)])
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", f"{covered}exec {command}"], capture_output=True, text=True, timeout=120
    )
    finding = answered(done.returncode, done.stdout)["kill-switch-missing"]
    assert there
    assert (finding["severity"], finding["command"]) == ("error", "apt-get install nftables")


@pytest.mark.root
def test_one_that_stands_alone_where_there_is_no_configuration() -> None:
    """What `kinkvpn unblock` reads is not there either."""
    table = f"inet {table_of('kink0')}"

    with namespace() as name:
        run("ip", "netns", "exec", name, "nft", "add", "table", *table.split())
        alone = kept_in(name, patient(None))["kill-switch-alone"]
        assert alone["command"] == f"nft delete table {table}"
        run("ip", "netns", "exec", name, *alone["command"].split())
        assert kept_in(name, patient(None)) == {}
