"""The kill switch as the doctor finds it without a daemon; beside one: tests/interop/test_doctor.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from support.doctor import TOLD, configuration, found, patient
from support.unprivileged import as_user

from kinkvpn.doctor import clear
from kinkvpn.doctor.finding import Severity

if TYPE_CHECKING:
    from pathlib import Path

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
def test_a_host_without_nft(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("kinkvpn.service.kill_switch.SYSTEM", str(tmp_path))
    finding = seen()["kill-switch-missing"]
    assert (finding.severity, finding.command) == (Severity.ERROR, "apt-get install nftables")
