"""Keys of a running daemon: in the file that was asked for, where tshark finds what it needs, and nowhere else."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from support.lab import amend, command, events, policy, start, status

from kinkvpn.demo.capture import Capture
from kinkvpn.demo.lab import WIRE
from kinkvpn.demo.traffic import ping

if TYPE_CHECKING:
    from pathlib import Path

    from kinkvpn.demo.lab import Host, Lab

pytestmark = [pytest.mark.root, pytest.mark.kdc]


def keymats(path: Path) -> list[bytes]:
    return [bytes.fromhex(found) for found in re.findall(r"^# .* keymat ([0-9a-f]+)$", path.read_text(), re.MULTILINE)]


def spellings(key: bytes) -> list[bytes]:
    """Octets of a key as they could stand somewhere: raw, in hexadecimal, in base64 at each of its three offsets."""
    encoded = [base64.b64encode(bytes(shift) + key)[4 if shift else 0 : -4] for shift in range(3)]
    spaced = key.hex(" "), key.hex(":")
    return [key, key.hex().encode(), key.hex().upper().encode(), *(text.encode() for text in spaced), *encoded]


def outputs(host: Host) -> dict[str, bytes]:
    """Everything that a person gets to see of a daemon."""
    asked = (
        ["status"],
        ["status", "--json"],
        ["status", "--probe"],
        ["rekey"],
        ["check", "-c", str(host.configuration)],
    )
    found = {" ".join(words): command(host, *words) for words in asked}
    said = {name: (done.stdout + done.stderr).encode() for name, done in found.items()}
    return said | {"log": host.log.read_bytes()}


def test_keys_are_written_where_they_are_wanted_and_nowhere_else(lab: Lab, directory: Path) -> None:
    """With everything logged that is, a rekey and an orderly end, of both daemons; only one of them writes keys."""
    a, b = lab.hosts
    keys = directory / "keys"
    for host in (a, b):
        amend(host, "log", level="debug")
    amend(a, "log", level="debug", keys=str(keys))
    start(lab)
    for version in (4, 6):
        ping(a, b, version)
    seen = {(host.name, name): octets for host in (a, b) for name, octets in outputs(host).items()}
    for host in (a, b):
        host.stop()
    seen |= {(host.name, "log at the end"): host.log.read_bytes() for host in (a, b)}
    found = keymats(keys)
    assert keys.stat().st_mode & 0o777 == 0o600
    assert len(found) >= 8, "two pairs, and the same again after the rekey"
    halves = [half for key in found for half in (key[:16], key[16:32])]
    for where, octets in seen.items():
        for half in halves:
            assert not any(spelling in octets for spelling in spellings(half)), where
    # That it would have been found: the file itself has every half in hexadecimal.
    assert all(any(spelling in keys.read_bytes() for spelling in spellings(half)) for half in halves)


def test_a_warning_says_that_keys_are_written(lab: Lab, directory: Path) -> None:
    a, b = lab.hosts
    keys = directory / "others"
    amend(a, "log", keys=str(keys))
    start(lab)
    (line,) = events(a, "keys_are_written")
    assert " warning " in line
    assert str(keys) in line
    assert status(a)["key_log"] == str(keys)
    assert status(b)["key_log"] is None
    assert f"KEYS ARE WRITTEN to {keys}" in command(a, "status").stdout
    assert events(b, "keys_are_written") == []


def test_a_file_that_others_may_read_keeps_the_daemon_from_starting(lab: Lab, directory: Path) -> None:
    a, _b = lab.hosts
    keys = directory / "open"
    keys.touch()
    keys.chmod(0o644)
    amend(a, "log", keys=str(keys))
    done = command(a, "up", "-c", str(a.configuration))
    assert done.returncode == 2
    assert f"key log {keys}: others may open it (mode 0644): chmod 600" in done.stderr
    assert keys.read_text() == ""


@pytest.mark.parametrize("suite", ["aes256-gcm16", "aes128-cbc-sha256"])
def test_tshark_reads_a_capture_with_the_key_log(lab: Lab, directory: Path, suite: str) -> None:
    a, b = lab.hosts
    keys = directory / f"{suite}.esp_sa"
    for host in (a, b):
        amend(host, "[peer]", suites=[suite])
    amend(a, "log", keys=str(keys))
    start(lab)
    with Capture(a.namespace, WIRE, directory / f"{suite}.pcap", snaplen=65535) as capture:
        ping(a, b, 4)
        assert capture.stop() == 0
    assert policy(a, "b/1")["suite"] == suite
    profile = directory / f"{suite}.profile"
    profile.mkdir()
    shutil.copy(keys, profile / "esp_sa")
    options = ("-o", "esp.enable_encryption_decode:TRUE", "-o", "esp.enable_authentication_check:TRUE")
    shown = subprocess.run(
        [
            "tshark",
            "-n",
            "-r",
            str(capture.path),
            *options,
            "-Y",
            "icmp",
            "-T",
            "fields",
            "-e",
            "ip.dst",
            "-e",
            "icmp.type",
        ],
        capture_output=True,
        text=True,
        check=True,
        env={"WIRESHARK_CONFIG_DIR": str(profile), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    ).stdout.splitlines()
    there, here = f"{b.site.wire},{b.site.inner_address(4)}\t8", f"{a.site.wire},{a.site.inner_address(4)}\t0"
    assert sorted(shown) == sorted([there, here] * 5)
