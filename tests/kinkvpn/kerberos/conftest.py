"""One realm for all tests of this room that need a KDC."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.kdc import Lab, free_port

from kinkvpn.demo.realm import Realm

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def running_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    directory = tmp_path_factory.mktemp("lab")
    with Realm(directory / "realm", free_port()) as realm:
        yield Lab(realm, directory)


@pytest.fixture(autouse=True, scope="module")
def no_kerberos_of_the_host() -> Iterator[None]:
    """What a machine has in its krb5.conf, or an operator in the environment, must not decide a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KRB5_CONFIG", "/dev/null")
        for name in ("KRB5RCACHENAME", "KRB5CCNAME", "KRB5_KTNAME", "KRB5_CLIENT_KTNAME"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture
def lab(running_lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """The realm, which this process believes to be the only one for the length of a test."""
    monkeypatch.setenv("KRB5_CONFIG", str(running_lab.realm.krb5_conf))
    return running_lab
