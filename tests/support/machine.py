"""A host of the laboratory that boots: systemd as PID 1 of namespaces of its own, in the host's network.

systemd-nspawn(1) makes it of a small root: this system's /usr, where nothing can be written, an /etc of its own, and in
/usr/local what `make files` puts into a system, with a command that is this installation's; or of the /usr and /opt of
a host where kinkvpn has been installed.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

CLONE = Path(__file__).parents[2]
UNITS = CLONE / "contrib" / "systemd"

BOOT_SECONDS = 120.0  # two on an idle machine
COMMAND_SECONDS = 120.0  # the longest waits for a daemon to be ready
END_SECONDS = 60.0

# A hierarchy of its own, of the one kind that there is on a host that has systemd today, whatever is mounted here; and
# a group in it that is the machine's, and goes with it.
_CGROUP = """
mount -t cgroup2 none /sys/fs/cgroup
group=/sys/fs/cgroup/$1 && shift
"""
_ENTER = f'{_CGROUP} mkdir "$group" && echo $$ >"$group/cgroup.procs" && exec "$@"'
# Who is killed is not gone at once.
_LEAVE = f"""{_CGROUP}
while grep -q "populated 1" "$group/cgroup.events"; do sleep 0.02; done
find "$group" -depth -type d -exec rmdir "{{}}" +"""
_PRIVATE = ("unshare", "--mount", "--propagation", "private")
# What nspawn leaves behind when it is killed goes with its PID namespace (pid_namespaces(7)).
_CONTAINED = (*_PRIVATE, "--pid", "--fork", "--kill-child", "--mount-proc", "--", "sh", "-ec", _ENTER)

# systemd's ENVIRONMENT.md. nspawn's own filter of system calls would be under those of the units, which are what is
# looked at; and it looks for a systemd in the root, before /usr is there, to know which hierarchy that one is for.
_SETTINGS = {"SYSTEMD_SECCOMP": "0", "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}

# The command, wherever the clone and its Python are on this host: the sandbox hides the home of whoever has them there.
_COMMAND = f"""#!/bin/sh
export PYTHONPATH=/opt/source:/opt/site PYTHONDONTWRITEBYTECODE=1 LD_LIBRARY_PATH=/opt/python/lib
exec /opt/python/bin/{Path(sys.executable).resolve().name} -m kinkvpn "$@"
"""


class MachineFailed(Exception):
    """It does not boot, or a command in it failed; with what was said."""


def obstacle() -> str:
    """Why a container that the tests run in lets no machine boot, in its kernel's words; empty where it does."""
    script = f'{_CGROUP} mkdir "$group" && rmdir "$group"'
    done = subprocess.run(
        [*_PRIVATE, "--", "sh", "-ec", script, "sh", f"kinkvpn-{os.getpid()}-trial"],
        capture_output=True,
        text=True,
        check=False,
        timeout=END_SECONDS,
    )
    return done.stderr.strip() or ("" if done.returncode == 0 else "no control group can be made")


