"""Alice, who has tickets and the name of a gateway, and wants to know why it does not work."""

from __future__ import annotations

import io
import subprocess
from typing import TYPE_CHECKING

import pytest
from support.doctor import answered

from kinkvpn.doctor import command, person
from kinkvpn.proto.whereabouts import KinkOver

if TYPE_CHECKING:
    from pathlib import Path

    from support.kdc import Lab


@pytest.fixture(autouse=True)
def no_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "DEFAULT_PATH", tmp_path / "none.toml")
    monkeypatch.setenv("KRB5CCNAME", f"FILE:{tmp_path}/cache")


@pytest.mark.provokes("tickets-missing")
def test_no_tickets() -> None:
    out = io.StringIO()
    found = answered(command.run(None, "gateway.example.com", as_json=True, out=out), out.getvalue())
    assert found["tickets-missing"]["command"] == "kinit"
    assert "namespaces" in found or "namespaces-refused" in found


@pytest.mark.parametrize("name", ["-x.example", "a..b", "gateway.example.com:0", "gateway.example.com:no"])
def test_neither_a_peer_nor_a_host(name: str) -> None:
    with pytest.raises(command.NoSuchPeer, match="expected"):
        command.run(None, name, as_json=True, out=io.StringIO())


@pytest.mark.kdc
def test_tickets_and_a_name_are_enough(lab: Lab, tmp_path: Path) -> None:
    lab.realm.kadmin("addprinc", "-pw", "word", "alice")
    environment = lab.realm.environment | {"KRB5CCNAME": f"FILE:{tmp_path}/cache"}
    subprocess.run(["kinit", "alice"], input="word\n", text=True, check=True, env=environment, timeout=60)
    configured = person.configuration_of("LOCALHOST.localdomain:4501")
    (peer,) = configured.peers
    assert configured.host.principal == "alice@KINKVPN.TEST"
    assert (peer.principal, peer.policies) == ("kink/localhost.localdomain@KINKVPN.TEST", ())
    assert (peer.address, peer.esp_port) == ("localhost.localdomain", 4501)
    assert configured.kink.over is KinkOver.ESP_PORT
    assert command.chosen(configured, None) == (peer,)
