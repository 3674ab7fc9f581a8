"""``kinkvpn decode`` from file to exit code."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.captures import KEYTABS, ether, pcap, udp, vector_file
from support.vectors import load_messages, load_vector

from kinkvpn.cli import main
from kinkvpn.decode import command
from kinkvpn.decode.capture import NotCapture
from kinkvpn.decode.keyring import KeysUnreadable

ROOT = Path(__file__).parents[3]
VECTORS = sorted({message.vector for message in load_messages()})
ARGUMENTS = [argument for path in KEYTABS for argument in ("--keytab", str(path))]


def decode(capture: Path | str, *, as_json: bool = True, ports: tuple[int, ...] = ()) -> tuple[int, list[Any]]:
    out = io.StringIO()
    code = command.run(str(capture), KEYTABS, ports=ports, as_json=as_json, out=out)
    lines = out.getvalue().splitlines()
    return code, [json.loads(line) for line in lines] if as_json else lines


def kinkvpn(*arguments: str, stdin: bytes = b"", **environment: str) -> subprocess.CompletedProcess[bytes]:
    process = [sys.executable, "-m", "kinkvpn", "decode", *arguments]
    return subprocess.run(process, input=stdin, capture_output=True, env=os.environ | environment, check=False)


def written(tmp_path: Path, octets: bytes) -> Path:
    path = tmp_path / "capture.pcap"
    path.write_bytes(octets)
    return path


@pytest.mark.parametrize("vector", VECTORS)
def test_the_captures_of_racoon2(vector: str) -> None:
    code, lines = decode(vector_file(vector))
    *messages, summary = lines
    assert [line["record"] for line in lines] == ["message"] * len(messages) + ["summary"]
    assert [line["number"] for line in messages] == list(range(1, len(load_vector(vector)) + 1))
    assert summary["messages"] == len(messages)
    assert (code, summary["ok"]) == ((1, False) if vector == "error-kink" else (0, True))


def test_every_message_has_the_same_keys() -> None:
    keys = [tuple(line) for vector in VECTORS for line in decode(vector_file(vector))[1] if line["record"] == "message"]
    assert len(keys) == 71
    assert len(set(keys)) == 1


def test_unanswered_commands_are_listed() -> None:
    _, lines = decode(vector_file("retransmit-no-responder"))
    assert lines[-1]["unanswered"] == {"count": 1, "numbers": [1]}
    assert lines[-1]["findings"] == {"retransmission": 4}


def test_the_text_for_people_ends_with_the_summary() -> None:
    code, lines = decode(vector_file("create-2way-tunnel-aes256"), as_json=False)
    assert code == 0
    assert lines[0].startswith("#1  CREATE  XID 0x")
    assert lines[-1] == "2 KINK messages in 2 frames: 2 verified"


def test_a_capture_without_kink_fails_and_says_so(tmp_path: Path) -> None:
    code, lines = decode(written(tmp_path, pcap([bytes(ether() / udp(b"dns", port=53))])))
    assert code == 1
    assert (lines[-1]["messages"], lines[-1]["frames"]) == (0, 1)
    assert lines[-1]["remarks"][0].startswith("no KINK message")


def test_another_port(tmp_path: Path) -> None:
    octets = [bytes(ether() / udp(message.datagram, port=7910)) for message in load_vector("create-2way-tunnel-aes256")]
    capture = written(tmp_path, pcap(octets))
    assert decode(capture)[0] == 1
    assert decode(capture, ports=(7910,))[1][-1]["messages"] == 2


@pytest.mark.parametrize(("vector", "number"), [("create-3way-transform", None), ("error-kink", 16)])
def test_the_examples_in_the_docs_are_what_is_printed(vector: str, number: int | None) -> None:
    _, lines = decode(vector_file(vector), as_json=False)
    text = "\n".join(lines)
    if number is not None:
        text = text[text.index(f"#{number} ") : text.index(f"\n\n#{number + 1} ")]
    assert f"```\n{text}\n```" in (ROOT / "docs" / "decode.md").read_text()


@pytest.mark.parametrize("cut", [1, 20, 200])
def test_a_capture_that_was_cut_off_is_never_good(tmp_path: Path, cut: int) -> None:
    octets = vector_file("create-2way-tunnel-aes256").read_bytes()
    code, lines = decode(written(tmp_path, octets[:-cut]))
    assert code == 1
    assert lines[-1]["messages"] == 1
    assert "in the middle of frame 2" in lines[-1]["damage"]


def test_other_traffic_is_counted_in_the_remarks(tmp_path: Path) -> None:
    message = load_vector("create-2way-tunnel-aes256")[0].datagram
    ike = bytes(ether() / udp(bytes(4) + bytes(range(1, 30)), port=4500))
    part = bytes(ether() / udp(message))[:-1]
    part = part[:20] + b"\x20\x00" + part[22:]  # more fragments
    _, lines = decode(written(tmp_path, pcap([ike, part])))
    text = " ".join(lines[-1]["remarks"])
    assert "1 datagrams behind a non-ESP marker were not KINK" in text
    assert "1 fragmented UDP datagrams were not whole" in text
    _, lines = decode(written(tmp_path, pcap([ike], link_type=127)))
    assert "1 frames of link type 127" in " ".join(lines[-1]["remarks"])


def test_bad_input_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotCapture, match="No such file"):
        decode(tmp_path / "nothing")
    with pytest.raises(NotCapture, match="neither pcap nor pcapng"):
        decode(KEYTABS[0])
    with pytest.raises(NotCapture, match="Is a directory"):
        decode(tmp_path)
    with pytest.raises(KeysUnreadable):
        command.run("-", [tmp_path], ports=(), as_json=False, out=io.StringIO())


def test_a_file_that_cannot_be_read_is_bad_input() -> None:
    with pytest.raises(NotCapture, match="/proc/self/mem: cannot be read beyond octet 0: Input/output error"):
        decode("/proc/self/mem")


@pytest.mark.programs
def test_whoever_stops_reading_has_not_seen_that_all_is_well() -> None:
    process = [sys.executable, "-m", "kinkvpn", "decode", str(vector_file("status-and-delete")), *ARGUMENTS]
    with subprocess.Popen(process, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.close()
        assert running.wait() == 1
        assert running.stderr.read() == b""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("no_color", "term", "painted"), [("", "xterm", True), ("1", "xterm", False), ("", "dumb", False)]
)
def test_colour_is_for_terminals_that_want_it(
    monkeypatch: pytest.MonkeyPatch, no_color: str, term: str, painted: bool
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", term)
    out = Terminal()
    command.run(str(vector_file("dpd-epoch")), KEYTABS, ports=(), as_json=False, out=out)
    assert ("\x1b[" in out.getvalue()) == painted


@pytest.mark.programs
def test_the_command_line() -> None:
    good = kinkvpn(str(vector_file("dpd-epoch")), *ARGUMENTS)
    assert (good.returncode, good.stderr) == (0, b"")
    assert b"\x1b" not in good.stdout
    stdin = kinkvpn("-", "--json", *ARGUMENTS, stdin=vector_file("error-kink").read_bytes())
    assert (stdin.returncode, stdin.stderr) == (1, b"")
    assert len(stdin.stdout.splitlines()) == 22


def test_bad_arguments_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([str(tmp_path / "no")], [str(vector_file("dpd-epoch")), "--keytab", str(tmp_path / "no")]):
        assert main(["decode", *arguments]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("kinkvpn: ")
        assert err.count("\n") == 1
    with pytest.raises(SystemExit) as exited:
        main(["decode", str(vector_file("dpd-epoch")), "--port", "0"])
    assert exited.value.code == 2
