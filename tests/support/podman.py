"""Podman in a place of its own: images, containers, processes and mounts, all of it gone when that closes.

It has a process and a mount namespace that end with this process, however it ends: what podman leaves to itself
(conmon, and what that watches) is in the one, its storage in the other.
"""

from __future__ import annotations

import ast
import os
import re
import resource
import subprocess
import sys
import time
from configparser import ConfigParser
from pathlib import Path
from typing import TYPE_CHECKING, Self

from kinkvpn.demo.namespace import die_with_us

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from support.guide import Machine

ROOT = Path(__file__).parents[2]
BASE = "docker.io/library/debian:12-slim"
SECONDS = 300.0
REFUSED = (125, 126, 127)  # podman-run(1): it failed itself, or could not start the command
PIP = (sys.executable, "-m", "pip")
GIVEN = "/machine"  # where a build finds files of this machine
ASKED_OF_PIP = re.compile(
    "(extra-)?index-url|find-links|no-index|trusted-host|proxy|(client-)?cert|constraint|(default-)?timeout"
)

STORAGE = """\
[storage]
driver = "overlay"
graphroot = "{place}/storage"
runroot = "{place}/run"
"""
# Capabilities are those of Debian's list, which is shorter than podman's own and than Docker's. Limits are as here:
# podman would raise them, and not every root may. Cgroups, too, are not for every root to make.
CONFIGURATION = """\
[containers]
cgroups = "disabled"
default_capabilities = [
    "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP", "SETUID",
    "SYS_CHROOT",
]
default_ulimits = ["nofile={files}", "nproc={processes}"]
netns = "host"
volumes = {volumes}

[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
tmp_dir = "{place}/tmp"
"""
# In memory it is as fast everywhere, and an overlay on whatever a machine has there is not for every kernel. Of both
# hierarchies of cgroups, which crun does not want to see, one goes. The shell buries who dies in here.
ENTERED = """\
mount -t tmpfs -o mode=755 none "$0" || exit
umount /sys/fs/cgroup/unified 2>/dev/null
echo
cat
:
"""
AS_THERE = """\
for each in etc run; do mount --bind {directory}/$each /$each; done
"""


class Podman:
    """Podman with all that it keeps in ``directory``; a context manager.

    Args:
        directory: an empty one.
        volumes: of every container, those of a build as well.
    """

    def __init__(self, directory: Path, volumes: Sequence[str]) -> None:
        self.place = directory / "place"
        self.place.mkdir()
        self._network = f"/proc/{os.getpid()}/ns/net"
        self._home = ROOT
        self._files = directory
        self._configure(os.environ, volumes)
        (directory / "storage.conf").write_text(STORAGE.format(place=self.place))
        unshare = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
        self._holder = subprocess.Popen(
            [*die_with_us(), *unshare, "sh", "-c", ENTERED, str(self.place)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.read(1) == b"\n", "no processes and mounts of its own for podman"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._holder.kill()
        self._holder.communicate()

    def _configure(self, environment: Mapping[str, str], volumes: Sequence[str]) -> None:
        (self._files / "containers.conf").write_text(configuration(self.place, volumes))
        self.environment = {
            **environment,
            "CONTAINERS_CONF": f"{self._files}/containers.conf",
            "CONTAINERS_STORAGE_CONF": f"{self._files}/storage.conf",
            "DISABLE_HC_SYSTEMD": "true",  # health is looked at when it is asked for: not every machine has timers
            "TMPDIR": str(self.place),
        }

    def move(self, machine: Machine) -> None:
        """From here on it is on a host of a guide's laboratory, with the network, /etc and /run of that."""
        self.run(AS_THERE.format(directory=machine.directory))
        self._network = f"/proc/{machine.network.pid}/ns/net"
        self._home = machine.directory / "root"
        self._configure(machine.environment, ())

    @property
    def prefix(self) -> list[str]:
        """Put before a command that is to find this podman."""
        own = f"/proc/{self._holder.pid}/ns"
        places = (f"--net={self._network}", f"--mount={own}/mnt", f"--pid={own}/pid_for_children")
        return [*die_with_us(), "nsenter", *places, f"--wd={self._home}", "--"]

    def ask(self, commands: str, seconds: float = SECONDS) -> subprocess.CompletedProcess[str]:
        """By ``sh -e``, to their end."""
        return subprocess.run(
            [*self.prefix, "sh", "-e", "-c", commands],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=seconds,
            check=False,
        )

    def run(self, commands: str, seconds: float = SECONDS) -> str:
        """What they print. Raises AssertionError unless they exit with 0."""
        done = self.ask(commands, seconds)
        assert done.returncode == 0, f"exit code {done.returncode}:\n{commands}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def start(self, commands: str, answers: str, log: Path) -> subprocess.Popen[bytes]:
        """In the background; returns once ``answers`` exits with 0."""
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*self.prefix, "sh", "-e", "-c", commands],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self.environment,
            )
        deadline = time.monotonic() + SECONDS
        while self.ask(answers).returncode:
            assert process.poll() is None, f"{commands} ended:\n{log.read_text()}"
            assert time.monotonic() < deadline, f"{commands} does not answer:\n{log.read_text()}"
            time.sleep(0.2)
        return process


