"""Where lwIP is not compiled nothing here can be imported: a mirror of Debian need not have its sources, and an
installation without lwIP is a whole one (setup.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kinkvpn.proxy.lwip import why_missing

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class NotBuilt(pytest.Module):
    """A file of tests that says why it is left out."""

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        """None."""
        pytest.skip(f"lwIP is {why_missing()}")  # it is for whoever installs to have lwIP's sources


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Of each file here."""
    return NotBuilt.from_parent(parent, path=module_path) if why_missing() else None
