"""A real Linux kernel to talk ESP with: User Mode Linux, an ordinary process, whose network card is a socket of ours.

Nothing of this host's network is touched, and no root is needed: the frames that the guest sends are read from a socket
pair. Its root is this host's, read-only; one directory is shared, for scripts and what they print.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from kinkvpn.demo.namespace import die_with_us

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

KERNEL = Path("/usr/bin/linux.uml")  # Debian: user-mode-linux
MODULES = Path("/usr/lib/uml/modules")
SHIM = Path(__file__).with_name("xstate_shim.c")

MEMORY_OCTETS = 128 << 20
BOOT_SECONDS = 120.0  # 1.5 on an idle machine
SCRIPT_SECONDS = 120.0  # milliseconds
# Frames that wait in the socket pair; what does not fit is lost, as on a wire. Root may have as much as it asks for.
BUFFER_OCTETS = 8 << 20
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33  # linux/socket.h

# The first and only process of the guest. It reads the names of scripts, one a line, and answers each with a line.
# hostfs shows this host's files as they are, so /etc is read-only and modprobe finds modules where we say.
_INIT = """\
#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/ LC_ALL=C
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
mount -t sysfs sysfs /sys
mkdir -p /run/shared /run/modules/lib/modules
mount -t hostfs none /run/shared -o {shared}
ln -s {modules}/$(uname -r) /run/modules/lib/modules/
printf '#!/bin/sh\\nexec /sbin/modprobe -d /run/modules "$@"\\n' >/run/modprobe
chmod +x /run/modprobe
echo /run/modprobe >/proc/sys/kernel/modprobe
ip link set lo up
stty -echo raw </dev/console
cd /run/shared
echo guest: ready
while read -r name; do
    sh "$name" >"$name.out" 2>&1 </dev/null
    echo "guest: $name $?"
done </dev/console
echo 1 >/proc/sys/kernel/sysrq
echo o >/proc/sysrq-trigger
"""


class GuestFailed(Exception):
    """The guest did not start, a script in it failed, or it is gone; with what was printed last."""


def missing() -> str:
    """What this host lacks for a guest, in a line; empty if nothing."""
    for path, package in ((KERNEL, "user-mode-linux"), (Path("/sbin/modprobe"), "kmod")):
        if not path.exists():
            return f"{path} is missing: apt-get install {package}"
    return "" if shutil.which("cc") else "there is no C compiler: apt-get install gcc libc6-dev"


class Guest:
    """One kernel, from its boot to :meth:`close`; also a context manager.

    Args:
        directory: an empty one, for its files.
        taps: descriptors of TAP devices that are to be its second network card and further ones.

    Attributes:
        wire: Ethernet frames from and to the guest's ``vec0``, one a datagram.

    Raises:
        GuestFailed: it does not come up.
    """

    def __init__(self, directory: Path, taps: Sequence[int] = ()) -> None:
        self._shared = directory / "shared"
        self._shared.mkdir()
        init = directory / "init"
        init.write_text(_INIT.format(shared=self._shared, modules=MODULES))
        init.chmod(0o755)
        self._printed = b""
        self._scripts = 0
        self.wire, card = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        for end in (self.wire, card):
            _enlarge(end)
        descriptors = [card.fileno(), *taps]
        cards = [f"vec{number}:transport=fd,fd={fd},vec=0" for number, fd in enumerate(descriptors)]
        with card:
            self._kernel = subprocess.Popen(
                [
                    *die_with_us(),
                    *(
                        KERNEL,
                        f"mem={MEMORY_OCTETS}",
                        f"uml_dir={directory}/",
                        "rootfstype=hostfs",
                        "rootflags=/",
                        "ro",
                        "quiet",
                    ),
                    *("random.trust_cpu=on", "security=none", "con=null", "con0=fd:0,fd:1", *cards, f"init={init}"),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=descriptors,
                env={
                    "LD_PRELOAD": str(_shim(directory)),
                    "TMPDIR": str(_memory(directory)),
                    "PATH": os.environ["PATH"],
                },
                process_group=0,  # Ctrl-C is for the tests, which end the guest themselves
            )
        try:
            self._wait_line("guest: ready", BOOT_SECONDS)
        except BaseException:
            self.close()
            raise

    def run(self, script: str) -> str:
        """What a shell script prints in the guest.

        Raises:
            GuestFailed: it ends with another exit code than 0; a command that fails ends it.
        """
        self._scripts += 1
        name = f"script{self._scripts}"
        (self._shared / name).write_text(f"set -e\n{script}\n")
        assert self._kernel.stdin is not None
        self._kernel.stdin.write(f"{name}\n".encode())
        self._kernel.stdin.flush()
        code = self._wait_line(f"guest: {name} ", SCRIPT_SECONDS)
        printed = (self._shared / f"{name}.out").read_text(errors="replace")
        if code != "0":
            raise GuestFailed(f"exit code {code} of {script[:200]!r}...\n{printed[-2000:]}")
        return printed

    def _wait_line(self, beginning: str, seconds: float) -> str:
        """What follows ``beginning`` in the first line of the console that has it; the kernel prints there too."""
        assert self._kernel.stdout is not None
        console = self._kernel.stdout.fileno()
        deadline = time.monotonic() + seconds
        start = beginning.encode()
        while True:
            for line in self._printed.splitlines(keepends=True):
                if line.startswith(start) and line.endswith(b"\n"):
                    _, _, self._printed = self._printed.partition(line)
                    return line[len(start) :].decode().strip()
            ready, _, _ = select.select([console], [], [], deadline - time.monotonic())
            octets = os.read(console, 65536) if ready else b""
            if not octets:
                what = "ended" if ready else f"said nothing for {seconds:g} s"
                raise GuestFailed(f"the guest {what} before {beginning!r}\n{self._printed.decode(errors='replace')}")
            self._printed += octets

    def close(self) -> None:
        """End the guest: there is nothing in it to be saved."""
        # A process of this host for each of the guest, all of the group that it was started in.
        os.killpg(self._kernel.pid, signal.SIGKILL)
        self._kernel.communicate()
        self.wire.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _memory(directory: Path) -> Path:
    """Where the guest's memory is a file: in memory, if that has room for it and lets it be executed."""
    shared = os.statvfs("/dev/shm")
    good = shared.f_bavail * shared.f_frsize > 2 * MEMORY_OCTETS and not shared.f_flag & os.ST_NOEXEC
    return Path("/dev/shm") if good else directory


def _shim(directory: Path) -> Path:
    built = directory / "xstate_shim.so"
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", built, SHIM], check=True)
    return built


def _enlarge(end: socket.socket) -> None:
    for forced, asked in ((SO_SNDBUFFORCE, socket.SO_SNDBUF), (SO_RCVBUFFORCE, socket.SO_RCVBUF)):
        try:
            end.setsockopt(socket.SOL_SOCKET, forced, BUFFER_OCTETS)
        except PermissionError:
            end.setsockopt(socket.SOL_SOCKET, asked, BUFFER_OCTETS)
