"""Installing: with the compiled engine where it can be compiled, without it and with the reason where it cannot be.

Every obstacle is a real one, and every installation a real one too: a copy of the tree, its own build, its own target.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from importlib.metadata import distribution
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = {path.name for kind in ("c", "h", "pyx", "pxi") for path in (ROOT / "esp/native").glob(f"*.{kind}")}
CORE = f"_core{sysconfig.get_config_var('EXT_SUFFIX')}"
SECONDS = 120.0  # on a machine with better things to do

ASK = "from esp import native; print(native.__file__); print(native.why_missing())"

pytestmark = pytest.mark.build


@pytest.fixture
def tree(whole_tree: Path) -> Path:
    """The same with an engine of a few lines: how long the real one compiles is no matter of these tests."""
    for source in SOURCES:
        (whole_tree / "esp/native" / source).unlink()
    (whole_tree / "esp/native/_core.pyx").write_text('cdef extern from "seven.h":\n    int seven()\nSEVEN = seven()\n')
    (whole_tree / "esp/native/seven.c").write_text('#include "seven.h"\nint seven(void) { return 7; }\n')
    (whole_tree / "esp/native/seven.h").write_text("int seven(void);\n")
    return whole_tree


@pytest.fixture
def whole_tree(tmp_path: Path) -> Path:
    """What an installation is made from, and nothing that was compiled."""
    copy = tmp_path / "tree"
    for package in ("esp", "kinkvpn"):
        compiled = shutil.ignore_patterns("*.so", "__pycache__", "missing.txt")
        shutil.copytree(ROOT / package, copy / package, ignore=compiled)
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, copy)
    return copy


def run(
    tree: Path, command: list[str], *, before: tuple[str, ...] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    """In the tree, with nothing in the environment that tells a build what to do, but what is given."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR")}
    return subprocess.run(
        [*before, *command],
        cwd=tree,
        env=kept | {"CFLAGS": "-O0", "KINKVPN_LWIP": "none"} | environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def build(tree: Path, *, before: tuple[str, ...] = (), **environment: str) -> subprocess.CompletedProcess[str]:
    """What pip does of an installation, into ``built``: without pip, which takes twice as long for it."""
    command = [sys.executable, "setup.py", "build", "--build-lib", "built"]
    return run(tree, command, before=before, **environment)


def why_missing(tree: Path, where: str) -> str:
    """What the installation in ``where`` says of itself, when it is that one which is asked."""
    (tree / "elsewhere").mkdir(exist_ok=True)
    command = [sys.executable, "-c", ASK]
    file, said = run(tree / "elsewhere", command, PYTHONPATH=str(tree / where)).stdout.splitlines()
    assert Path(file) == tree / where / "esp/native/__init__.py"
    return said


def native(where: Path) -> set[str]:
    return {path.name for path in (where / "esp/native").iterdir() if path.name != "__pycache__"}


# What there is where it compiles.


def test_a_wheel_has_what_was_compiled_and_not_what_it_was_compiled_of(tree: Path) -> None:
    wheel = [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", "dist", "."]
    done = run(tree, wheel)
    assert done.returncode == 0, done.stderr
    (made,) = (tree / "dist").glob("*.whl")
    with ZipFile(made) as archive:
        archive.extractall(tree / "installed")
    assert native(tree / "installed") >= {"__init__.py", "_core.pyi", CORE}
    assert not any(name.endswith((".c", ".h", ".pyx", ".pxi", ".txt")) for name in native(tree / "installed"))
    assert why_missing(tree, "installed") == "None"


def test_an_editable_installation_finds_what_was_compiled(tree: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--no-build-isolation", "--no-deps", "--target", "site"]
    done = run(tree, [*pip, "--editable", "."])
    assert done.returncode == 0, done.stderr
    assert CORE in native(tree)
    # Without the site-packages of whoever runs this, in which there is another editable installation.
    ask = [sys.executable, "-S", "-c", f"import site; site.addsitedir('site'); {ASK}"]
    shutil.move(tree / "site", tree.parent / "site")  # so that what pip left there finds the tree, and not its place
    done = run(tree.parent, ask)
    assert done.stdout.splitlines() == [str(tree / "esp/native/__init__.py"), "None"], done.stderr


def test_a_source_distribution_has_what_is_compiled(whole_tree: Path) -> None:
    done = run(whole_tree, [sys.executable, "setup.py", "--quiet", "sdist"])
    assert done.returncode == 0, done.stderr
    (made,) = (whole_tree / "dist").glob("*.tar.gz")
    with tarfile.open(made) as archive:
        names = {Path(member.name).name for member in archive if "/esp/native/" in member.name}
    assert names == SOURCES | {"__init__.py", "_core.pyi"} | {path.name for path in (ROOT / "esp/native").glob("*.py")}


def test_make_compiles_again_what_has_changed_and_nothing_else(whole_tree: Path) -> None:
    built = whole_tree / "esp/native" / CORE
    shutil.copy(ROOT / "Makefile", whole_tree)
    shutil.copytree(ROOT / ".ci", whole_tree / ".ci")
    (whole_tree / ".venv").mkdir()
    (whole_tree / ".venv/demo.installed").touch()  # as after an installation
    built.touch()

    def stale() -> bool:
        done = run(whole_tree, ["make", "--question", f"PYTHON={sys.executable}", f"esp/native/{CORE}"])
        assert done.returncode in (0, 1), done.stderr
        return done.returncode == 1

    assert not stale()
    made_of = ["setup.py", *(f"esp/native/{name}" for name in sorted(SOURCES))]
    assert {Path(name).suffix for name in made_of} == {".py", ".c", ".h", ".pyx", ".pxi"}
    for kind in (".py", ".c", ".h", ".pyx", ".pxi"):
        changed = whole_tree / next(name for name in made_of if name.endswith(kind))
        was = changed.stat()
        later = built.stat().st_mtime_ns + 1_000_000_000
        os.utime(changed, ns=(later, later))
        assert stale(), changed.name
        os.utime(changed, ns=(was.st_mtime_ns, was.st_mtime_ns))
    assert not stale()


def test_what_is_compiled_has_no_warnings(tmp_path: Path) -> None:
    sources = sorted(map(str, (ROOT / "esp/native").glob("*.c")))
    flags = ["-std=gnu11", "-fsyntax-only", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Werror"]
    done = run(tmp_path, ["gcc", *flags, *sources]) if sources else run(tmp_path, ["gcc", "--version"])
    assert done.returncode == 0, done.stderr


# What there is where it does not.


OBSTACLES = {
    "a compiler that fails": ({"CC": "false"}, "no C compiler (gcc)"),
    "a compiler that is not there": ({"CC": "/nonexistent/cc"}, "no C compiler (gcc)"),
    "nothing on PATH": ({"PATH": "/nonexistent"}, "no C compiler (gcc)"),
    "nobody wants it": ({"ESP_BUILD": "portable"}, "not wanted (ESP_BUILD=portable)"),
}


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_without_a_compiler_the_installation_is_whole_and_knows_why(tree: Path, obstacle: str) -> None:
    environment, reason = OBSTACLES[obstacle]
    done = build(tree, **environment)
    assert done.returncode == 0, done.stderr
    assert f'building extension "esp.native._core" failed: {reason}' in done.stdout + done.stderr
    assert why_missing(tree, "built") == f"not built: {reason}, when kinkvpn was installed"
    assert CORE not in native(tree / "built")


def test_pip_ends_well_without_a_compiler(tree: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--no-build-isolation", "--no-deps", "--target", "site", "."]
    done = run(tree, pip, CC="false")
    assert done.returncode == 0, done.stderr
    assert why_missing(tree, "site") == "not built: no C compiler (gcc), when kinkvpn was installed"


def test_without_cython_the_installation_is_whole_and_knows_why(tree: Path) -> None:
    """An interpreter that has setuptools and nothing else, as without a net."""
    packages = tree / "packages"
    packages.mkdir()
    for file in distribution("setuptools").files or ():
        first = Path(str(file)).parts[0]
        if first not in ("..", "__pycache__") and not (packages / first).exists():
            (packages / first).symlink_to(Path(str(distribution("setuptools").locate_file(first))))
    python = [sys.executable, "-S", "setup.py", "build", "--build-lib", "built"]
    done = run(tree, python, PYTHONPATH=str(packages))
    assert done.returncode == 0, done.stderr
    assert why_missing(tree, "built") == "not built: no Cython, when kinkvpn was installed"


def test_sources_that_do_not_compile_leave_nothing_of_an_older_build(tree: Path) -> None:
    assert build(tree).returncode == 0
    assert why_missing(tree, "built") == "None"
    (tree / "esp/native/broken.c").write_text("#error broken on purpose\n")
    assert build(tree).returncode == 0
    assert "its sources do not compile" in why_missing(tree, "built")
    (tree / "esp/native/broken.c").unlink()
    assert build(tree).returncode == 0
    assert why_missing(tree, "built") == "None"


def test_a_build_in_place_that_fails_takes_the_older_one_away(tree: Path) -> None:
    in_place = [sys.executable, "setup.py", "build_ext", "--inplace"]
    assert run(tree, in_place).returncode == 0
    assert CORE in native(tree)
    assert run(tree, in_place, CC="false").returncode == 0
    assert "missing.txt" in native(tree)
    assert CORE not in native(tree)


def test_a_pyx_that_cython_refuses_is_a_reason_too(tree: Path) -> None:
    (tree / "esp/native/_core.pyx").write_text("cdef broken on purpose\n")
    assert build(tree).returncode == 0
    assert "its sources do not compile" in why_missing(tree, "built")


def test_who_insists_on_it_is_told_by_the_exit_code(tree: Path) -> None:
    done = build(tree, CC="false", ESP_BUILD="native")
    assert done.returncode != 0
    assert "no C compiler" in done.stderr


HEADERS = {
    "no headers of Python (libpython3-dev)": sysconfig.get_path("include"),
    "no headers of OpenSSL 3 (libssl-dev)": "/usr/include/openssl",
}


@pytest.mark.root
@pytest.mark.parametrize("reason", HEADERS)
def test_without_headers_the_installation_is_whole_and_knows_why(tree: Path, reason: str) -> None:
    """In a mount namespace in which the directory of the headers is empty."""
    hide = f'mount -t tmpfs none {HEADERS[reason]} && exec "$@"'
    done = build(tree, before=("unshare", "--mount", "sh", "-c", hide, "sh"))
    assert done.returncode == 0, done.stderr
    assert why_missing(tree, "built") == f"not built: {reason}, when kinkvpn was installed"


# What the loader says.


@pytest.mark.parametrize(
    ("put", "said"),
    [
        (CORE, f"built, and does not load: {{}}/esp/native/{CORE}: "),
        ("_core.cpython-27-vax.so", "not built for this Python (there is _core.cpython-27-vax.so)"),
        (None, "not built: nobody has, in this tree"),
    ],
    ids=["not a library", "of another Python", "nothing"],
)
def test_what_was_not_built_here_is_told_apart(tree: Path, put: str | None, said: str) -> None:
    if put:
        (tree / "esp/native" / put).write_text("this is no library")
    assert why_missing(tree, ".").startswith(said.format(tree))


def test_a_library_that_it_needs_and_that_is_not_there_is_named(tree: Path) -> None:
    """Linked against a library that is then deleted, as when a system goes on to the next OpenSSL."""
    with tempfile.TemporaryDirectory() as gone:
        library = Path(gone) / "libgone.so.3"
        compile_ = ["gcc", "-shared", "-fPIC", "-x", "c", "/dev/null"]
        assert run(tree, [*compile_, "-Wl,-soname,libgone.so.3", "-o", str(library)]).returncode == 0
        linked = [*compile_, "-x", "none", "-Wl,--no-as-needed", str(library), "-o", f"esp/native/{CORE}"]
        done = run(tree, linked)
        assert done.returncode == 0, done.stderr
    assert why_missing(tree, ".").startswith("built, and does not load: libgone.so.3: cannot open shared object file")


# lwIP, for kinkvpn proxy.

ASK_LWIP = "from kinkvpn.proxy.lwip import why_missing; print(why_missing())"


def why_lwip_is_missing(tree: Path) -> str:
    (tree / "elsewhere").mkdir(exist_ok=True)
    return run(tree / "elsewhere", [sys.executable, "-c", ASK_LWIP], PYTHONPATH=str(tree / "built")).stdout.strip()


@pytest.mark.parametrize(
    ("directory", "reason"),
    [("none", "not wanted (KINKVPN_LWIP=none)"), ("docs", "no sources of lwIP from Debian (none in docs)")],
)
def test_without_the_sources_of_lwip_the_rest_is_installed(tree: Path, directory: str, reason: str) -> None:
    (tree / "docs").mkdir()
    done = build(tree, KINKVPN_LWIP=directory)
    assert done.returncode == 0, done.stderr
    assert why_missing(tree, "built") == "None"
    assert why_lwip_is_missing(tree) == f"not built: {reason}, when kinkvpn was installed"


def test_lwip_as_debian_has_it_is_compiled(tree: Path) -> None:
    """With the sources that this tree has been installed with, if it was; otherwise they are fetched now."""
    done = build(tree, KINKVPN_LWIP=str(ROOT / "build/lwip"))
    assert done.returncode == 0, done.stderr
    assert why_lwip_is_missing(tree) == "None", done.stderr
