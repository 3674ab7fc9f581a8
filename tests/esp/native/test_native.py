"""Whether there is a compiled engine, and with which libraries."""

from __future__ import annotations

import os

import pytest

from esp.native import libraries, why_missing


def test_where_it_has_to_be_built_it_is() -> None:
    """``make test`` says so; else a mistake in the build would be a thousand tests that are skipped."""
    assert why_missing() is None or os.environ.get("ESP_BUILD") != "native"


def test_the_libraries_have_names_and_versions_and_openssl_is_always_there() -> None:
    if why_missing() is not None:
        with pytest.raises(ImportError):
            libraries()
        return
    found = libraries()
    assert list(found) in (["openssl"], ["ipsec-mb", "openssl"]), "the preferred one first"
    assert found["openssl"].startswith("OpenSSL ")
    assert found.get("ipsec-mb", "ipsec-mb ").startswith("ipsec-mb ")
