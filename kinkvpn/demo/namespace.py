"""A network namespace without a name: it lives as long as the process that holds it, and that dies with us.

Nothing is written to /run/netns, so there is nothing to remove: when the last process inside ends, the kernel takes
the namespace with its devices, addresses and routes.
"""

from __future__ import annotations

import os
import subprocess
from typing import IO, TYPE_CHECKING, Final, Self

from kinkvpn.errors import KinkvpnError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

COMMAND_SECONDS: Final = 30.0  # ip(8) answers in milliseconds; a machine thousands of times slower is broken


def die_with_us() -> tuple[str, ...]:
    """Put before a command line: when this process dies, for whatever reason, so does the command.

    prctl(2), PR_SET_PDEATHSIG. It says nothing of a parent that died before it was asked for, and that is what the
    shell looks after: a stranger in the parent's place is the end, and from then on the signal comes.
    """
    return (
        *("setpriv", "--pdeathsig", "KILL", "--"),
        *("sh", "-c", '[ "$PPID" = "$0" ] || exit; exec "$@"', str(os.getpid())),
    )


class LabFailed(KinkvpnError):
    """The laboratory cannot do what was asked.

    Args:
        reason: one line.
        host: where it happened, if at one place.
        advice: what the operator can do, if we know.
        log: last lines of the process at fault.
    """

    def __init__(self, reason: str, *, host: str = "", advice: str = "", log: Sequence[str] = ()) -> None:
        super().__init__(reason)
        self.host = host
        self.advice = advice
        self.log = tuple(log)


class Namespace:
    """One network namespace, from creation to :meth:`close`; also a context manager.

    To be created from a thread that outlives it: the death of that thread ends the processes inside.

    Args:
        name: for messages only.

    Raises:
        LabFailed: the kernel or its configuration refuses.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        # cat says that the namespace is there, and then waits for the end of its input, which is also our end.
        self._holder = subprocess.Popen(  # noqa: S603 - a list of arguments, no shell
            [*die_with_us(), "unshare", "--net", "--", "cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            self._wait_held()
            self.ip("link set dev lo up")
        except BaseException:
            self.close()
            raise

    def _wait_held(self) -> None:
        holder = self._holder
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stderr is not None
        try:
            holder.stdin.write(b"\n")
            holder.stdin.flush()
        except BrokenPipeError:
            pass  # it is gone already; its last words follow
        if holder.stdout.read(1) != b"\n":
            raise LabFailed(f"no network namespace: {holder.stderr.read().decode().strip()}", host=self.name)

    @property
    def pid(self) -> int:
        """A process inside, for ``ip link set DEVICE netns PID`` and for /proc/PID/ns/net."""
        return self._holder.pid

    @property
    def prefix(self) -> tuple[str, ...]:
        """Put before a command line, it runs the command inside, and ends it when the caller dies."""
        return (*die_with_us(), "nsenter", f"--net=/proc/{self.pid}/ns/net", "--")

    def spawn(
        self,
        command: Sequence[str],
        *,
        stdout: int | IO[str] | IO[bytes] = subprocess.DEVNULL,
        stderr: int | IO[str] | IO[bytes] = subprocess.DEVNULL,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[str]:
        """Starts ``command`` inside, with no input; its pid is the pid of the result (every stage execs the next)."""
        return subprocess.Popen(  # noqa: S603 - a list of arguments, no shell
            [*self.prefix, *command],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            text=True,
            env=environment,
        )

    def run(self, command: Sequence[str], *, stdin: str = "", timeout: float = COMMAND_SECONDS) -> str:
        """Runs ``command`` inside to its end and returns its output. Raises LabFailed unless it exits with 0."""
        try:
            done = subprocess.run(  # noqa: S603 - a list of arguments, no shell
                [*self.prefix, *command], input=stdin, capture_output=True, text=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired:
            raise LabFailed(f"{command[0]} took more than {timeout:.0f} s", host=self.name) from None
        if done.returncode:
            said = "; ".join((done.stderr or done.stdout).strip().splitlines()[:2])
            raise LabFailed(f"{command[0]}: {said or f'exit code {done.returncode}'}", host=self.name)
        return done.stdout

    def ip(self, *commands: str) -> None:
        """ip(8) commands, in one batch. Raises LabFailed with the first that is refused."""
        self.run(["ip", "-batch", "-"], stdin="\n".join(commands) + "\n")

    def close(self) -> None:
        """Lets go of the namespace; processes that were spawned inside are their owner's to end."""
        holder = self._holder
        holder.kill()
        holder.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def join(left: Namespace, left_device: str, right: Namespace, right_device: str) -> None:
    """A veth pair between two namespaces, both ends up, without IPv6 addresses of the kernel's own making.

    An interface that makes no link-local address sends no router solicitations and no MLD reports either: what is
    on the wire is there because somebody sent it.
    """
    left.ip(f"link add name {left_device} type veth peer name {right_device} netns {right.pid}")
    for namespace, device in ((left, left_device), (right, right_device)):
        namespace.ip(f"link set dev {device} addrgenmode none", f"link set dev {device} up")
