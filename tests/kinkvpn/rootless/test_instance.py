"""Control sockets of several instances, in a directory that is nobody else's."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from kinkvpn.rootless.instance import control_path, runtime_directory
from kinkvpn.service.obstacles import StartRefused

if TYPE_CHECKING:
    from pathlib import Path


def test_each_has_its_own_and_those_of_the_dead_go(tmp_path: Path) -> None:
    environment = {"XDG_RUNTIME_DIR": str(tmp_path)}
    mine = control_path(os.getpid(), environment)
    assert mine == tmp_path / "kinkvpn" / f"run-{os.getpid()}.sock"
    mine.touch()
    dead, other = mine.with_name("run-4194305.sock"), mine.with_name("notes")  # no kernel has as many processes
    dead.touch()
    other.touch()
    control_path(1, environment)
    assert (mine.exists(), dead.exists(), other.exists()) == (True, False, True)
    assert mine.parent.stat().st_mode & 0o777 == 0o700


def test_a_directory_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kinkvpn").mkdir(mode=0o755)
    with pytest.raises(StartRefused, match=f"is not a directory of uid {os.geteuid()} alone"):
        runtime_directory({"XDG_RUNTIME_DIR": str(tmp_path)})


def test_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "kinkvpn").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StartRefused, match="alone"):
        runtime_directory({"XDG_RUNTIME_DIR": str(tmp_path)})


def test_a_directory_that_cannot_be_is_refused() -> None:
    with pytest.raises(StartRefused, match="set XDG_RUNTIME_DIR"):
        runtime_directory({"XDG_RUNTIME_DIR": "/proc/self/absent"})
