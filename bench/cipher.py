"""``bench cipher``: what sealing and opening a packet takes in C, by each library that offers the suite.

The ciphers alone, as the compiled engine's loops call them, without Python in between: a small program is compiled for
it. CPU time of its thread, medians.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from bench import machine
from esp.suite import SUITES, Cipher, Integrity, Suite

if TYPE_CHECKING:
    import argparse

HERE = Path(__file__).parent
NATIVE = HERE.parent / "esp" / "native"
# What of it there is besides the ciphers is not needed here.
ROOMS = ("cipher*.c", "encryption*.c", "integrity.c", "ipsec_mb.c", "openssl.c", "separate.c")
# In the order of enum cipher_library.
LIBRARIES = ("OpenSSL", "ipsec-mb")
BATCH = 64  # as bench/cipher.c has it
MEASURED = (
    "aes128-gcm16",
    "aes256-gcm16",
    "aes256-gcm8",
    "aes256-gmac",
    "chacha20-poly1305",
    "aes256-ccm16",
    "aes256-ctr-sha256",
    "aes256-cbc-sha1",
    "aes256-cbc-sha256",
    "aes256-cbc-sha512",
    "aes256-cbc-xcbc",
    "camellia256-cbc-sha256",
    "null-sha256",
    "3des-cbc-md5",
)


@dataclass(frozen=True, slots=True)
class Row:
    """``octets`` of text; nanoseconds for a packet."""

    suite: str
    library: str
    octets: int
    seal: int
    open: int


def _line(suite: Suite) -> str:
    """As bench/cipher.c reads it."""
    integrity = -1 if suite.integrity is None else list(Integrity).index(suite.integrity)
    sizes = (
        suite.encryption_octets,
        suite.salt_octets,
        suite.integrity_octets,
        suite.iv_octets,
        suite.icv_octets,
        suite.block_octets,
    )
    return " ".join(map(str, (list(Cipher).index(suite.cipher), integrity, *sizes)))


def _compiled(directory: str) -> Path:
    program = Path(directory, "cipher")
    sources = [HERE / "cipher.c", *(path for pattern in ROOMS for path in sorted(NATIVE.glob(pattern)))]
    flags = ["-std=gnu11", "-O3", f"-I{NATIVE}"]
    subprocess.run(["cc", *flags, "-o", program, *sources, "-lcrypto"], check=True)  # noqa: S603, S607 - our own sources
    return program


def measure(names: tuple[str, ...], rounds: int) -> list[Row]:
    """A row for each suite, library and size.

    Raises:
        OSError, subprocess.CalledProcessError: there is no compiler, or it says why not.
    """
    with TemporaryDirectory() as directory:
        told = subprocess.run(  # noqa: S603 - what was compiled just now
            [_compiled(directory), str(rounds)],
            input="\n".join(_line(SUITES[name]) for name in names),
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    rows = []
    for name, block in zip(names, told.split("-\n"), strict=False):
        for line in block.splitlines():
            library, *figures = map(int, line.split())
            rows.append(Row(name, LIBRARIES[library], *figures))
    return rows


def run(options: argparse.Namespace) -> int:
    """Print a table, or with ``--json`` one object on one line; the exit code."""
    rounds = 100 if options.quick else 1_000
    about = machine.describe()
    rows = measure(MEASURED, rounds)
    if options.json:
        print(json.dumps({"machine": about, "rounds": rounds, "rows": [asdict(row) for row in rows]}))
        return 0
    print(" · ".join(f"{key} {value}" for key, value in about.items()))
    print(f"nanoseconds for a packet, medians of {rounds} batches of {BATCH}, CPU time of one core\n")
    print(f"{'suite':24}{'library':10}{'octets':>8}{'seal':>8}{'open':>8}")
    for row in rows:
        print(f"{row.suite:24}{row.library:10}{row.octets:8,}{row.seal:8,}{row.open:8,}")
    return 0


def add_command(measurements: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Put ``cipher`` among the subcommands."""
    parser = measurements.add_parser("cipher", help="sealing and opening a packet in C, by each library")
    parser.add_argument("--json", action="store_true", help="one JSON object on one line")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.set_defaults(run=run)
