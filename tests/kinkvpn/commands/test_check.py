"""kinkvpn check: tables into a pipe and on a terminal of eighty columns, and the same as JSON."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from typing import TYPE_CHECKING

import pytest
from support.keytabs import write_keytab

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.programs

FILE = """
[[peer]]
address = "localhost"
principal = "kink/a-rather-long-name.of.a-host.in-some-site.example.com@EXAMPLE.COM"
local = ["10.1.0.0/24", "fd00:1::/64"]
remote = ["10.2.0.0/24", "fd00:2::/64"]
"""


@pytest.fixture
def command(tmp_path: Path) -> tuple[list[str], dict[str, str]]:
    write_keytab(tmp_path / "keytab", "kink/west.example.com@EXAMPLE.COM")
    (tmp_path / "k.toml").write_text(FILE)
    (tmp_path / "krb5.conf").write_text("[libdefaults]\ndefault_realm = EXAMPLE.COM\n")
    environment = os.environ | {"KRB5_CONFIG": str(tmp_path / "krb5.conf")}
    return [sys.executable, "-m", "kinkvpn", "check", "-c", str(tmp_path / "k.toml")], environment


def test_in_a_pipe_a_row_is_a_line(command: tuple[list[str], dict[str, str]]) -> None:
    arguments, environment = command
    shown = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert "policy start lifetime traffic" in lines
    assert "localhost/2 demand 8h 0m fd00:1::/64 > fd00:2::/64" in lines
    assert "suites aes256-gcm16, aes128-gcm16, aes256-cbc-sha256" in lines
    assert any(line.startswith("device kink0, MTU ") and "auto" not in line for line in lines)
    done = subprocess.run(
        [*arguments, "--json"], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    found = json.loads(done.stdout)
    assert found["principal"] == "kink/west.example.com@EXAMPLE.COM"
    assert found["device"]["mtu"] > 1200
    assert [policy["name"] for policy in found["peers"][0]["policies"]] == ["localhost/1", "localhost/2"]


def test_on_a_terminal_it_keeps_within_eighty_columns(command: tuple[list[str], dict[str, str]]) -> None:
    arguments, environment = command
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(arguments, env=environment, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    shown = b""
    try:
        while octets := os.read(master, 4096):
            shown += octets
    except OSError:
        pass  # the other end has ended
    os.close(master)
    assert process.wait(60) == 0
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown.decode()).split("\r\n")
    assert "is good: 1 peer, 2 policies" in " ".join(lines)
    # A path or a principal is one word, and is not cut.
    assert [line for line in lines if len(line) > 80 and len(line.split()) > 3 and "k.toml" not in line] == []
