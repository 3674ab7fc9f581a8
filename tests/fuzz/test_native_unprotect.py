"""A bounded run of the fuzz target in C, under AddressSanitizer and UBSan, so that it cannot rot."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from fuzz.fuzz_engine import AGAIN, TEXTS, steps

pytestmark = pytest.mark.build

ROOT = Path(__file__).parent.parent.parent
NATIVE = ROOT / "esp/native"
TARGET = ROOT / "tests/fuzz/native_unprotect.c"
FLAGS = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", f"-I{NATIVE}"]
RUNS = 3000
SECONDS = 120.0  # on a machine with better things to do

# A window that takes everything; the rest of window.c is as it is.
FORGETFUL = f'#define window_check real_check\n#include "{NATIVE}/window.c"\n#undef window_check\n'
FORGETFUL += "int window_check(const struct window *window, uint64_t number) { return -1; }\n"


def gcc(directory: Path, *arguments: str | Path) -> None:
    subprocess.run(["gcc", *FLAGS, *map(str, arguments)], cwd=directory, check=True, timeout=SECONDS)


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the engine and the target, compiled."""
    directory = tmp_path_factory.mktemp("objects")
    gcc(directory, "-c", "-DDRIVER", TARGET, *sorted(NATIVE.glob("*.c")))
    return directory


def link(directory: Path, *objects: Path) -> Path:
    """The target."""
    gcc(directory, *objects, "-lcrypto", "-o", "target")
    return directory / "target"


def run(target: Path, directory: Path) -> subprocess.CompletedProcess[str]:
    """Over the texts of fuzz_engine, and what comes of them."""
    corpus = []
    for number, (which, text) in enumerate(TEXTS):
        corpus.append(directory / f"corpus{number}")
        corpus[-1].write_bytes(steps((which, 0, text), (which, 1, text), (which | AGAIN, 3, text)))
    command = [str(target), str(RUNS), "1", *map(str, corpus)]
    # LeakSanitizer traces its process, which not every container allows; by hand it may look.
    environment = {"ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, env=environment, check=False)


def test_the_way_in_survives_a_bounded_fuzz(objects: Path, tmp_path: Path) -> None:
    done = run(link(tmp_path, *objects.glob("*.o")), tmp_path)
    assert done.returncode == 0, done.stderr
    found = re.fullmatch(rf"(\d+) of the files as they are, (\d+) of {RUNS} mutated\n", done.stdout)
    assert found is not None, done.stdout
    assert int(found[1]) >= 4, "what is as it should be comes in"
    assert int(found[2]) > RUNS / 10, "and so does much of what is not quite"


def test_the_target_notices_a_window_that_takes_everything(objects: Path, tmp_path: Path) -> None:
    (tmp_path / "forgetful.c").write_text(FORGETFUL)
    gcc(tmp_path, "-c", "forgetful.c")
    others = [path for path in objects.glob("*.o") if path.name != "window.o"]
    done = run(link(tmp_path, tmp_path / "forgetful.o", *others), tmp_path)
    assert done.returncode != 0
    assert "native_unprotect.c" in done.stderr
