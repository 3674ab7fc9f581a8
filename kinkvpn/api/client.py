"""A client of the API: blocking, for commands and for whatever else is not the daemon.

with Client(path) as daemon:
    print(daemon.status()["uptime"])
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from urllib.parse import quote

import httpx

from kinkvpn.api.control import CommandRefused, ControlUnavailable, connect, credentials

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from types import TracebackType

# Ours. How long a daemon may take: a probe or a rekey there waits ten seconds for the peer; this is for the way too.
ANSWER_SECONDS = 15.0


class Event(NamedTuple):
    """One of the daemon's: its id, its type ("message", or "lost" for those that came too fast), and what it says."""

    id: str
    type: str
    data: dict[str, Any]


class Client:
    """A daemon, by its control socket.

    Args:
        path: of the socket.
        timeout: seconds that an answer may take.

    Raises:
        NotRunning: nobody is there.
        ControlUnavailable: somebody is, and we may not ask, or there is no answer, or none of ours.
        CommandRefused: by any of the methods: the daemon said no, and why.
    """

    def __init__(self, path: Path, timeout: float = ANSWER_SECONDS) -> None:
        with connect(path, timeout) as connection:
            self.pid = credentials(connection).pid
        # Never verified: it is a Unix socket, and to load every certificate of the host takes longer than to ask.
        transport = httpx.HTTPTransport(uds=str(path), verify=False)
        self._http = httpx.Client(transport=transport, base_url="http://kinkvpn", timeout=timeout, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave."""
        self._http.close()

    def status(self) -> dict[str, Any]:
        """Everything."""
        return self.get("/v1/status")

    def get(self, path: str) -> dict[str, Any]:
        """What ``path`` tells."""
        return self._ask("GET", path)

    def post(self, path: str) -> dict[str, Any]:
        """What comes of ``path``."""
        return self._ask("POST", path)

    def events(self, after: str = "", *, follow: bool = True) -> Iterator[Event]:
        """Those that the daemon has kept and, with ``follow``, each that comes, without an end.

        Args:
            after: the id of an event, to go on behind it.
            follow: wait for more.
        """
        asked: Mapping[str, str] = {"follow": str(follow).lower(), **({"after": after} if after else {})}
        try:
            with self._http.stream("GET", "/v1/events", params=asked) as response:
                if response.is_error:
                    response.read()
                    raise CommandRefused(_reason(response))
                yield from _events(response.iter_lines())
        except httpx.HTTPError as error:
            raise _unavailable(error) from None

    def _ask(self, method: str, path: str) -> dict[str, Any]:
        try:
            response = self._http.request(method, path)
            if response.is_error:
                raise CommandRefused(_reason(response))
            answer = response.json()
        except httpx.HTTPError as error:
            raise _unavailable(error) from None
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise ControlUnavailable("the daemon answers in a language of its own")
        return answer


def peer_path(name: str) -> str:
    """Of a peer, whatever somebody has typed for its name."""
    return f"/v1/peers/{quote(name, safe='')}"


def _events(lines: Iterator[str]) -> Iterator[Event]:
    """As HTML §9.2.6 has it, of what the daemon sends: one line of data each."""
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if name:
            fields[name] = value
        elif line == "" and "data" in fields:
            yield Event(fields.get("id", ""), fields.get("event", "message"), json.loads(fields["data"]))
            fields = {}


def _reason(response: httpx.Response) -> str:
    """Of a problem (RFC 9457); the status where there is none, as of a request that was too long."""
    try:
        detail = response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = None
    return detail if isinstance(detail, str) else f"the daemon answered {response.status_code} {response.reason_phrase}"


def _unavailable(error: httpx.HTTPError) -> ControlUnavailable:
    if isinstance(error, httpx.TimeoutException):
        return ControlUnavailable("the daemon does not answer: timed out")
    return ControlUnavailable("the daemon ended before it answered")
