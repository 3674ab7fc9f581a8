"""One realm for all tests of this room, with a person in it."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from support.kdc import Lab, free_port

from kinkvpn.demo.realm import Realm

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PASSWORD = "correct horse battery staple"


@pytest.fixture(scope="session")
def running_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    directory = tmp_path_factory.mktemp("people")
    with Realm(directory / "realm", free_port()) as realm:
        realm.kadmin("addprinc", "-pw", PASSWORD, "alice")
        yield Lab(realm, directory)


@pytest.fixture
def lab(running_lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """The realm, which this process believes to be the only one for the length of a test."""
    for name in ("KRB5RCACHENAME", "KRB5CCNAME", "KRB5_KTNAME", "KRB5_CLIENT_KTNAME", "SUDO_UID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KRB5_CONFIG", str(running_lab.realm.krb5_conf))
    return running_lab


@pytest.fixture
def ccache(lab: Lab, tmp_path: Path) -> str:
    """What alice's kinit has left."""
    name = f"FILE:{tmp_path}/ccache"
    command = ["kinit", "-c", name, f"alice@{lab.realm.name}"]
    subprocess.run(
        command, input=f"{PASSWORD}\n", text=True, env=lab.realm.environment, check=True, capture_output=True
    )
    return name
