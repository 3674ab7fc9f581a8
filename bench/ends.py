"""One end of the traffic of a soak: TCP and UDP, both ways at once, IPv4 and IPv6, each octet known to both ends.

``python -m bench.ends FILE`` inside the namespace of a host; FILE is an :class:`End` as JSON. It says ``{"ready": ..}``
when it listens and begins at a line of input; tells how far it is until all TCP is through (``{"halves": ..}``). At the
next line it sends no more datagrams, and says how many there were (``{"sent": ..}``); the line after that has how many
the other end has sent, and when those are here, or nothing comes any more, it says what arrived (``{"tallies": ..}``).
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.stream import (
    BUFFER_OCTETS,
    SILENCE_SECONDS,
    SO_RCVBUFFORCE,
    Datagrams,
    Half,
    Stream,
    Tally,
    patient,
    receive,
    send,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
TCP_PORT, UDP_PORT = 5001, 5002
INDEX: Final = struct.Struct("!H")
REPORT_SECONDS: Final = 0.25
# Nothing has come for so long: what is missing is lost. Two retransmission timeouts of a machine that is busy.
LOST_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class End:
    """What one end is told.

    Args:
        name, peer: of this host and of the other: names of the streams.
        addresses: this end's and the other's, by IP version (as text: JSON has no other keys).
        seed: of all content.
        octets: of every TCP connection.
        connections: each way, of every IP version.
        datagrams_per_s: each way, of every IP version.
    """

    name: str
    peer: str
    addresses: dict[str, tuple[str, str]]
    seed: int
    octets: int
    connections: int
    datagrams_per_s: float

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> End:
        return cls(**json.loads(text))

    def stream(self, source: str, version: str, index: int) -> Stream:
        """Of the connection of that number from ``source``."""
        return Stream(self.seed, f"{source} {version} {index}")

    def datagrams(self, source: str, version: str) -> Datagrams:
        """Likewise."""
        return Datagrams(self.seed, f"{source} {version}")


@dataclass(slots=True)
class Work:
    """A half, whose it is, and how it went wrong, if it did."""

    sends: bool
    version: str
    index: int
    half: Half
    failure: str | None = None


class Traffic:
    """All that one end does; a context manager."""

    def __init__(self, end: End) -> None:
        self._end = end
        self._held = ExitStack()
        self._ended, self._enough = threading.Event(), threading.Event()
        self.halves = [
            Work(sends, version, index, Half())
            for version in end.addresses
            for index in range(end.connections)
            for sends in (True, False)
        ]
        self.sent = dict.fromkeys(end.addresses, 0)
        self.tallies = {version: Tally() for version in end.addresses}
        self._listeners = {version: self._listen(version) for version in end.addresses}
        self._links = {version: self._bind(version) for version in end.addresses}
        self._streams: list[threading.Thread] = []
        self._senders: list[threading.Thread] = []
        self._receivers: list[threading.Thread] = []

    def _listen(self, version: str) -> socket.socket:
        here, _ = self._end.addresses[version]
        listener = socket.create_server((here, TCP_PORT), family=FAMILIES[int(version)], backlog=self._end.connections)
        return self._held.enter_context(patient(listener))

    def _bind(self, version: str) -> socket.socket:
        here, there = self._end.addresses[version]
        link = self._held.enter_context(socket.socket(FAMILIES[int(version)], socket.SOCK_DGRAM))
        link.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_OCTETS)
        link.bind((here, UDP_PORT))
        link.connect((there, UDP_PORT))
        return link

    def start(self) -> None:
        """Begin with everything."""
        self._streams = [
            *(thread(self._send, work) for work in self.halves if work.sends),
            *(thread(self._accept, version) for version in self._listeners),
        ]
        self._receivers = [thread(self._receive_datagrams, version) for version in self._links]
        self._senders = [thread(self._send_datagrams, version) for version in self._links]

    @property
    def streaming(self) -> bool:
        return any(each.is_alive() for each in self._streams)

    @property
    def octets(self) -> int:
        return sum(work.half.octets for work in self.halves if not work.sends)

    def end_datagrams(self) -> None:
        """Send no more of them."""
        self._ended.set()
        for each in self._senders:
            each.join()

    def wait_for(self, sent: dict[str, int]) -> None:
        """Until so many datagrams of each IP version have come, or none comes any more."""
        before, since = -1, time.monotonic()
        while any(self.tallies[version].received < count for version, count in sent.items()):
            now, received = time.monotonic(), sum(tally.received for tally in self.tallies.values())
            if received != before:
                before, since = received, now
            if now - since > LOST_SECONDS:
                break
            time.sleep(REPORT_SECONDS / 10)
        self._enough.set()
        for each in self._receivers:
            each.join()

    def _works(self, version: str, *, sends: bool) -> list[Work]:
        """By their index."""
        return [work for work in self.halves if work.version == version and work.sends is sends]

    def _send(self, work: Work) -> None:
        with blaming([work]), ExitStack() as held:
            here, there = self._end.addresses[work.version]
            connection = held.enter_context(
                socket.create_connection((there, TCP_PORT), SILENCE_SECONDS, source_address=(here, 0))
            )
            connection.settimeout(None)
            patient(connection).sendall(INDEX.pack(work.index))
            send(connection, self._end.stream(self._end.name, work.version, work.index), self._end.octets, work.half)

    def _accept(self, version: str) -> None:
        works = self._works(version, sends=False)
        receivers = []
        with blaming(works):
            for _ in works:
                connection, _ = self._listeners[version].accept()
                (index,) = INDEX.unpack(patient(connection).recv(INDEX.size, socket.MSG_WAITALL))
                receivers.append(thread(self._receive, works[index], connection))
        for each in receivers:
            each.join()

    def _receive(self, work: Work, connection: socket.socket) -> None:
        with blaming([work]), connection:
            stream = self._end.stream(self._end.peer, work.version, work.index)
            receive(connection, stream, self._end.octets, work.half)

    def _send_datagrams(self, version: str) -> None:
        with blaming(self._works(version, sends=True)):
            datagrams = self._end.datagrams(self._end.name, version)
            self.sent[version] = datagrams.send(self._links[version], self._end.datagrams_per_s, self._ended)

    def _receive_datagrams(self, version: str) -> None:
        with blaming(self._works(version, sends=False)):
            datagrams = self._end.datagrams(self._end.peer, version)
            datagrams.receive(self._links[version], self.tallies[version], self._enough.is_set)

    def __enter__(self) -> Traffic:
        return self

    def __exit__(self, *error: object) -> None:
        self._held.close()


@contextmanager
def blaming(works: list[Work]) -> Iterator[None]:
    """What goes wrong in the block is written down in each of ``works``."""
    try:
        yield
    except Exception as error:  # whatever it is, the run has failed, and everybody is to know why
        for work in works:
            work.failure = work.failure or f"{type(error).__name__}: {error}"


def thread(target: Callable[..., None], *arguments: object) -> threading.Thread:
    """One that has been started, and does not keep the process."""
    made = threading.Thread(target=target, args=arguments, daemon=True)
    made.start()
    return made


def main(path: str) -> None:
    """Be the end that the file describes."""

    def say(**words: object) -> None:
        print(json.dumps(words), flush=True)

    with Traffic(End.from_json(Path(path).read_text())) as traffic:
        say(ready=True)
        sys.stdin.readline()
        traffic.start()
        while traffic.streaming:
            say(octets=traffic.octets)
            time.sleep(REPORT_SECONDS)
        say(halves=[asdict(work) for work in traffic.halves])
        sys.stdin.readline()
        traffic.end_datagrams()
        say(sent=traffic.sent)
        traffic.wait_for(json.loads(sys.stdin.readline()))
        say(tallies={version: told(tally) for version, tally in traffic.tallies.items()})


def told(tally: Tally) -> dict[str, int]:
    """What of it goes to the other process."""
    return {name: getattr(tally, name) for name in ("received", "altered", "repeated", "reordered")}


if __name__ == "__main__":
    main(sys.argv[1])