class Machine:
    """From its boot to :meth:`close`; also a context manager.

    Args:
        directory: that it makes, for its files.
        prefix: put before a command line, runs the command in its network.
        places: by their path where ``prefix`` leads: what of it is in the machine and where; this installation unless
            said otherwise.

    Attributes:
        root: its root directory, but for what is mounted there.

    Raises:
        MachineFailed: it does not come up.
    """

    def __init__(self, directory: Path, prefix: Sequence[str], places: Mapping[str, str] | None = None) -> None:
        self.root = directory / "root"
        self._group = f"kinkvpn-{os.getpid()}-{directory.name}"
        self._console = directory / "console"
        self._undo = ExitStack()
        _furnish(self.root)
        if places is None:
            places = _install(directory / "local")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
            told.bind(str(directory / "notify"))
            told.settimeout(BOOT_SECONDS)
            with self._console.open("wb") as console:
                self._supervisor = subprocess.Popen(
                    [*prefix, *_CONTAINED, "sh", self._group, *_nspawn(directory, places)],
                    stdin=subprocess.DEVNULL,
                    stdout=console,
                    stderr=console,
                    env=os.environ | _SETTINGS | {"NOTIFY_SOCKET": str(directory / "notify")},
                )
            self._undo.callback(self._end)
            try:
                _wait_booted(told)
                self.leader = _child(_child(self._supervisor.pid))  # unshare's, and that one's
            except BaseException as error:
                self.close()
                said = self._console.read_text(errors="replace")
                raise MachineFailed(f"{error or type(error).__name__}: {said[-4000:]}") from error

    def run(self, *command: str) -> str:
        """What it prints in there. Raises MachineFailed unless it exits with 0."""
        inside = ("nsenter", f"--target={self.leader}", "--all", "--root", "--wd=/", "--")
        done = subprocess.run(
            [*inside, *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin", "LC_ALL": "C"},
            check=False,
        )
        if done.returncode:
            raise MachineFailed(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def path(self, inside: str) -> Path:
        """A file as it is in there, with everything that is mounted."""
        return Path(f"/proc/{self.leader}/root{inside}")

    def show(self, unit: str, name: str) -> str:
        """A property of a unit (systemctl(1), show)."""
        return self.run("systemctl", "show", "--value", f"--property={name}", unit).strip()

    def journal(self, unit: str) -> str:
        """What the unit and its processes have said."""
        return self.run("journalctl", "--quiet", "--output=cat", f"--unit={unit}")

    def process(self, unit: str) -> dict[str, str]:
        """Its main process, as /proc/PID/status has it."""
        status = self.path(f"/proc/{self.show(unit, 'MainPID')}/status").read_text()
        return dict(re.findall(r"^(\w+):\s+(.*)$", status, re.MULTILINE))

    def amend(self, unit: str, text: str) -> None:
        """A drop-in, in place of the one before (systemctl(1), edit)."""
        path = self.root / f"etc/systemd/system/{unit}.d/override.conf"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        self.run("systemctl", "daemon-reload")

    def reword(self, old: str, new: str) -> None:
        """What is written in the daemon's configuration."""
        path = self.root / "etc/kinkvpn/kinkvpn.toml"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def close(self) -> None:
        """Ends everything in there. There is nothing in it to be saved."""
        self._undo.close()

    def _end(self) -> None:
        self._supervisor.kill()
        self._supervisor.wait(END_SECONDS)
        subprocess.run([*_PRIVATE, "--", "sh", "-ec", _LEAVE, "sh", self._group], check=True, timeout=END_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _furnish(root: Path) -> None:
    """What a root directory has to have before the first boot; accounts are made there (sysusers.d(5))."""
    for name in ("usr", "etc/systemd/system", "etc/kinkvpn", "opt", "var", "tmp", "run", "proc", "sys", "dev"):
        (root / name).mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    shutil.copy("/etc/os-release", root / "etc/os-release")
    (root / "etc/machine-id").write_text(f"{os.getpid():032x}\n")
    (root / "etc/nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files\n")


def _install(local: Path) -> dict[str, str]:
    """As `make files` does, which tests/contrib/test_files.py tries; and all places that the command there needs."""
    for name in ("bin", "lib/systemd/system", "lib/sysusers.d", "lib/tmpfiles.d"):
        (local / name).mkdir(parents=True)
    for unit in (*UNITS.glob("*.service"), *UNITS.glob("*.socket")):
        shutil.copy(unit, local / "lib/systemd/system")
    for part in ("sysusers", "tmpfiles"):
        shutil.copy(UNITS / f"kinkvpn.{part}", local / f"lib/{part}.d/kinkvpn.conf")
    command = local / "bin/kinkvpn"
    command.write_text(_COMMAND)
    command.chmod(0o755)
    return {
        "/usr": "/usr",
        str(local): "/usr/local",
        str(CLONE): "/opt/source",
        sysconfig.get_path("purelib"): "/opt/site",
        sys.base_prefix: "/opt/python",
    }


def _nspawn(directory: Path, places: Mapping[str, str]) -> list[str]:
    return [
        *("systemd-nspawn", "--quiet", "--boot", f"--directory={directory / 'root'}", "--machine=kinkvpn"),
        *("--register=no", "--keep-unit", "--settings=no", "--console=pipe", "--notify-ready=yes"),
        *("--resolv-conf=off", "--timezone=off", "--link-journal=no"),
        *(f"--bind-ro={here}:{there}" for here, there in places.items()),
        *("--bind=/dev/net/tun", "--capability=CAP_NET_ADMIN", "systemd.unit=basic.target"),
    ]


def _wait_booted(told: socket.socket) -> None:
    """Raises TimeoutError."""
    while b"READY=1" not in told.recv(4096).splitlines():
        pass


def _child(pid: int) -> int:
    """The only one of ``pid``."""
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)
