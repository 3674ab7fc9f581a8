"""A bounded run of the fuzz target in C, under AddressSanitizer and UBSan, so that it cannot rot."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from scapy.layers.inet import TCP, UDP
from scapy.layers.inet6 import IPv6ExtHdrDestOpt, IPv6ExtHdrHopByHop
from support.offload import Large
from support.scapy_esp import IP, IPOption_NOP, IPv6

pytestmark = pytest.mark.build

ROOT = Path(__file__).parent.parent.parent
NATIVE = ROOT / "esp/native"
TARGET = ROOT / "tests/fuzz/native_offload.c"
FLAGS = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", f"-I{NATIVE}", "-DDRIVER"]
RUNS = 10_000
SECONDS = 120.0  # on a machine with better things to do

FOUR, SIX = IP(src="10.0.0.1", dst="10.0.0.2", id=7), IPv6(src="fd00::1", dst="fd00::2", fl=5)
STAMPS = [("NOP", None), ("NOP", None), ("Timestamp", (5, 6))]
HEADERS = [
    FOUR / TCP(sport=40_001, dport=40_002, flags="FPA", options=STAMPS),
    FOUR / TCP(sport=40_001, dport=40_002, flags="CEA"),
    FOUR / UDP(sport=40_001, dport=40_002),
    IP(src="10.0.0.1", dst="10.0.0.2", options=[IPOption_NOP()] * 4) / TCP(sport=40_001, dport=40_002, flags="A"),
    SIX / TCP(sport=40_001, dport=40_002, flags="A", options=STAMPS),
    SIX / UDP(sport=40_001, dport=40_002),
    SIX / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / UDP(sport=40_001, dport=40_002),
]
TOGETHER = 5  # what has options or extension headers is left apart

# What keeps it from reading beyond a chain of extension headers that is cut.
BOUND = "if (offset + 2 > octets)"


def gcc(directory: Path, *arguments: str | Path) -> None:
    subprocess.run(["gcc", *FLAGS, *map(str, arguments)], cwd=directory, check=True, timeout=SECONDS)


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """All but segment.c, compiled."""
    directory = tmp_path_factory.mktemp("objects")
    gcc(directory, "-c", TARGET, NATIVE / "checksum.c", NATIVE / "coalesce.c")
    return sorted(directory.glob("*.o"))


def link(directory: Path, objects: list[Path], segment: Path) -> Path:
    """The target, with ``segment`` for segment.c."""
    gcc(directory, *objects, segment, "-o", "target")
    return directory / "target"


def run(target: Path, directory: Path) -> subprocess.CompletedProcess[str]:
    """Over a packet of each kind, and what comes of them."""
    corpus = []
    for number, headers in enumerate(HEADERS):
        large = Large(headers, bytes(range(251)) * 2, 150)
        corpus.append(directory / f"corpus{number}")
        corpus[-1].write_bytes(large.header + large.octets)
    command = [str(target), str(RUNS), "1", *map(str, corpus)]
    # LeakSanitizer traces its process, which not every container allows; by hand it may look.
    environment = {"ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, env=environment, check=False)


def test_cutting_and_putting_together_survive_a_bounded_fuzz(objects: list[Path], tmp_path: Path) -> None:
    done = run(link(tmp_path, objects, NATIVE / "segment.c"), tmp_path)
    assert done.returncode == 0, done.stderr
    found = re.fullmatch(
        rf"(\d+) cut and (\d+) put together of the files as they are, (\d+) and (\d+) of {RUNS} mutated\n", done.stdout
    )
    assert found is not None, done.stdout
    assert (int(found[1]), int(found[2])) == (len(HEADERS), TOGETHER)
    assert int(found[4]) > RUNS / 10, "much of what is not quite right is cut, and put together"


def test_the_target_notices_who_reads_too_far(objects: list[Path], tmp_path: Path) -> None:
    source = (NATIVE / "segment.c").read_text()
    assert BOUND in source
    careless = tmp_path / "careless.c"
    careless.write_text(source.replace(BOUND, "if (0)"))
    done = run(link(tmp_path, objects, careless), tmp_path)
    assert done.returncode != 0
    assert "careless.c" in done.stderr
    assert "AddressSanitizer" in done.stderr
