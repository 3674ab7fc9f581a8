"""A realm of its own for what changes keys and policies in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.doctor import provoked_as_said
from support.kdc import Lab, free_port

from kinkvpn.demo.realm import Realm

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def module_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    directory = tmp_path_factory.mktemp("lab")
    with Realm(directory / "realm", free_port()) as realm:
        yield Lab(realm, directory)


@pytest.fixture(autouse=True)
def no_kerberos_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a machine has in its krb5.conf, or an operator in the environment, must not decide a test."""
    monkeypatch.setenv("KRB5_CONFIG", "/dev/null")
    for name in ("KRB5RCACHENAME", "KRB5CCNAME", "KRB5_KTNAME", "KRB5_CLIENT_KTNAME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def provoked(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a test says that it provokes, the doctor has told of."""
    yield from provoked_as_said(request)


@pytest.fixture
def lab(module_lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """The realm, which this process believes to be the only one for the length of a test."""
    monkeypatch.setenv("KRB5_CONFIG", str(module_lab.realm.krb5_conf))
    return module_lab
