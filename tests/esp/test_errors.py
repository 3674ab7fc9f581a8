"""Drop reasons and errors."""

from __future__ import annotations

import re
from enum import unique
from pathlib import Path

import pytest

from esp import errors
from esp.errors import AuthenticationFailed, DropReason, EspError


def test_each_reason_is_one_reason() -> None:
    unique(DropReason)  # raises on two names for one value: their packets would count as each other's


@pytest.mark.parametrize("reason", DropReason)
def test_a_reason_reads_in_statistics_as_in_code(reason: DropReason) -> None:
    assert reason.value == reason.name.lower()


def test_every_reason_is_in_the_page_that_promises_its_name() -> None:
    page = (Path(__file__).parents[2] / "docs/counters.md").read_text()
    drops = page.partition("\n## `drops`")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", drops, re.MULTILINE) == [reason.value for reason in DropReason]


def test_misuse_is_one_tree() -> None:
    misuse = {errors.UnknownSuite, errors.UnknownSa, errors.InvalidSa, errors.InvalidPolicy, errors.NotSealed}
    assert {kind for kind in EspError.__subclasses__() if kind.__module__ == errors.__name__} == misuse
    assert all(isinstance(kind.reason, DropReason) for kind in errors.NotSealed.__subclasses__())
    # The network's fault is not the caller's: an `except EspError` around keying must not swallow it.
    assert not issubclass(AuthenticationFailed, EspError)
