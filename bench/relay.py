"""The path with faults between two devices of a namespace: relay.c, compiled when it is needed."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kinkvpn.demo.namespace import LabFailed

if TYPE_CHECKING:
    from kinkvpn.demo.namespace import Namespace

SOURCE: Final = Path(__file__).with_name("relay.c")
MILLION: Final = 1_000_000
END_SECONDS: Final = 30.0  # it ends within a millisecond of being told


@dataclass(frozen=True, slots=True)
class Odds:
    """Fractions of the frames of each direction that are lost, held back for up to 48 others, and repeated."""

    lost: float = 0.0
    held: float = 0.0
    repeated: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.lost or self.held or self.repeated)


@dataclass(frozen=True, slots=True)
class Passed:
    """What became of the packets of ESP of one direction, counted singly where frames are runs of them.

    ``others_lost`` are frames, KINK's; ``refused`` and ``overrun`` those that nobody meant to lose, of whatever kind.
    """

    packets: int
    lost: int
    held: int
    repeated: int
    others_lost: int
    refused: int
    overrun: int


class Relay:
    """Carries frames from here to :meth:`end`.

    Args:
        namespace: has both devices, up.
        devices: left and right.
        seed: of what is lost, held and repeated.
        directory: for the program; the caller removes it.

    Raises:
        LabFailed: no C compiler, or the program does not start.
    """

    def __init__(
        self, namespace: Namespace, devices: tuple[str, str], odds: Odds, *, seed: int, directory: Path
    ) -> None:
        numbers = (seed, *(round(each * MILLION) for each in (odds.lost, odds.held, odds.repeated)))
        self._process = subprocess.Popen(  # noqa: S603 - a list of arguments, no shell
            [*namespace.prefix, str(compiled(directory)), *devices, *map(str, numbers)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            _, said = self._process.communicate()
            raise LabFailed(f"the relay does not start: {said.strip()}", host=namespace.name)

    def end(self) -> tuple[Passed, Passed]:
        """Left to right, and right to left."""
        try:
            said, _ = self._process.communicate(timeout=END_SECONDS)
            there, back = (Passed(**json.loads(line)) for line in said.splitlines())
        except (subprocess.TimeoutExpired, ValueError):
            raise LabFailed("the relay did not say what it did") from None
        finally:
            self.kill()
        return there, back

    def kill(self) -> None:
        """If it still runs."""
        self._process.kill()
        self._process.communicate()


def compiled(directory: Path, source: Path = SOURCE) -> Path:
    """The program, in ``directory``. Raises LabFailed."""
    compiler, program = shutil.which("cc"), directory / source.stem
    if compiler is None:
        raise LabFailed("no C compiler for the relay: apt-get install gcc")
    flags = ("-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-pthread")
    command = [compiler, *flags, "-o", str(program), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - likewise
    if done.returncode:
        raise LabFailed(f"the relay does not compile: {done.stderr.strip()}")
    return program
