"""Ours: two daemons keyed by KINK with tickets of a real KDC, once for each engine that there is.

The environment chooses the engine, as it does in service: ESP_ENGINE, ESP_CIPHER_LIBRARY. The ceiling is the compiled
engine built without its cipher (ESP_NO_CIPHER=1), in a copy of the source that nobody else imports.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.contestants.contestant import LOG_LINES, Setting, Tunnel
from bench.underlay import OUTER
from esp import native
from kinkvpn import __version__
from kinkvpn.demo.lab import SITES, DaemonOptions, Lab
from kinkvpn.demo.namespace import LabFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE: Final = Path(__file__).parents[2]
BUILD_SECONDS: Final = 300.0  # a minute on a busy machine


@dataclass(frozen=True, slots=True)
class Kinkvpn:
    """``environment``: of the daemons, as NAME=VALUE."""

    name: str = "kinkvpn"
    environment: tuple[str, ...] = ()
    compiled: bool = False

    def obstacle(self) -> str | None:
        lacking = native.why_missing() if self.compiled else None
        return lacking and f"no compiled engine: {lacking}"

    def takes(self, setting: Setting) -> bool:
        return True

    @contextmanager
    def tunnel(self, setting: Setting, directory: Path) -> Iterator[Tunnel]:
        sites = tuple(replace(site, wire=OUTER[setting.outer][side]) for side, site in enumerate(SITES))
        with Lab(directory, DaemonOptions(start="boot", suites=(setting.suite,)), sites=(sites[0], sites[1])) as lab:
            lab.start_realm()
            lab.start_hosts()
            lab.start_daemons(("env", *self.environment) if self.environment else ())
            a, b = lab.hosts
            assert a.pid is not None
            assert b.pid is not None
            status = a.status() or {}
            engine = f"{status.get('engine')} engine, ciphers of {status.get('ciphers')}"
            yield Tunnel((a.namespace, b.namespace), setting.suite, (a.pid, b.pid), f"kinkvpn {__version__}, {engine}")


@dataclass(frozen=True, slots=True)
class Ceiling:
    """The compiled engine without its cipher: what the same build could do if encryption took no time."""

    name: str = "ceiling"

    def obstacle(self) -> str | None:
        lacking = native.why_missing()
        if lacking:
            return f"no compiled engine: {lacking}"
        return None if find_spec("Cython") else "pip install Cython"

    def takes(self, setting: Setting) -> bool:
        return setting == Setting()

    @contextmanager
    def tunnel(self, setting: Setting, directory: Path) -> Iterator[Tunnel]:
        copy = directory / "source"
        build_without_cipher(copy)
        # A module that is run by name comes from the working directory before all others.
        elsewhere = ("-C", str(copy), "ESP_ENGINE=native")
        with Kinkvpn(self.name, elsewhere).tunnel(setting, directory) as tunnel:
            yield replace(tunnel, suite="none")


def build_without_cipher(directory: Path) -> None:
    """Both packages with such an extension, in ``directory``. Raises LabFailed with the compiler's last words."""
    done = subprocess.run(  # noqa: S603 - a list of arguments, no shell
        [sys.executable, "setup.py", "--quiet", "build", "--build-lib", str(directory)],
        cwd=SOURCE,
        env={**os.environ, "ESP_NO_CIPHER": "1", "ESP_BUILD": "native"},
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS,
        check=False,
    )
    if done.returncode:
        raise LabFailed("no build without cipher", log=done.stderr.splitlines()[-LOG_LINES:])
