"""On a resolv.conf of its own, as on a host without systemd-resolved and resolvconf; and the words to those two."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from kinkvpn.config import DnsSettings
from kinkvpn.service.resolver import Resolver, by_resolvconf, by_resolved, resolv_conf

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HOST_S = "nameserver 192.0.2.53\noptions edns0\n"
SECONDS = 30.0


@pytest.fixture(autouse=True)
def nothing_but_a_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path without resolvectl and resolvconf, whatever this machine has."""
    place = tmp_path / "bin"
    place.mkdir()
    for name in ("sh", "cat", "rm"):
        (place / name).symlink_to(f"/bin/{name}")
    monkeypatch.setenv("PATH", str(place))


@pytest.fixture
def settings(tmp_path: Path) -> DnsSettings:
    file = tmp_path / "it's resolv.conf"
    file.write_text(HOST_S)
    return DnsSettings(("10.1.0.53",), ("example.com",), file)


def kept(directory: Path) -> list[Path]:
    return sorted(directory.glob("kink0.resolv.conf.*"))


async def test_the_tunnel_s_servers_inside_and_the_host_s_again_after(settings: DnsSettings, tmp_path: Path) -> None:
    async with Resolver(settings, "kink0", tmp_path / "run"):
        inside = settings.file.read_text().splitlines()
    assert inside[0].startswith(f"# kinkvpn, pid {os.getpid()}")
    assert inside[1:] == ["search example.com", "nameserver 10.1.0.53", "options edns0"]
    assert settings.file.read_text() == HOST_S
    assert kept(tmp_path / "run") == []


async def test_what_somebody_else_has_written_meanwhile_stays(settings: DnsSettings, tmp_path: Path) -> None:
    async with Resolver(settings, "kink0", tmp_path / "run"):
        settings.file.write_text("nameserver 198.51.100.1\n")
    assert settings.file.read_text() == "nameserver 198.51.100.1\n"
    assert kept(tmp_path / "run") == []


async def test_without_servers_nothing_is_touched(settings: DnsSettings, tmp_path: Path) -> None:
    async with Resolver(DnsSettings(file=settings.file), "kink0", tmp_path / "run"):
        assert settings.file.read_text() == HOST_S


async def test_a_file_that_is_not_there_is_a_warning(
    settings: DnsSettings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings.file.unlink()
    async with Resolver(settings, "kink0", tmp_path / "run"):
        assert [record.message for record in caplog.records] == ["dns_not_set"]
    assert not settings.file.exists()


KILLED = """
import sys, trio
from pathlib import Path
from kinkvpn.config import DnsSettings
from kinkvpn.service.resolver import Resolver

async def main():
    async with Resolver(DnsSettings(("10.1.0.53",), file=Path(sys.argv[1])), "kink0", Path(sys.argv[2])):
        print("up", flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_kill_9_brings_the_host_s_back(settings: DnsSettings, tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(settings.file), str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as daemon:
        assert daemon.stdout is not None
        assert daemon.stdout.readline() == b"up\n"
        assert "10.1.0.53" in settings.file.read_text()
        daemon.kill()
    wait_until(lambda: settings.file.read_text() == HOST_S and not kept(tmp_path / "run"))


async def test_what_was_left_behind_is_put_back_at_the_next_start(settings: DnsSettings, tmp_path: Path) -> None:
    """Who was killed together with the shell that should have done it."""
    ours = resolv_conf(settings, HOST_S.splitlines())
    for name, text in (("before", HOST_S), ("ours", ours)):
        (tmp_path / f"kink0.resolv.conf.{name}").write_text(text)
    settings.file.write_text(ours)
    async with Resolver(DnsSettings(file=settings.file), "kink0", tmp_path):
        assert settings.file.read_text() == HOST_S
    assert kept(tmp_path) == []


async def test_nothing_is_written_through_a_link_that_somebody_has_put_there(
    settings: DnsSettings, tmp_path: Path
) -> None:
    other = tmp_path / "somebody else's"  # who waits for it to come
    for name in ("before", "ours"):
        (tmp_path / f"kink0.resolv.conf.{name}").symlink_to(other)
    async with Resolver(settings, "kink0", tmp_path):
        assert "10.1.0.53" in settings.file.read_text()
        assert not other.exists()
    assert settings.file.read_text() == HOST_S
    assert not other.exists()
    assert kept(tmp_path) == []


@pytest.mark.root
async def test_what_somebody_else_has_put_there_is_not_put_back(settings: DnsSettings, tmp_path: Path) -> None:
    for name, text in (("before", "nameserver 203.0.113.66\n"), ("ours", HOST_S)):
        path = tmp_path / f"kink0.resolv.conf.{name}"
        path.write_text(text)
        os.chown(path, 65534, 65534)
    async with Resolver(DnsSettings(file=settings.file), "kink0", tmp_path):
        assert settings.file.read_text() == HOST_S


def test_the_words_to_systemd_resolved_and_to_resolvconf(settings: DnsSettings) -> None:
    way = by_resolved(settings, "kink0")
    assert [" ".join(command) for command, _ in way.commands] == [
        "resolvectl dns kink0 10.1.0.53",
        "resolvectl domain kink0 example.com",
    ]
    assert way.undo.startswith("resolvectl revert kink0")
    assert by_resolved(DnsSettings(("10.1.0.53",)), "kink0").commands[1][0][-1] == "~."
    way = by_resolvconf(settings, "kink0")
    ((command, text),) = way.commands
    assert " ".join(command) == "resolvconf -a kink0.kinkvpn"
    assert text.splitlines()[1:] == ["search example.com", "nameserver 10.1.0.53"]
    assert way.undo == "resolvconf -d kink0.kinkvpn"
