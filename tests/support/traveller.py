"""A user without root on host a of the laboratory, whose gateway is host b."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

from support.lab import configure, start
from support.unprivileged import USER, wrapper

from kinkvpn.demo.lab import DaemonOptions, Host, Lab, kinkvpn

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

WAIT_SECONDS = 120.0


class Traveller:
    """The user, who has a keytab and a configuration; the daemon of host b is up, and does not know where from.

    Args:
        lab: hosts and realm.
        directory: for files, which the user may read.
    """

    def __init__(self, lab: Lab, directory: Path, options: DaemonOptions | None = None) -> None:
        a, self.gateway = configure(lab, options)
        self.host: Host = a
        self.directory = directory / "traveller"
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir()
        self._mounts = directory / "mounts"
        self._mounts.mkdir(exist_ok=True)
        text = self.gateway.configuration.read_text()
        self.gateway.configuration.write_text(text.replace(f'address = "{a.site.wire}"\n', ""))
        own = a.configuration.read_text().replace(str(a.configuration.parent), str(self.directory))
        self.configuration = self.directory / "run.toml"
        self.configuration.write_text(own.replace(str(lab.realm.krb5_conf), str(self.directory / "krb5.conf")))
        shutil.copy(a.configuration.parent / "keytab", self.directory)
        shutil.copy(lab.realm.krb5_conf, self.directory / "krb5.conf")
        for each in (self.directory, *self.directory.iterdir()):
            os.chown(each, USER, USER)
        self.environment = lab.realm.environment | {
            "XDG_RUNTIME_DIR": str(self.directory),
            "KRB5_CONFIG": str(self.directory / "krb5.conf"),
        }
        start(lab, self.gateway)

    @property
    def prefix(self) -> list[str]:
        """Before a command of the user's."""
        return self.wrapped()

    def wrapped(self, *capabilities: str, before: Sequence[str] = ()) -> list[str]:
        """The same with these ``capabilities``, and lines for sh(1) before."""
        return [*self.host.namespace.prefix, *wrapper(self._mounts, capabilities=capabilities, before=before)]

    def command(self, *command: str, options: Sequence[str] = ()) -> list[str]:
        """``kinkvpn run`` of ``command`` on the host."""
        return [*self.prefix, *kinkvpn(), "run", "-c", str(self.configuration), *options, "--", *command]

    def run(self, *command: str, options: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        """To its end, and to that of everybody who holds its output."""
        return subprocess.run(
            self.command(*command, options=options),
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=WAIT_SECONDS,
            check=False,
        )

    @contextmanager
    def running(self, *command: str, options: Sequence[str] = ()) -> Iterator[subprocess.Popen[str]]:
        """While the block runs."""
        process = subprocess.Popen(
            self.command(*command, options=options),
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()
