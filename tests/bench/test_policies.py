"""The measurement runs, and has a row for each number of policies; its figures are the machine's."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from bench.__main__ import main
from bench.policies import COUNTS, measure, policies

if TYPE_CHECKING:
    import pytest


def test_policies_are_all_different_and_measured() -> None:
    assert len({policy.selector for policy in policies(300)}) > 200
    row = measure(30, rounds=1)
    assert row.policies == 30
    assert min(row.hit, row.miss, row.add, row.remove) > 0


def test_json_is_one_object_on_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.policies.COUNTS", COUNTS[:2])
    assert main(["policies", "--json", "--quick"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert [row["policies"] for row in json.loads(line)["rows"]] == [10, 100]
    assert main(["policies", "--quick"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 6
