"""What a person reads fits 80 columns, and nothing of it is cut; a program gets every key."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

from support.terminal import terminal

from kinkvpn.doctor import view
from kinkvpn.doctor.finding import Setting, error, note, ok, warning

if TYPE_CHECKING:
    from kinkvpn.doctor.finding import Finding

FINDINGS = [
    error("port-taken", "port 0.0.0.0:910/udp is taken by pid 77 (racoon2 " + "x" * 60 + ")", "why " * 30, "ss " * 40),
    ok("device", "it can be made"),
    warning("late", "no answer", peer="east"),
    note("offload", "no \x1b[31muso"),
    error("esp-port-closed", "nobody listens", command="kinkvpn status", peer="east").over_there(),
    error("user-to-user-forbidden", "no key", peer="east").mended_by(
        Setting("/etc/kinkvpn/kinkvpn.toml:12", "[[peer]]", 'user_to_user = "auto"')
    ),
]


def test_a_table_of_80_columns_with_the_worst_at_its_end() -> None:
    with terminal(80) as screen:
        with open(os.dup(screen.end), "w") as out:
            view.show(FINDINGS, out, verbose=True)
        lines = screen.shown()
    assert max(len(line) for line in lines if not line.lstrip().startswith("$ ")) <= 80
    first = [line.split()[0] for line in lines if line[:1].isalpha()]
    assert first == ["ok", "note", "warning", "error", "error", "error"]
    assert lines[-1] == "3 errors, 1 warning"
    text = "\n".join(lines)
    assert "\x1b" not in text
    assert "east: no answer" in text
    assert text.replace("\n", "").replace(" ", "").count("x") >= 60
    assert text.count("why") == 30
    assert f"$ {'ss ' * 40}".rstrip() in text, "a command stays whole"


def test_what_is_typed_here_what_there_and_what_is_written() -> None:
    out = io.StringIO()
    view.show(FINDINGS[-2:], out)
    assert [line.rstrip() for line in out.getvalue().splitlines()] == [
        "error  east: nobody listens",
        "       on east $ kinkvpn status",
        "error  east: no key",
        "       in /etc/kinkvpn/kinkvpn.toml:12, [[peer]]:",
        '           user_to_user = "auto"',
        "2 errors",
    ]


def shown(findings: list[Finding]) -> list[str]:
    out = io.StringIO()
    view.show(findings, out)
    return out.getvalue().splitlines()


def test_what_is_as_it_should_be_is_counted_where_something_is_not() -> None:
    assert not any(line.startswith("ok") for line in shown(FINDINGS))
    assert shown(FINDINGS)[-1] == "3 errors, 1 warning; 1 more found nothing wrong (-v lists them)"
    assert shown([ok("device", "it can be made"), note("offload", "none")]) == [
        "ok    it can be made",
        "note  none",
        "nothing is wrong",
    ]


def test_what_has_one_cause_is_mended_once() -> None:
    closed = [
        error(f"{port}-closed", f"{port} is closed", "no daemon runs", "kinkvpn status", peer).over_there()
        for port, peer in (("kink", "east"), ("esp", "east"), ("kink", "north"))
    ]
    assert shown([*closed, error("x", "y"), error("x", "z")]) == [
        "error  east: kink is closed",
        "error  east: esp is closed",
        "       no daemon runs",
        "       on east $ kinkvpn status",
        "error  north: kink is closed",
        "       no daemon runs",
        "       on north $ kinkvpn status",
        "error  y",
        "error  z",
        "5 errors",
    ]


def test_nothing_is_wrong() -> None:
    assert view.summary([ok("device", "it can be made"), note("offload", "none")]) == "nothing is wrong"
    assert view.summary([error("a", "b"), error("a", "b")]) == "2 errors"


def test_a_program_gets_every_key() -> None:
    answer = view.as_json(FINDINGS)
    assert answer["exit"] == 2
    assert answer["findings"][2] == {
        "severity": "warning",
        "name": "late",
        "line": "no answer",
        "why": "",
        "command": "",
        "peer": "east",
        "there": False,
        "setting": None,
    }
    assert (answer["findings"][4]["there"], answer["findings"][4]["peer"]) == (True, "east")
    assert answer["findings"][5]["setting"] == {
        "file": "/etc/kinkvpn/kinkvpn.toml:12",
        "section": "[[peer]]",
        "line": 'user_to_user = "auto"',
    }
