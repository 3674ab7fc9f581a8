"""What a system has of us beside the program: what make files puts there, and the container's recipe."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from kinkvpn.cli import parser

pytestmark = pytest.mark.programs

ROOT = Path(__file__).parent.parent.parent
CONTAINERFILE = (ROOT / "contrib/container/Containerfile").read_text().replace("\\\n", " ")


def run(*command: str | Path, beside: Path = ROOT) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=beside, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Below here, made with this installation, which is not made again for it."""
    made, here = tmp_path_factory.mktemp("files"), sys.prefix
    run("make", "-s", f"INSTALLED={here}", f"DESTDIR={made}", "files")
    return made / "usr"


def test_everything_is_where_a_system_looks_for_it(files: Path) -> None:
    assert {str(path.relative_to(files)) for path in files.rglob("*") if path.is_file()} == {
        "lib/systemd/system/kinkvpn.service",
        "lib/systemd/system/kinkvpn@.service",
        "lib/systemd/system/kinkvpn-block.service",
        "lib/systemd/system/kinkvpn-kink.socket",
        "lib/systemd/system/kinkvpn-esp.socket",
        "lib/sysusers.d/kinkvpn.conf",
        "lib/tmpfiles.d/kinkvpn.conf",
        "share/man/man1/kinkvpn.1",
        "share/bash-completion/completions/kinkvpn",
        "share/zsh/vendor-completions/_kinkvpn",
        "share/fish/vendor_completions.d/kinkvpn.fish",
    }


def test_the_manual_page_is_sound_and_has_every_command(files: Path) -> None:
    page = files / "share/man/man1/kinkvpn.1"
    assert run("mandoc", "-Tlint", "-W", "warning", page) == ""
    shown = re.sub(r".\x08", "", run("man", "-l", page))
    assert shown.startswith("KINKVPN(1)")
    commands, _, _ = parser().format_help().partition("options:")
    for command in re.findall(r"^ {4}(\w+)", commands, re.MULTILINE):
        assert f"COMMAND 'kinkvpn {command}'" in shown
    assert "kinkvpn down                   stop the daemon" in shown, "the layout of the examples is kept"


# The container. Nothing is pulled for a test; what the recipe names has to be there.


def packages(stage: int) -> set[str]:
    """That are installed in a stage of the image."""
    (listed,) = re.findall(r"apt-get install ([^&\n]*)", CONTAINERFILE.split("\nFROM ")[stage])
    return {word for word in listed.split() if not word.startswith("-")}


@cache
def needed_by(wanted: frozenset[str]) -> set[str]:
    """They, and what they depend on."""
    quiet = [f"--no-{kind}" for kind in ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")]
    found = run("apt-cache", "depends", "--recurse", *quiet, *sorted(wanted))
    return {line for line in found.splitlines() if re.match(r"[a-z0-9]", line)}


def test_the_image_is_made_of_what_is_here() -> None:
    for copied in re.findall(r"^COPY (?!--from)(.*) /\S+$", CONTAINERFILE, re.MULTILINE):
        for name in copied.split():
            assert (ROOT / name).exists(), name
    makefile = (ROOT / "Makefile").read_text()
    assert packages(1) - {"libpython3-dev", "python3-venv"} <= set(re.findall(r"[\w.-]+", makefile))


def test_the_image_has_every_library_that_is_linked_to() -> None:
    """Its second stage is without what compiles: the packages of every library have to be there or to follow."""
    there = needed_by(frozenset(packages(2)))
    gssapi = find_spec("gssapi.raw.misc")
    assert gssapi is not None
    assert gssapi.origin is not None
    linked = {"/usr/lib/x86_64-linux-gnu/libkrb5.so.3"} if Path("/usr/lib/x86_64-linux-gnu").exists() else set()
    for module in (*(ROOT / "esp/native").glob("_core*.so"), Path(gssapi.origin)):
        linked |= set(re.findall(r"=> (/\S+)", run("ldd", module)))
    for library in linked:
        owner = run("dpkg", "-S", f"*{library.removeprefix('/usr').removeprefix('/lib')}").splitlines()[0]
        assert owner.split(":")[0] in there, library
