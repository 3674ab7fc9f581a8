"""Commands of the operator's, run when the host or a peer comes and goes; nothing of ours ever waits for one.

One after the other, in the order in which things happened: who has put a route there for a peer takes it away after
that, and not before. They are processes like any other of the daemon's account, with its rights.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
from collections import defaultdict, deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from kinkvpn.service.notify import VARIABLES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kinkvpn.config import HookSettings
    from kinkvpn.proto.peer import Peer

log = logging.getLogger(__name__)

# Ours. A thousand peers that come at once; what does not fit is told, and not run.
WAITING = 1024
# Ours. Of one peer: it has come and gone three times while the hooks of others ran. What it does after that waits in
# the last of its turns, and is not run where it is taken back: a peer that flaps leaves the queue to the others.
WAITING_OF_ONE = 6
# Ours. Of what a command writes the log gets so many lines, of so many octets: enough for what went wrong.
LINES, LINE_OCTETS = 20, 400
# Ours. Who is told to end, and has to tidy up; then it is killed, and whatever it has started.
END_SECONDS = 1.0
# Ours. What is still in the pipe when the command has ended; who it has left behind may hold it open for ever.
REST_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that hooks are for.

    Args:
        event: ``up``, ``down``, ``peer-up``, ``peer-down``.
        about: variables besides KINKVPN_EVENT, without their KINKVPN_ and in lower case.
    """

    event: str
    about: Mapping[str, str] = field(default_factory=dict)


def of_peer(peer: Peer, come: bool) -> Happening:
    """``peer`` has come, or gone."""
    policies = [policy.selector for policy in peer.settings.policies]
    about = {
        "peer": peer.settings.name,
        "peer_principal": peer.settings.principal,
        "peer_address": peer.contact.whereabouts.esp.address,
        "local": " ".join(dict.fromkeys(str(selector.local) for selector in policies)),
        "remote": " ".join(dict.fromkeys(str(selector.remote) for selector in policies)),
    }
    return Happening("peer-up" if come else "peer-down", about)


class _Turn:
    """What waits for its turn."""

    def __init__(self, happening: Happening) -> None:
        self.happening: Happening | None = happening
        self.about = happening.about
        self.spared = 0

    def takes(self, newer: Happening) -> bool:
        """Whether ``newer`` needs no turn of its own: the same peer is the other way again, with the same traffic."""
        if any(self.about.get(name) != newer.about.get(name) for name in ("peer_principal", "local", "remote")):
            return False
        back = self.happening is not None and self.happening.event != newer.event
        self.spared += 2 if back else self.happening is not None
        self.happening = None if back else newer
        return True


