"""The control socket: what stale, live and foreign things at its path get, and who may open it."""

from __future__ import annotations

import grp
import os
import socket
import stat
import threading
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from kinkvpn.api import control as api


def test_it_is_for_whoever_runs_the_daemon_and_gone_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "k.sock"
    control = api.ControlSocket(path)
    assert (control.path, stat.S_IMODE(path.lstat().st_mode)) == (path, 0o600)
    control.close()
    assert not path.exists()


@pytest.mark.root
def test_who_may_not_use_the_socket_is_told_who_may(tmp_path: Path) -> None:
    control = api.ControlSocket(tmp_path / "k.sock")
    os.seteuid(65534)
    try:
        with pytest.raises(api.ControlUnavailable, match="Permission denied: run this as the daemon's user"):
            api.connect(tmp_path / "k.sock")
    finally:
        os.seteuid(0)
    control.close()


@pytest.mark.root
def test_members_of_a_group_may_open_it_too(tmp_path: Path) -> None:
    control = api.ControlSocket(tmp_path / "k.sock", "daemon")
    status = control.path.lstat()
    assert (stat.S_IMODE(status.st_mode), status.st_gid) == (0o660, grp.getgrnam("daemon").gr_gid)
    control.close()


def test_a_group_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(api.ControlUnavailable, match=r'^control\.group = "x-y-z": this host has no such group$'):
        api.ControlSocket(tmp_path / "k.sock", "x-y-z")
    assert not (tmp_path / "k.sock").exists()


@pytest.mark.root
def test_a_group_that_we_are_no_member_of() -> None:
    with TemporaryDirectory() as directory:
        os.chown(directory, 65534, -1)
        os.seteuid(65534)
        try:
            with pytest.raises(api.ControlUnavailable, match=r'^control\.group = "daemon": Operation not permitted$'):
                api.ControlSocket(Path(directory) / "k.sock", "daemon")
            assert os.listdir(directory) == []
        finally:
            os.seteuid(0)


def test_a_socket_that_a_crash_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "k.sock"
    with socket.socket(socket.AF_UNIX) as crashed:
        crashed.bind(str(path))
        crashed.listen()
    assert path.exists()
    with pytest.raises(api.NotRunning, match="no daemon is running"):
        api.connect(path)
    control = api.ControlSocket(path)
    with api.connect(path) as connection:
        assert api.credentials(connection) == (os.getpid(), os.geteuid(), os.getegid())
    control.close()


def test_a_second_daemon_is_refused_and_told_the_pid(tmp_path: Path) -> None:
    first = api.ControlSocket(tmp_path / "k.sock")
    with pytest.raises(api.AlreadyRunning, match=f"already running, pid {os.getpid()} "):
        api.ControlSocket(tmp_path / "k.sock")
    assert (tmp_path / "k.sock").exists()
    first.close()


def test_something_else_at_the_path_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "k.sock"
    path.write_text("mine")
    with pytest.raises(api.ControlUnavailable, match="something else at this path"):
        api.ControlSocket(path)
    assert path.read_text() == "mine"


def test_a_path_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path, reason in (("file/k.sock", "File exists"), ("x" * 200, "")):
        with pytest.raises(api.ControlUnavailable, match=f"control socket .*{path}: {reason}"):
            api.ControlSocket(tmp_path / path)


def test_a_socket_that_another_daemon_put_there_since_stays(tmp_path: Path) -> None:
    path = tmp_path / "k.sock"
    first = api.ControlSocket(path)
    path.unlink()
    second = api.ControlSocket(path)
    first.close()
    with api.connect(path):
        second.close()
    assert not path.exists()


def test_nobody_there(tmp_path: Path) -> None:
    for name in ("k.sock", "no/k.sock"):
        with pytest.raises(api.NotRunning, match="no daemon is running"):
            api.connect(tmp_path / name)


def test_the_socket_is_never_open_to_others(tmp_path: Path) -> None:
    """Not even before a chmod: with an umask of nothing, the inode is born 0600."""
    seen: set[int] = set()
    path = tmp_path / "k.sock"
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            if path.exists():
                seen.add(stat.S_IMODE(path.lstat().st_mode))

    before = os.umask(0)
    watcher = threading.Thread(target=watch)
    watcher.start()
    control = api.ControlSocket(path)
    while not seen:
        pass
    stop.set()
    watcher.join()
    os.umask(before)
    control.close()
    assert seen == {0o600}
