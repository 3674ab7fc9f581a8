"""The paths of the API over a daemon that is up: each operation, its answer, and what is refused."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import trio
from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from kinkvpn import __version__
from kinkvpn.api.answers import (
    Counters,
    Established,
    Peer,
    Peers,
    Policies,
    PolicyOfPeer,
    Probed,
    Problem,
    Reloaded,
    Sas,
    Status,
    Stopping,
)
from kinkvpn.api.events import UnknownPlace, place
from kinkvpn.api.rows import in_turns
from kinkvpn.api.schema import PROBLEM_TYPE, Operation, document
from kinkvpn.errors import KinkvpnError
from kinkvpn.metrics import exposition
from kinkvpn.web import pages
from kinkvpn.web.hosts import OnlyHosts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence

    from starlette.requests import Request

    from kinkvpn.api.answers import NegotiatedPolicy, Sa
    from kinkvpn.api.events import Events

log = logging.getLogger(__name__)


class Refusal(KinkvpnError):
    """What cannot be done for a reason that HTTP has a status for (RFC 9110 §15)."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Daemon(Protocol):
    """What is asked of the daemon: ``service.running.Running``. Whatever raises KinkvpnError has refused."""

    @property
    def events(self) -> Events: ...
    @property
    def peers(self) -> Collection[str]: ...
    def counters(self) -> Counters: ...
    async def status(self) -> Status: ...
    async def peer(self, name: str) -> Peer: ...
    async def sas(self) -> list[Sa]: ...
    async def probe(self, peer: str) -> float: ...
    async def rekey(self, peer: str | None) -> list[NegotiatedPolicy]: ...
    async def up(self, peer: str) -> list[NegotiatedPolicy]: ...
    async def down(self, peer: str) -> None: ...
    async def reload(self) -> Reloaded: ...
    async def stop(self) -> int: ...


# The operations. Their documentation is the API's.


async def status(daemon: Daemon, _asked: Request) -> Status:
    """Everything: the daemon, its peers, their policies, and what was counted."""
    return await daemon.status()


async def peers(daemon: Daemon, _asked: Request) -> Peers:
    """Every peer that is configured, with its policies."""
    return {"peers": (await daemon.status())["peers"]}


async def peer(daemon: Daemon, asked: Request) -> Peer:
    """One peer, with its policies."""
    return await daemon.peer(_named(daemon, asked))


async def policies(daemon: Daemon, _asked: Request) -> Policies:
    """The policies of every peer: their state, the newest of their SAs, and why there is none."""
    status = await daemon.status()

    def rows() -> Iterator[PolicyOfPeer]:
        for each in status["peers"]:
            for policy in each["policies"]:
                yield {**policy, "peer": each["name"]}

    return {"policies": await in_turns(rows())}


async def sas(daemon: Daemon, _asked: Request) -> Sas:
    """Every SA that the data plane has, old ones that live on for a moment among them. No keys."""
    return {"sas": await daemon.sas()}


async def counters(daemon: Daemon, _asked: Request) -> Counters:
    """What was counted since the start. None of it ever goes back."""
    return daemon.counters()


async def metrics(daemon: Daemon, asked: Request) -> Response:
    """What was counted, and how things stand, for Prometheus: as OpenMetrics for whoever accepts that, else as text."""
    status, accept = await daemon.status(), asked.headers.get("accept", "")
    # The library writes all of it at once: a second and a half of 4,096 policies, in which others have turns this way.
    body, content_type = await trio.to_thread.run_sync(exposition, status, accept)
    return Response(body, headers={"Content-Type": content_type})


async def events(daemon: Daemon, asked: Request) -> Response:
    """Server-sent events: the newest thousand of the daemon's log, and each that comes.

    Of each the data is a JSON object: `event` is its name, `time` and `level` are those of the log, and the rest is
    what the event is about. A reader who is too slow loses the oldest, and is told by one of the type `lost` how many.
    """
    behind = asked.query_params.get("after") or asked.headers.get("last-event-id")
    follow = asked.query_params.get("follow", "true")
    if follow not in ("true", "false"):
        raise Refusal(HTTPStatus.BAD_REQUEST, f"follow is true or false, not {follow[:40]!r}")
    try:
        found = daemon.events.follow(place(behind) if behind else None, on=follow == "true" and asked.method == "GET")
    except UnknownPlace as error:
        raise Refusal(HTTPStatus.BAD_REQUEST, str(error)) from None
    return StreamingResponse(found, media_type="text/event-stream", headers={"Cache-Control": "no-store"})


