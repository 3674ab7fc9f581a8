"""The ratios follow from the rows, what cannot be is said in one line, and a short run of it all gives every figure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from bench.__main__ import main
from bench.contestants.contestant import Setting
from bench.datapath import RATIOS, ratios
from bench.rounds import Row, rows

if TYPE_CHECKING:
    from pathlib import Path

    from bench.load import Figures


def found(name: str, case: str, *samples: Figures, setting: Setting | None = None) -> list[Row]:
    return rows(samples, (name, setting or Setting(), "aes128-gcm16", case), pinned=False)


def test_ratios_are_medians_of_what_each_round_gave() -> None:
    measured = [
        *found("kinkvpn", "tcp1", {"gbit": 6.0}, {"gbit": 8.0}, {"gbit": 30.0}),
        *found("openvpn", "tcp1", {"gbit": 1.0}, {"gbit": 1.0}, {"gbit": 3.0}),
    ]
    values, noises = ratios(measured)
    assert values["tcp1_vs_openvpn"] == 8
    assert noises["tcp1_vs_openvpn"] == 0.25


def test_cpu_is_a_pair_of_sender_and_receiver() -> None:
    values, noises = ratios(
        [
            *found("kinkvpn", "tcp1", {"sender_cpu": 0.4, "receiver_cpu": 0.3}),
            *found("openvpn", "tcp1", {"sender_cpu": 4.0, "receiver_cpu": 2.0}),
        ]
    )
    assert values["cpu_vs_openvpn"] == [0.1, 0.15]
    assert noises["cpu_vs_openvpn"] == [0, 0]


def test_loss_is_its_own_and_may_be_none_at_all() -> None:
    values, _ = ratios(found("kinkvpn", "udp-1500", {"loss": 0.0}, {"loss": 0.0}))
    assert values["udp1500_loss"] == 0


def test_other_settings_have_no_part_in_it() -> None:
    values, _ = ratios(
        [
            *found("kinkvpn", "tcp1", {"gbit": 6.0}, setting=Setting("aes256-gcm16")),
            *found("openvpn", "tcp1", {"gbit": 1.0}, setting=Setting("aes256-gcm16")),
        ]
    )
    assert values["tcp1_vs_openvpn"] is None


def test_what_was_not_measured_is_null() -> None:
    values, noises = ratios([])
    assert values.pop("cpu_vs_openvpn") == noises.pop("cpu_vs_openvpn") == [None, None]
    assert set(values.values()) == set(noises.values()) == {None}
    assert len(values) == len(RATIOS) - 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "veth,vpn"], "argument --only: unknown: vpn (choose from veth, openvpn, strongswan"),
        (["--rounds", "0"], "argument --rounds: 0: expected 1 or more"),
        (["--trials", "-1"], "argument --trials: -1: expected 0 or more"),
        (["--seconds", "x"], "argument --seconds: invalid"),
    ],
)
def test_bad_arguments_are_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["datapath", *arguments])
    assert ended.value.code == 2
    complaint = capsys.readouterr().err
    assert said in complaint
    assert complaint.count("\n") == 1


def test_a_tool_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda name: None if name == "iperf3" else f"/usr/bin/{name}")
    assert main(["datapath"]) == 2
    assert capsys.readouterr().err == "bench datapath: tools are missing: apt-get install iperf3\n"


@pytest.mark.root
@pytest.mark.kdc
def test_a_short_run_gives_every_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--quick", "--only", "veth,kinkvpn-portable", "--rounds", "1", "--trials", "0"]
    assert main(["datapath", "--json", *words, "--results", str(tmp_path)]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    result = json.loads(line)
    assert result["left_out"] == {}
    assert "portable engine" in result["programs"]["kinkvpn-portable"]
    figures = {(row["contestant"], row["case"], row["figure"]): row["median"] for row in result["rows"]}
    for case in ("tcp1", "tcp1-split"):
        assert {figures.pop(("kinkvpn-portable", case, f"{side}_cpu")) > 0 for side in ("sender", "receiver")} == {True}
        assert figures.pop(("veth", case, "gbit")) > figures.pop(("kinkvpn-portable", case, "gbit")) > 0
    for name in ("veth", "kinkvpn-portable"):
        assert 0 < figures.pop((name, "rtt-idle", "p50_us")) <= figures.pop((name, "rtt-idle", "p99_us"))
        assert 0 < figures.pop((name, "pps64", "received_per_s")) <= figures.pop((name, "pps64", "sent_per_s"))
        assert 0 <= figures.pop((name, "udp-1500", "loss")) < 1
        assert 0 < figures.pop((name, "udp-1500", "received_gbit")) <= figures.pop((name, "udp-1500", "sent_gbit"))
    assert figures == {}
    kept, drawn = sorted(tmp_path.iterdir())
    assert json.loads(kept.read_text()) == result
    assert drawn.read_bytes().startswith(b"\x89PNG")