def configuration(place: Path, volumes: Sequence[str]) -> str:
    """For containers.conf(5)."""
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    _, processes = resource.getrlimit(resource.RLIMIT_NPROC)
    return CONFIGURATION.format(
        place=place, files=f"{files}:{files}", processes=f"{processes}:{processes}", volumes=list(volumes)
    )


class Given:
    """What a build needs of this machine to find packages as this machine does.

    Args:
        directory: for files; it is made.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()
        self._mounted: dict[Path, None] = {}
        wheels = self._wheels()
        self._write("etc/pip.conf", self._pip(wheels))
        self._write("etc/apt/apt.conf.d/99machine", self._moved(apt_configuration()))
        (directory / "sources").write_text(sources())

    @property
    def volumes(self) -> list[str]:
        """Of the build."""
        return [f"{path}:{GIVEN}{path}:ro" for path in self._mounted]

    def debian(self, archive: Path) -> list[str]:
        """The command that makes BASE of this machine's sources, as small as Debian makes it."""
        less = [f"--dpkgopt=path-exclude=/usr/share/{each}/*" for each in ("doc", "locale", "man")]
        merged = ("--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr", "--include=usr-is-merged")
        given = ('--aptopt=Acquire::Retries "5"', f"--customize-hook=sync-in {self.directory}/image /")
        return [
            *("mmdebstrap", "--quiet", "--mode=root", "--variant=apt", *merged, *less),
            *("--dpkgopt=force-unsafe-io", *given, "", str(archive), str(self.directory / "sources")),
        ]

    def _write(self, path: str, text: str) -> None:
        target = self.directory / "image" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def _moved(self, text: str) -> str:
        """With paths of files here as the build has them."""

        def move(found: re.Match[str]) -> str:
            path = Path(found["path"])
            if not path.exists():
                return found[0]
            self._mounted[path.parent if found["url"] else path] = None  # an index names files beside itself
            return f"{found['url']}{GIVEN}{path}"

        return re.sub(r"(?<![\w./:])(?P<url>(?:file://)?)(?P<path>/[\w./+-]+)", move, text)

    def _pip(self, wheels: str) -> str:
        """pip.conf, of what pip is told here by files and by the environment."""
        parser = ConfigParser(interpolation=None)
        parser["global"] = {"retries": "10"}
        for line in sorted(_said(*PIP, "config", "list").splitlines(), key=lambda line: line.startswith(":env:")):
            name, _, value = line.partition("=")
            key = name.rpartition(".")[2]
            if ASKED_OF_PIP.fullmatch(key):
                parser["global"][key] = ast.literal_eval(value)
        parser["global"]["find-links"] = f"{parser['global'].get('find-links', '')} {wheels}".strip()
        path = self.directory / "pip.conf"
        with path.open("w") as file:
            parser.write(file)
        return self._moved(path.read_text())

    def _wheels(self) -> str:
        """A directory of what pip has compiled here already, for this kind of machine."""
        wheels = self.directory / "wheels"
        wheels.mkdir()
        listed = _said(*PIP, "cache", "list", "--format=abspath", check=False)  # it may keep none
        for line in listed.splitlines():
            if line.endswith(f"-linux_{os.uname().machine}.whl"):
                (wheels / Path(line).name).write_bytes(Path(line).read_bytes())
        return str(wheels)


def sources() -> str:
    """Of Debian's own packages, for sources.list(5)."""
    form = "deb $(REPO_URI) $(RELEASE) $(COMPONENT)"
    listed = _said("apt-get", "indextargets", "--format", form, "Identifier: Packages", "Origin: Debian")
    return "".join(f"{line}\n" for line in dict.fromkeys(listed.splitlines()))


def apt_configuration() -> str:
    """How this machine's apt reaches them, and what it lets pass; for apt.conf(5)."""
    kept = re.compile(r"Acquire::(https?|Check-[\w-]+)\b.*")
    return "".join(f"{line}\n" for line in _said("apt-config", "dump").splitlines() if kept.fullmatch(line))


def _said(*command: str, check: bool = True) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=check).stdout