async def probe(daemon: Daemon, asked: Request) -> Probed:
    """Ask a peer for its STATUS now; answers once it has."""
    name = _named(daemon, asked)
    return {"peer": name, "seconds": await daemon.probe(name)}


async def rekey(daemon: Daemon, asked: Request) -> Established:
    """Replace the pairs of SAs with a peer by new ones; answers once they stand.

    No packet is lost. Where the peer does not agree the old pair stays, and that is refused.
    """
    return {"policies": await daemon.rekey(_named(daemon, asked))}


async def rekey_all(daemon: Daemon, _asked: Request) -> Established:
    """Replace the pairs of SAs with every peer by new ones, as for one of them."""
    return {"policies": await daemon.rekey(None)}


async def up(daemon: Daemon, asked: Request) -> Established:
    """Make the pairs of SAs with a peer that there are not, now; answers once they stand.

    It ends what down began. Where one cannot be made that is refused, and goes on by itself as configured.
    """
    return {"policies": await daemon.up(_named(daemon, asked))}


async def down(daemon: Daemon, asked: Request) -> Peer:
    """Delete the pairs of SAs with a peer, and have it so until up, or the daemon's next start.

    No packet and no command of the peer brings one back before. Answers at once, with how the peer stands.
    """
    await daemon.down(_named(daemon, asked))
    return await peer(daemon, asked)


async def reload(daemon: Daemon, _asked: Request) -> Reloaded:
    """Read the configuration again; answers once what was changed in it is changed here.

    Peers that are not in the change lose no packet. Where something in it is wrong, or takes a restart, nothing
    changes, and that is refused with a line for each reason.
    """
    return await daemon.reload()


async def stop(daemon: Daemon, _asked: Request) -> Stopping:
    """Delete every SA, undo addresses and routes and end; answers before that is done."""
    return {"pid": await daemon.stop()}


async def openapi(_daemon: Daemon, _asked: Request) -> dict[str, Any]:
    """This document."""
    return document(OPERATIONS, __version__)


def _named(daemon: Daemon, asked: Request) -> str:
    """The peer that was named. Raises Refusal."""
    name = str(asked.path_params["name"])
    if name not in daemon.peers:
        raise Refusal(HTTPStatus.NOT_FOUND, f"no peer {name!r}; there are {', '.join(daemon.peers) or 'none'}")
    return name


_EVENT_ID = {"type": "string", "pattern": "^[0-9a-f]{1,16}-[0-9]{1,15}$"}
_FOLLOWING = (
    {"name": "Last-Event-ID", "in": "header", "description": "go on behind this event", "schema": _EVENT_ID},
    {"name": "after", "in": "query", "description": "the same, before Last-Event-ID", "schema": _EVENT_ID},
    {
        "name": "follow",
        "in": "query",
        "description": "false ends the stream at the newest event",
        "schema": {"type": "string", "enum": ["true", "false"], "default": "true"},
    },
)

OPERATIONS: tuple[Operation, ...] = (
    Operation("GET", "/v1/status", status, Status),
    Operation("GET", "/v1/peers", peers, Peers),
    Operation("GET", "/v1/peers/{name}", peer, Peer),
    Operation("GET", "/v1/policies", policies, Policies),
    Operation("GET", "/v1/sas", sas, Sas),
    Operation("GET", "/v1/counters", counters, Counters),
    Operation("GET", "/metrics", metrics, "text/plain"),
    Operation("GET", "/v1/events", events, "text/event-stream", _FOLLOWING),
    Operation("POST", "/v1/peers/{name}/probe", probe, Probed),
    Operation("POST", "/v1/peers/{name}/rekey", rekey, Established),
    Operation("POST", "/v1/peers/{name}/up", up, Established),
    Operation("POST", "/v1/peers/{name}/down", down, Peer),
    Operation("POST", "/v1/rekey", rekey_all, Established),
    Operation("POST", "/v1/reload", reload, Reloaded),
    Operation("POST", "/v1/stop", stop, Stopping),
    Operation("GET", "/v1/openapi.json", openapi, dict[str, Any]),
)


