"""Rows become a table that names each case and contestant that was measured."""

from __future__ import annotations

from bench.contestants.contestant import Setting
from bench.rounds import rows
from bench.table import columns, of, placements

ROWS = [
    *rows(
        [{"gbit": 1.0, "sender_cpu": 3.0, "receiver_cpu": 4.0}] * 2,
        ("openvpn", Setting(), "aes128-gcm16", "tcp1"),
        pinned=False,
    ),
    *rows([{"gbit": 19.0}] * 2, ("veth", Setting(), "none", "tcp1"), pinned=True),
    *rows([{"gbit": 0.5}] * 2, ("openvpn", Setting("aes256-gcm16"), "aes256-gcm16", "tcp1"), pinned=False),
]
RESULT = {
    "machine": {"cores": 2},
    "programs": {"openvpn": "OpenVPN 2.6"},
    "rounds": 2,
    "seconds": 1,
    "ratios": {"tcp1_vs_openvpn": 6.5, "cpu_vs_openvpn": [0.1, None], "ceiling_share": None},
    "noise": {"tcp1_vs_openvpn": 0.05, "cpu_vs_openvpn": [0.01, None], "ceiling_share": None},
}


def test_each_setting_and_figure_has_a_block() -> None:
    text = of(RESULT, ROWS)
    titles = [line for line in text.splitlines() if "outside" in line]
    assert titles == [
        "TCP, Gbit/s; aes128-gcm16, IPv4 outside",
        "CPU seconds a GB of the daemon that sends / receives; aes128-gcm16, IPv4 outside",
        "TCP, Gbit/s; aes256-gcm16, IPv4 outside",
    ]
    assert "3.00 / 4.00 ±0%" in text
    assert sum(line.startswith("veth") for line in text.splitlines()) == 1


def test_a_ratio_that_was_not_measured_is_a_dash() -> None:
    text = of(RESULT, ROWS)
    assert "tcp1_vs_openvpn 6.5 (noise 0.05)" in text
    assert "cpu_vs_openvpn 0.1 / - (noise 0.01 / -)" in text
    assert "ceiling_share - (noise -)" in text


def test_columns_are_under_one_another() -> None:
    assert columns([["", "a", "long"], ["name", "1", "2"]]).splitlines() == [
        " " * 18 + "  a  long",
        "name" + " " * 14 + "  1     2",
    ]


def test_who_ran_on_cores_of_its_own_is_told() -> None:
    assert placements(ROWS).endswith(": veth (tcp1)")
    assert placements(ROWS[:1]).endswith(": nobody")
