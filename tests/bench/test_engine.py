"""The measurement runs, loses nothing and says what it should; its figures are the machine's."""

from __future__ import annotations

import json

import pytest

from bench.__main__ import main
from bench.engine import KINDS, SIZES, engines, measure
from esp.suite import SUITES, Suite


@pytest.mark.parametrize("suite", [SUITES[name] for name in KINDS], ids=lambda suite: suite.name)
def test_rows_are_complete_and_agree_with_themselves(suite: Suite) -> None:
    rows = measure(engines(), [suite], [64, 1420], rounds=2, batches=1)
    portable = [row for row in rows if row.engine == "portable"]
    assert [(row.octets, row.operation) for row in portable] == [
        (64, "protect"),
        (64, "unprotect"),
        (1420, "protect"),
        (1420, "unprotect"),
    ]
    assert len(rows) % len(portable) == 0
    for row in rows:
        assert row.suite == suite.name
        assert row.packets_per_second == pytest.approx(1e9 / row.ns_per_packet, rel=0.01)
        assert row.gbit_per_second == pytest.approx(row.octets * 8 / row.ns_per_packet, rel=0.05)


def test_json_is_one_object_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["engine", "--json", "--quick", "--suite", "aes128-gcm16", "--engine", "portable"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    result = json.loads(line)
    assert len(result["rows"]) == 2 * len(SIZES)
    assert {"processor", "cores", "kernel", "python", "load", "commit"} <= result["machine"].keys()


def test_table_names_every_case(capsys: pytest.CaptureFixture[str]) -> None:
    main(["engine", "--quick", "--suite", "aes256-gcm16"])
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("aes256-gcm16") for line in lines) == 2 * len(SIZES) * len(engines())


def test_unknown_suite_is_refused_with_the_names_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["engine", "--suite", "rot13"])
    assert caught.value.code == 2
    assert "aes128-gcm16" in capsys.readouterr().err
