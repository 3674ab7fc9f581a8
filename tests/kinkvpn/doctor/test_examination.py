"""Looks have deadlines, and one that fails takes no other with it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import trio
from support.doctor import patient

from kinkvpn.doctor.examination import Examination, Look, Patient, Report, in_thread
from kinkvpn.doctor.finding import error, ok
from kinkvpn.errors import KinkvpnError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kinkvpn.doctor.finding import Finding


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
