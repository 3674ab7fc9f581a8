"""Control sockets of several instances, in a directory that is nobody else's."""

from __future__ import annotations

import os
import resource
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest

from kinkvpn.rootless.instance import control_path, machine_at, runtime_directory
from kinkvpn.service.obstacles import StartRefused

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
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


GATEWAY = "gateway.example.com"


@contextmanager
def process(environment: Mapping[str, str], gateway: str = GATEWAY, *, may_write: bool = True) -> Iterator[bytes]:
    """Which machine a process is that lives while the block runs."""
    (told, tell), (wait, go) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(go)
            if not may_write:
                resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
            os.write(tell, machine_at(gateway, environment, most=3))
            os.read(wait, 1)
        finally:
            os._exit(0)
    os.close(tell)
    os.close(wait)
    try:
        yield os.read(told, 100)
    finally:
        os.close(go)
        os.close(told)
        os.waitpid(child, 0)


def test_several_at_once_are_several_machines_and_the_next_is_the_first_that_is_free(tmp_path: Path) -> None:
    environment = {"XDG_STATE_HOME": str(tmp_path / "state")}
    with process(environment) as first:
        with process(environment) as second, process(environment, "gw.example.org") as elsewhere:
            assert len({first, second, elsewhere}) == 3
            assert {len(each) for each in (first, second, elsewhere)} == {16}
        with process(environment) as again:
            assert again == second
    with process(environment) as again:
        assert again == first
    assert {each.stat().st_mode & 0o777 for each in (tmp_path / "state/kinkvpn").iterdir()} == {0o600}


def test_more_than_are_remembered_are_strangers(tmp_path: Path) -> None:
    environment = {"XDG_STATE_HOME": str(tmp_path)}
    with ExitStack() as held:
        at_once = {held.enter_context(process(environment)) for _ in range(5)}
        assert len(at_once) == 5
    assert len(list((tmp_path / "kinkvpn").iterdir())) == 3


@pytest.mark.parametrize("state", ["XDG_STATE_HOME", "HOME"])
def test_without_a_home_of_ones_own_it_is_remembered_until_the_next_start(tmp_path: Path, state: str) -> None:
    """Relative, of somebody else, or open to others."""
    (tmp_path / "open/kinkvpn").mkdir(parents=True)
    (tmp_path / "open/.local/state/kinkvpn").mkdir(parents=True)
    (tmp_path / "open/kinkvpn").chmod(0o755)
    (tmp_path / "open/.local/state/kinkvpn").chmod(0o755)
    for given in ("", "state", "/proc/self", str(tmp_path / "open")):
        environment = {"XDG_RUNTIME_DIR": str(tmp_path), state: given}
        with process(environment) as first:
            pass
        with process(environment) as again:
            assert again == first
    assert [each.name.count(".") for each in (tmp_path / "kinkvpn").iterdir()] == [1]


def test_what_is_kept_is_drawn_anew_where_it_cannot_be_read(tmp_path: Path) -> None:
    environment = {"XDG_STATE_HOME": str(tmp_path)}
    with process(environment) as first:
        pass
    (kept,) = (tmp_path / "kinkvpn").iterdir()
    assert first != kept.read_bytes()
    kept.write_bytes(b"short")
    with process(environment) as second:
        pass
    with process(environment) as again:
        assert again == second != first


def test_where_nothing_can_be_written_it_is_another_one_each_time(tmp_path: Path) -> None:
    environment = {"XDG_STATE_HOME": str(tmp_path)}
    with process(environment, may_write=False) as first, process(environment, may_write=False) as second:
        assert {len(first), len(second)} == {16}
        assert first != second
    with process(environment) as third, process(environment) as fourth:
        assert len({first, second, third, fourth}) == 4