class Hooks:
    """What runs them.

    Args:
        settings: which.
        environment: of the daemon.
    """

    def __init__(self, settings: HookSettings, environment: Mapping[str, str]) -> None:
        self.change(settings)
        self._environment = {name: value for name, value in environment.items() if name not in VARIABLES}
        self._waiting, self._next = trio.open_memory_channel[_Turn](WAITING)
        self._turns: defaultdict[str, deque[_Turn]] = defaultdict(deque)  # that wait, by peer
        self._working, self._finished = trio.CancelScope(), trio.Event()

    def change(self, settings: HookSettings) -> None:
        """Other ones from now on; what runs goes on."""
        self._commands = {
            "up": settings.up,
            "down": settings.down,
            "peer-up": settings.peer_up,
            "peer-down": settings.peer_down,
        }
        self._timeout = settings.timeout

    def introduce(self, host: Mapping[str, str]) -> None:
        """What all of them are told, named as in :class:`Happening`."""
        self._environment |= _variables(host)

    def tell(self, happening: Happening) -> None:
        """Have the hook for it run, when those before it have; returns at once. After :meth:`finish` it is too late."""
        if not self._commands[happening.event]:
            return
        peer = happening.about.get("peer", "")
        turns = self._turns.get(peer)
        if turns and len(turns) >= WAITING_OF_ONE and turns[-1].takes(happening):
            return
        turn = _Turn(happening)
        try:
            self._waiting.send_nowait(turn)
            if peer:
                self._turns[peer].append(turn)
        except trio.ClosedResourceError:
            pass
        except trio.WouldBlock:
            fields = {"event": happening.event, "reason": f"{WAITING} are waiting", "peer": happening.about.get("peer")}
            log.warning("hook_left_out", extra={"fields": fields})

    async def run(self) -> None:
        """Run what there is to be run, until cancelled or :meth:`finish`."""
        with self._working:
            async for turn in self._next:
                await self._take(turn)
        self._finished.set()

    async def _take(self, turn: _Turn) -> None:
        peer = turn.about.get("peer", "")
        if peer:
            self._turns[peer].popleft()
            if not self._turns[peer]:
                del self._turns[peer]
        if turn.spared:
            log.info("hooks_spared", extra={"fields": {"peer": peer, "count": turn.spared}})
        if turn.happening is not None:
            await self.call(turn.happening)

    async def finish(self, last: Happening) -> None:
        """Have :meth:`run` end with ``last``, after what waits now: all of it within the time that one may take."""
        self.tell(last)
        self._waiting.close()
        self._working.deadline = trio.current_time() + self._timeout
        await self._finished.wait()

    async def call(self, happening: Happening) -> None:
        """Run the hook for it to its end, or to that of its time; what goes wrong is told, and no more."""
        command = self._commands[happening.event]
        if not command:
            return
        environment = self._environment | _variables({"event": happening.event, **happening.about})
        whose = {"peer": happening.about["peer"]} if "peer" in happening.about else {}
        about = {"command": command[0], **whose}
        outcome = await self._outcome(command, environment, about)
        fields = {"event": happening.event, **about}
        if outcome:
            log.warning("hook_failed", extra={"fields": fields | {"reason": outcome}})
        else:
            log.info("hook_done", extra={"fields": fields})

    async def _outcome(
        self, command: Sequence[str], environment: Mapping[str, str], about: Mapping[str, object]
    ) -> str:
        """Why it went wrong; empty if it did not."""
        try:
            process = await trio.lowlevel.open_process(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            return f"cannot be started: {error.strerror}"
        try:
            code = await self._watch(process, about)
        finally:
            await _end(process)
        if code is None:
            return f"still ran after {self._timeout:g} s, and was ended"
        return "" if code == 0 else f"signal {-code}" if code < 0 else f"exit code {code}"

    async def _watch(self, process: trio.Process, about: Mapping[str, object]) -> int | None:
        """Its exit code; None if it has none in time."""
        assert process.stdout is not None
        async with process.stdout, trio.open_nursery() as nursery:
            nursery.start_soon(_tell_output, process.stdout, about)
            with trio.move_on_after(self._timeout) as limit:
                await process.wait()
            nursery.cancel_scope.deadline = trio.current_time() + REST_SECONDS
        return None if limit.cancelled_caught else process.returncode


def _variables(named: Mapping[str, str]) -> dict[str, str]:
    return {f"KINKVPN_{name.upper()}": value for name, value in named.items()}


async def _end(process: trio.Process) -> None:
    """It, and whatever it has started and left in its session's first process group."""
    with trio.CancelScope(shield=True):
        if process.returncode is None:
            _kill(process, signal.SIGTERM)
            with trio.move_on_after(END_SECONDS):
                await process.wait()
        if process.returncode is None:
            _kill(process, signal.SIGKILL)
            await process.wait()


def _kill(process: trio.Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


async def _tell_output(stream: trio.abc.ReceiveStream, about: Mapping[str, object]) -> None:
    """Its lines to the log, the first ones; all the others are read and forgotten, for it not to wait for us."""
    left, rest = LINES, b""
    async for chunk in stream:
        if not left:
            continue
        *lines, rest = (rest + chunk).split(b"\n")
        rest = rest[:LINE_OCTETS]
        for line in lines[:left]:
            _tell_line(about, line)
        left = max(left - len(lines), 0)
        if not left:
            _tell_line(about, b"... and more")
    if rest and left:
        _tell_line(about, rest)


def _tell_line(about: Mapping[str, object], line: bytes) -> None:
    text = line[:LINE_OCTETS].decode(errors="replace")
    log.info("hook_said", extra={"fields": {**about, "line": text}})
