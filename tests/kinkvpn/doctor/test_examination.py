"""Looks have deadlines, and one that fails takes no other with it."""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import trio
from support.doctor import HOST, PEER, patient

from kinkvpn.config import DEFAULT_PATH
from kinkvpn.doctor.examination import Examination, Look, Patient, Report, in_thread
from kinkvpn.doctor.finding import Setting, error, ok
from kinkvpn.errors import KinkvpnError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kinkvpn.doctor.finding import Finding


def test_a_command_names_the_configuration_unless_it_is_the_usual_one() -> None:
    file = Path("a b/west.toml")
    assert [Patient(None, file=each).kinkvpn("up", "east") for each in (DEFAULT_PATH, file)] == [
        "kinkvpn up east",
        "kinkvpn up east -c 'a b/west.toml'",
    ]
    assert Patient(None, file=file).in_full() == "sudo kinkvpn doctor -c 'a b/west.toml'"
    assert Patient(None, gateway="gw.example.com").in_full() == "sudo kinkvpn doctor gw.example.com"


def test_a_setting_is_for_the_file_and_the_line_where_its_table_is(tmp_path: Path) -> None:
    file, folder = tmp_path / "kinkvpn.toml", tmp_path / "kinkvpn.d"
    folder.mkdir()
    file.write_text(HOST)
    (folder / "east.toml").write_text(
        PEER.format_map(defaultdict(str, peer="a@B", local="10.1.0.0/24", remote="10.2.0.0/24"))
    )
    who = patient(file)
    assert who.setting_of(who.peers[0], "x = 1") == Setting(f"{folder}/east.toml:2", "[[peer]]", "x = 1")
    assert who.setting("host", "x = 1") == Setting(f"{file}:1", "[host]", "x = 1")
    assert who.setting("tun", "x = 1") == Setting(str(file), "[tun]", "x = 1")
    guest = replace(who, gateway="gw.example.com")
    assert guest.setting("tun", "x = 1") is guest.setting_of(who.peers[0], "x = 1") is None


def fine(_: Patient) -> Iterator[Finding]:
    yield ok("fine", "it is")


async def test_what_was_found_stays_when_the_rest_does_not_come() -> None:
    async def hangs(_: Patient, report: Report) -> None:
        report(ok("before", "that much was seen"))
        await trio.sleep_forever()

    found = await Examination(patient(None)).run([Look("it", hangs, seconds=0.1), Look("the rest", in_thread(fine))])
    assert [finding.name for finding in found] == ["before", "late", "fine"]


async def test_what_cannot_be_interrupted_is_left_alone() -> None:
    release = threading.Event()

    def hangs(_: Patient) -> Iterator[Finding]:
        release.wait()
        yield ok("after", "too late")

    found = await Examination(patient(None)).run([Look("a resolver", in_thread(hangs), seconds=0.1)])
    release.set()
    assert [finding.name for finding in found] == ["late"]
    assert found[0].line.startswith("a resolver: no answer within 0.1 s")


async def test_what_cannot_be_looked_at_is_said() -> None:
    async def fails(_: Patient, report: Report) -> None:
        report(ok("before", "that much was seen"))
        raise KinkvpnError("the reason")

    found = await Examination(patient(None)).run([Look("it", fails), Look("the rest", in_thread(fine))])
    assert [finding.name for finding in found] == ["before", "failed", "fine"]
    assert "the reason" in found[1].line


async def test_there_is_no_looking_at_what_needs_what_is_wrong() -> None:
    def wrong(_: Patient) -> Iterator[Finding]:
        yield error("wrong", "it is")

    begun: list[str] = []
    looks = [
        Look("keys", in_thread(wrong)),
        Look("tickets", in_thread(fine), needs=("keys",)),
        Look("routes", in_thread(fine), needs=("engine",)),
    ]
    found = await Examination(patient(None), begun.append).run(looks)
    assert [finding.name for finding in found] == ["wrong", "fine"]
    assert begun == ["keys", "routes"]
