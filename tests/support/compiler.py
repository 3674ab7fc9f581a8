"""A C compiler, for what only the headers of the machine know."""

from __future__ import annotations

import shutil


def compiler() -> str:
    """Its path; `make test` has installed it."""
    found = shutil.which("gcc") or shutil.which("cc")
    assert found is not None, "apt-get install gcc libkrb5-dev"
    return found
