"""What ``kinkvpn proxy`` refuses before it begins: by the command line, in a line."""

from __future__ import annotations

import pytest

from esp.sa import Endpoint
from kinkvpn.cli import main
from kinkvpn.commands.proxy import refuse_strangers


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1"])
def test_who_is_on_this_host_needs_no_password(address: str) -> None:
    refuse_strangers([Endpoint(address, 1080)])


@pytest.mark.parametrize("address", ["0.0.0.0", "192.0.2.1", "[::]", "[::ffff:127.0.0.1]"])
def test_a_port_for_other_hosts_has_a_password_or_is_meant(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["proxy", "--listen", f"{address}:1080", "--config", "/nowhere/kinkvpn.toml"]
    assert main(asked) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "whoever reaches this port would be in the tunnel: give --password-file, or --without-password" in said
    assert main([*asked, "--without-password"]) == 2
    assert "/nowhere/kinkvpn.toml" in capsys.readouterr().err
