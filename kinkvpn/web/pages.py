"""The files of the status page. It asks ``/v1`` like any client, and loads nothing from anywhere else."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Final

from starlette.responses import Response
from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

# CSP level 3. A word of a peer's that became part of the page would still run nothing, and reach nobody.
POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
PAGES: Final = (
    ("/", "status.html", "text/html"),
    ("/status.css", "status.css", "text/css"),
    ("/status.js", "status.js", "text/javascript"),
    ("/status.svg", "status.svg", "image/svg+xml"),
)


def routes() -> list[Route]:
    """One for each file; all of them are read now, and not again."""
    return [Route(path, _sends(files("kinkvpn.web").joinpath(name).read_bytes(), kind)) for path, name, kind in PAGES]


def _sends(content: bytes, kind: str) -> Callable[[Request], Awaitable[Response]]:
    async def answer(_asked: Request) -> Response:
        return Response(content, media_type=kind, headers=HEADERS)

    return answer
