"""Which tests there are: every one that pytest found, before ``-m`` and ``-k`` left some out."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

# What this run has collected; tests/conftest.py puts it there.
FOUND = pytest.StashKey[list[str]]()


def functions(identifiers: Iterable[str]) -> set[str]:
    """Test functions as a page names them: the path below tests/, classes, name; no parameters."""
    return {re.sub(r"\[.*", "", each, flags=re.DOTALL).removeprefix("tests/") for each in identifiers if "::" in each}


def every_function(config: pytest.Config, root: Path) -> set[str]:
    """All of the suite: of this run if it was asked for everything, else of one that only collects."""
    if config.args == config.getini("testpaths"):
        return functions(config.stash[FOUND])
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "tests"]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True, timeout=300).stdout
    return functions(listed.splitlines())