class PeerName(Convertor[str]):
    """Has no slash, but for a principal's, which are before its realm: people are peers by their principals."""

    regex = "[^@]+@[^/@]+|[^/]+"

    def convert(self, value: str) -> str:
        """As it is."""
        return value

    def to_string(self, value: str) -> str:
        """As it is."""
        return value


register_url_convertor("peer", PeerName())


def application(daemon: Daemon, operations: Sequence[Operation] = OPERATIONS) -> Starlette:
    """The operations and the status page. A connection's ``state`` says whether its client ``may_change`` things."""
    routes = [
        Route(one.path.replace("{name}", "{name:peer}"), _endpoint(one, daemon), methods=[one.method])
        for one in operations
    ]
    return Starlette(routes=[*routes, *pages.routes()], exception_handlers={HTTPException: _not_there})


def onlookers_application(daemon: Daemon, hosts: Collection[str]) -> OnlyHosts:
    """For whoever comes by TCP: what only tells, and only to those who ask by a name of ours.

    Args:
        daemon: to look at.
        hosts: names of this host, besides its addresses and localhost.
    """
    return OnlyHosts(application(daemon, [one for one in OPERATIONS if one.method == "GET"]), hosts)


def _endpoint(operation: Operation, daemon: Daemon) -> Callable[[Request], Awaitable[Response]]:
    """What goes wrong in what only tells or asks must not take the tunnels down with it.

    What tells is made for one client at a time: of thousands of policies it takes ten megabytes until it is text.
    """
    alone = trio.Lock()

    async def answer(asked: Request) -> Response:
        try:
            if operation.method == "GET":
                async with alone:
                    found = await operation.run(daemon, asked)
                    return found if isinstance(found, Response) else _json(found)
            _may_change(asked)
            return _json(await operation.run(daemon, asked))
        except Refusal as refusal:
            return problem(refusal.status, str(refusal))
        except KinkvpnError as error:
            return problem(HTTPStatus.CONFLICT, str(error))
        except Exception:
            log.exception("command_failed", extra={"fields": {"command": operation.run.__name__}})
            reason = f"{operation.run.__name__} failed; the daemon's log has the reason"
            return problem(HTTPStatus.INTERNAL_SERVER_ERROR, reason)

    return answer


def _json(found: object) -> Response:
    return Response(msgspec.json.encode(found), media_type="application/json")


def _may_change(asked: Request) -> None:
    """Raises Refusal.

    Somebody may have brought the socket to a port of theirs (``ssh -L``) and look at the status page there. A page from
    anywhere can have their browser send a POST to that port, and with it the browser sends Origin (Fetch §3.2). Our own
    page changes nothing, so nobody misses it.
    """
    if not asked.scope.get("state", {}).get("may_change"):
        raise Refusal(HTTPStatus.FORBIDDEN, "you may look, and not change anything")
    if "origin" in asked.headers:
        raise Refusal(HTTPStatus.FORBIDDEN, "a browser may look, and not change anything")


async def _not_there(asked: Request, error: Exception) -> Response:
    """No such path, or no such method of it."""
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    reason = f"{asked.method} {asked.url.path}: {status.phrase}; GET /v1/openapi.json says what there is"
    return problem(status, reason, dict(error.headers or {}))


def problem(status: HTTPStatus, reason: str, headers: dict[str, str] | None = None) -> Response:
    """What was not done, and why (RFC 9457)."""
    content: Problem = {"type": "about:blank", "title": status.phrase, "status": int(status), "detail": reason}
    return Response(msgspec.json.encode(content), status, headers, media_type=PROBLEM_TYPE)
