"""A command whose only way out is the tunnel, for anybody: two processes, and one of them becomes the command.

The front is what the user has started. It enters namespaces, does there what it is asked for, and executes the command
in its own place: exit code, signals, terminal and job control are the command's, for there is nobody in between. The
tunnel is forked before, has a session of its own, and stays outside: the UDP sockets and the packet loop are there,
the packet device comes out to it, and it has no capability.

Neither outlives the other. The tunnel waits for the front's end, says so to the peers and goes. When the tunnel goes,
whatever way, the kernel kills what the front has become; the device has gone with the tunnel by then, so that nothing
leaves meanwhile.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import sys
import traceback
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import trio

from esp.errors import EspError
from kinkvpn import terminal
from kinkvpn.config import engine_settings
from kinkvpn.config.clear import ClearSettings
from kinkvpn.document import DocumentError
from kinkvpn.errors import KinkvpnError
from kinkvpn.proto.settings import Start
from kinkvpn.proto.whereabouts import KinkOver
from kinkvpn.rootless import inside
from kinkvpn.rootless.channel import Channel
from kinkvpn.rootless.instance import control_path
from kinkvpn.rootless.namespace import StepRefused
from kinkvpn.rootless.obstacles import explain
from kinkvpn.rootless.outside import Namespace
from kinkvpn.rootless.place import DESERTED, InNamespace
from kinkvpn.service import log
from kinkvpn.service.daemon import Daemon
from kinkvpn.service.obstacles import StartRefused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from kinkvpn.config import Configuration, DeviceKind, PeerConfiguration
    from kinkvpn.service.running import Running

FAILED, CANNOT = 1, 2  # exit codes, as the command line has them
NOT_EXECUTABLE, NOT_FOUND = 126, 127  # as a shell has it (POSIX.1-2017, 2.8.2)

# Ours. How often we look whether there are SAs: a CREATE takes milliseconds, and a look takes microseconds.
LOOK_SECONDS = 0.01
# Ours. Who waits longer than this for a tunnel is told what for.
SILENT_SECONDS = 1.0
# Ours. What the command has between SIGTERM and SIGKILL when the tunnel ends before it.
GRACE_SECONDS = 2.0
# Ours. Few programs use descriptors up here, and none expects to find them free.
HIGH_DESCRIPTOR = 200


class NoTunnel(KinkvpnError):
    """It is not up by now; the message says with whom, and why."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be run, and by which way.

    Args:
        command: and its arguments.
        configuration: makes it; called in the process that carries packets.
        device: of which kind; None for what the configuration says.
        patience: seconds to wait for the tunnel before the command starts; 0 does not.
        verbose: log what happens, and not only what goes wrong.
    """

    command: Sequence[str]
    configuration: Callable[[], Awaitable[Configuration]]
    device: DeviceKind | None = None
    patience: float = 30.0
    verbose: bool = False


def run(wanted: Wanted) -> int:
    """Become ``wanted.command``; the exit code where that cannot be, which has been explained.

    To be called by a process with one thread.

    Raises:
        StartRefused: there is no place for a control socket.
    """
    control = control_path(os.getpid())
    ours, tunnels = Channel.pair()
    front = os.pidfd_open(os.getpid())
    life, lived = os.pipe()  # the tunnel's process has the other end, and nobody else
    if _detached():
        ours.close()
        os.close(life)
        Tunnel(wanted, Namespace(tunnels), front, control).run()
    tunnels.close()
    os.close(lived)
    return _become(wanted.command, ours, life)


def _detached() -> bool:
    """Fork a process that is nobody's child, in no terminal's reach; whether this is it.

    A child would be found by a command that waits for all children it has.
    """
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return False
    os.setsid()
    if os.fork():
        os._exit(0)
    return True


# The front.


def _become(command: Sequence[str], channel: Channel, life: int) -> int:
    with suppress(ConnectionError):  # it is told of below
        inside.tell_settled(channel)
    told = inside.serve(channel)
    channel.close()
    if told is None:
        return _complain("the process that carries packets has ended", FAILED)
    if "code" in told:
        return int(told["code"])
    _die_with(life)
    # Python ignores these, and what is executed would inherit it.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    sys.stdout.flush()
    try:
        os.execvpe(command[0], list(command), os.environ | told["environment"])  # noqa: S606 - what the user asked for
    except OSError as error:
        code = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
        return _complain(f"{command[0]}: {error.strerror}", code)


def _die_with(life: int) -> None:
    """Be killed when the last writer of the pipe ``life`` goes, whatever is executed until then (fcntl(2), F_SETSIG).

    PR_SET_PDEATHSIG would tell of a parent, and the other process is not to be one.
    """
    descriptor = fcntl.fcntl(life, fcntl.F_DUPFD, HIGH_DESCRIPTOR)
    os.close(life)
    fcntl.fcntl(descriptor, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([descriptor], [], [], 0)[0]:  # it went before
        os.kill(os.getpid(), signal.SIGKILL)


def _complain(lines: str, code: int) -> int:
    terminal.complain(lines)
    return code


# The tunnel.


class Tunnel:
    """The process outside.

    Args:
        wanted: what for.
        space: where the front is.
        front: a pidfd of it.
        control: where to listen for ``kinkvpn status``.
    """

    def __init__(self, wanted: Wanted, space: Namespace, front: int, control: Path) -> None:
        self._wanted = wanted
        self._space = space
        self._front = front
        self._control = control
        self._handed_over = False

    def run(self) -> None:
        """All its life; does not return."""
        code = FAILED
        try:
            code = self._live()
        except BaseException:
            traceback.print_exc()  # a defect
        finally:
            self._end(code)
            sys.stderr.flush()
            os._exit(code)

    def _live(self) -> int:
        # Whoever reads what the command writes waits for its end, and not for ours.
        nowhere = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1):
            os.dup2(nowhere, standard)
        os.close(nowhere)
        log.configure(sys.stderr, level="info" if self._wanted.verbose else "warning", as_json=False)
        try:
            self._space.settled()  # who may have no namespace hears that, and not what else is wrong
        except StepRefused as refused:
            return _complain(explain(refused), CANNOT)
        except ConnectionError:
            return FAILED  # killed, as it is what the user has started
        try:
            trio.run(self._carry)
        except (StartRefused, DocumentError) as refused:
            # Who has gone has said why, or was told to go.
            return CANNOT if DESERTED in str(refused) else _complain(str(refused), CANNOT)
        except (KinkvpnError, EspError) as error:
            return _complain(str(error), FAILED)
        return 0

    async def _carry(self) -> None:
        wanted = self._wanted
        configuration = adapted(await wanted.configuration(), self._control, wanted.device)
        place = InNamespace(self._space)
        engine = engine_settings(configuration.esp.engine, os.environ)
        await Daemon(configuration, engine, place=place, beside=self._beside).run()

    async def _beside(self, running: Running) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._hand_over, running)
            await trio.lowlevel.wait_readable(self._front)
            nursery.cancel_scope.cancel()
        # Whoever reads what the command has written to stderr waits for its end, and not for that of our DELETEs.
        os.dup2(0, sys.stderr.fileno())

    async def _hand_over(self, running: Running) -> None:
        if self._wanted.patience:
            await wait_until_up(running, self._wanted.patience)
        with suppress(ConnectionError):  # it is about to be seen
            self._space.leave({"environment": {"KINKVPN_SOCKET": str(self._control)}})
            self._handed_over = True

    def _end(self, code: int) -> None:
        """The front hears why there is no command; a command that runs without a tunnel by now is asked to end."""
        try:
            if not self._handed_over:
                self._space.leave({"code": code or FAILED})
                return
            signal.pidfd_send_signal(self._front, signal.SIGTERM)
            select.select([self._front], [], [], GRACE_SECONDS)
        except OSError:
            pass  # it has gone already


async def wait_until_up(running: Running, patience: float) -> None:
    """Return once every policy has SAs.

    Raises:
        NoTunnel: a peer has refused, or ``patience`` seconds are over.
    """
    start = trio.current_time()
    told = False
    while missing := _missing(running):
        name, error = missing
        waited = trio.current_time() - start
        if error or waited > patience:
            raise NoTunnel(f"no tunnel to {name}: {error or f'no answer within {patience:g} s'}")
        if waited > SILENT_SECONDS and not told:
            told = True
            _complain(f"waiting for {name}", 0)
        await trio.sleep(LOOK_SECONDS)


def _missing(running: Running) -> tuple[str, str] | None:
    """The first peer that a policy without SAs is with, and what has kept it from them."""
    for peer in running.keying.peers.values():
        for name, policy in peer.policies.items():
            if not peer.pairs(name):
                settings = peer.settings
                return f"{settings.name} ({settings.esp.address} port {settings.esp.port})", policy.last_error or ""
    return None


# The configuration.


def adapted(configuration: Configuration, control: Path, device: DeviceKind | None = None) -> Configuration:
    """``configuration`` as it is without root: any free port, KINK over that, and every peer called at once.

    Args:
        configuration: of a file, or what a gateway lends.
        control: the control socket of this instance.
        device: instead of the configured kind.

    Raises:
        StartRefused: a peer has no address, so that it cannot be called.
    """
    unknown = [peer.name for peer in configuration.peers if not peer.address]
    if unknown:
        raise StartRefused(*(f"peer {name} has no address: `kinkvpn run` calls its peers" for name in unknown))
    tun = configuration.tun
    return replace(
        configuration,
        kink=replace(configuration.kink, over=KinkOver.ESP_PORT),
        esp=replace(configuration.esp, port=0),
        clear=ClearSettings(),  # there is no way past the tunnel, and so nothing to be kept from it
        tun=replace(tun, routes=True, device=device or tun.device),
        control=replace(configuration.control, socket=control),
        peers=tuple(map(_called, configuration.peers)),
    )


def _called(peer: PeerConfiguration) -> PeerConfiguration:
    policies = tuple(replace(policy, start=Start.BOOT) for policy in peer.policies)
    return replace(peer, kink_over=KinkOver.ESP_PORT, policies=policies)
