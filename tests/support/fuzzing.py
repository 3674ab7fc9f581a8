"""Runs a fuzz target: by coverage where atheris is there, else with examples of hypothesis."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable


def fuzz(check: Callable[[bytes], object], mutated: st.SearchStrategy[bytes], examples: int) -> None:
    """Until a finding, which is an exception of ``check``; without atheris, ``examples`` at most."""
    try:
        atheris = importlib.import_module("atheris")  # optional: brought by whoever fuzzes for hours
    except ModuleNotFoundError:
        run = settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
        run(given(st.binary(max_size=300) | mutated)(check))()
        print(f"{examples:,} examples, no finding (atheris is not installed: hypothesis chose them)")
        return
    atheris.instrument_all()
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()
