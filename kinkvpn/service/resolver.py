"""Where this host looks up names while a tunnel is up, and afterwards as before.

Three ways, the first that the host has: systemd-resolved, which knows servers for each device; resolvconf(8), which
puts several sources together; and /etc/resolv.conf itself. Whatever has to be undone is undone by a shell that waits
for the end of a pipe, and that end comes however this process ends, kill -9 included. If it did not (the shell was
killed with us), the next start finds what was kept and puts it back.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, Self

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from kinkvpn.config import DnsSettings

log = logging.getLogger(__name__)

# systemd-resolved(8): it is there while it runs.
RESOLVED = Path("/run/systemd/resolve/stub-resolv.conf")
SHELL = "/bin/sh"  # POSIX has it there on every Linux
# Ours. A resolver's command talks to a daemon on this host; what takes longer hangs.
COMMAND_SECONDS = 10.0
# Ours. It ignores what a terminal or a service manager sends to all of us: its end is the pipe's.
UNDOING = 'trap "" HUP INT TERM; cat >/dev/null; {}'


@dataclass(frozen=True, slots=True)
class Way:
    """How it is done on one host.

    Args:
        name: of it, for the log.
        commands: to run, each with its standard input.
        undo: a line for sh(1).
    """

    name: str
    commands: tuple[tuple[tuple[str, ...], str], ...]
    undo: str


class Resolver:
    """``async with Resolver(settings, device, kept):`` names are asked of the tunnel's servers inside.

    What keeps the host from it is a warning: packets go through all the same.

    Args:
        settings: servers, domains and the file.
        device: the TUN device.
        directory: where the host's own file is kept meanwhile.
    """

    def __init__(self, settings: DnsSettings, device: str, directory: Path) -> None:
        self._settings, self._device = settings, device
        self._before, self._ours = (directory / f"{device}.resolv.conf.{name}" for name in ("before", "ours"))
        self._guard: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> Self:
        await trio.to_thread.run_sync(self._set)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._restore)

    def _set(self) -> None:
        with suppress(OSError, subprocess.SubprocessError):  # of a predecessor that had no time to
            if _is_own(self._before):
                _run((SHELL, "-c", self._put_back()))
        if not self._settings.servers:
            return
        try:
            way = self._way(shutil.which)
            # Before anything is changed, for whatever happens in between.
            self._guard = subprocess.Popen(  # noqa: S603 - a line of ours, with quoted paths
                [SHELL, "-c", UNDOING.format(way.undo)], stdin=subprocess.PIPE, start_new_session=True
            )
            for command, text in way.commands:
                _run(command, text)
        except (OSError, subprocess.SubprocessError) as error:
            log.warning("dns_not_set", extra={"fields": {"reason": _reason(error)}})
            self._restore()
        else:
            servers = " ".join(map(str, self._settings.servers))
            log.info("dns_set", extra={"fields": {"way": way.name, "servers": servers}})

    def _restore(self) -> None:
        guard, self._guard = self._guard, None
        if guard is None:
            return
        guard.communicate()
        log.info("dns_restored")

    def _way(self, find: Callable[[str], str | None]) -> Way:
        """Raises OSError: there is no such file, or it cannot be kept."""
        if find("resolvectl") and RESOLVED.exists():
            return by_resolved(self._settings, self._device)
        if find("resolvconf"):
            return by_resolvconf(self._settings, self._device)
        return self._by_file()

    def _by_file(self) -> Way:
        before = self._settings.file.read_text()
        self._ours.parent.mkdir(parents=True, exist_ok=True)
        _write_anew(self._before, before)
        _write_anew(self._ours, resolv_conf(self._settings, before.splitlines()))
        # In place: it may be a link, or a mount of its own.
        return Way(
            str(self._settings.file),
            (((SHELL, "-c", f"cat {_quoted(self._ours)} >{self._file}"), ""),),
            self._put_back(),
        )

    @property
    def _file(self) -> str:
        return _quoted(self._settings.file)

    def _put_back(self) -> str:
        """As it was, unless somebody else has changed it meanwhile."""
        before, ours = _quoted(self._before), _quoted(self._ours)
        same = f'[ "$(cat {ours})" = "$(cat {self._file})" ]'
        return f"{same} && cat {before} >{self._file}; rm -f {before} {ours}"


def _is_own(path: Path) -> bool:
    """Whether it is a file that we have put there. Beside the control socket may be where everybody writes, and what is
    kept there becomes the host's.
    """
    try:
        status = path.lstat()
    except OSError:
        return False
    return S_ISREG(status.st_mode) and status.st_uid == os.geteuid()


def _write_anew(path: Path, text: str) -> None:
    """Not through a link that somebody has put there. Raises OSError."""
    path.unlink(missing_ok=True)
    with path.open("x") as file:
        file.write(text)


def by_resolved(settings: DnsSettings, device: str) -> Way:
    """Its servers are asked for its domains; it forgets them with the device."""
    servers = ("resolvectl", "dns", device, *map(str, settings.servers))
    domains = ("resolvectl", "domain", device, *(settings.domains or ("~.",)))
    return Way("systemd-resolved", ((servers, ""), (domains, "")), f"resolvectl revert {device} 2>/dev/null")


def by_resolvconf(settings: DnsSettings, device: str) -> Way:
    """As a source of its own."""
    source = f"{device}.kinkvpn"
    command = ("resolvconf", "-a", source), resolv_conf(settings, ())
    return Way("resolvconf", (command,), f"resolvconf -d {source}")


def resolv_conf(settings: DnsSettings, before: Sequence[str]) -> str:
    """The file (resolv.conf(5)), with the options that it had ``before``."""
    lines = [f"# kinkvpn, pid {os.getpid()}: until the tunnel is down"]
    if settings.domains:
        lines.append(f"search {' '.join(settings.domains)}")
    lines += [f"nameserver {server}" for server in settings.servers]
    return "\n".join([*lines, *(line for line in before if line.startswith("options")), ""])


def _run(command: Sequence[str], text: str = "") -> None:
    """Raises OSError, SubprocessError."""
    subprocess.run(  # noqa: S603 - a list of arguments; the shell's are lines of ours
        command, input=text.encode(), check=True, capture_output=True, timeout=COMMAND_SECONDS
    )


def _quoted(path: Path) -> str:
    """For sh(1)."""
    return "'" + str(path).replace("'", "'\\''") + "'"


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        said = " ".join(error.stderr.decode("utf-8", "replace").split())
        return f"{error.cmd[0]}: {said or error.returncode}"
    return str(error)
