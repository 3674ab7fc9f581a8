"""Which names the page may be asked by: a name that somebody else resolves to this host is none of them.

A web page from anywhere can have its own name resolved to 127.0.0.1 (DNS rebinding), and its script would then read
what a browser on this host may read. The browser sends that name as Host.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from starlette.responses import PlainTextResponse

if TYPE_CHECKING:
    from collections.abc import Collection

    from starlette.types import ASGIApp, Receive, Scope, Send

LOCALHOST = "localhost"
REFUSAL = "asked by a name that is not ours; [metrics] hosts lists those that are, besides addresses and localhost\n"


class OnlyHosts:
    """Passes on what is asked by an address, by localhost or by one of ``names``; others get 421 (RFC 9110 §15.5.20).

    Args:
        app: that gets the rest.
        names: in lower case.
    """

    def __init__(self, app: ASGIApp, names: Collection[str] = ()) -> None:
        self._app = app
        self.known_as(names)

    def known_as(self, names: Collection[str]) -> None:
        """By these, and no others any more."""
        self._names = {LOCALHOST, *names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        hosts = [value.decode("latin-1") for name, value in scope.get("headers", ()) if name == b"host"]
        if scope["type"] == "http" and not (len(hosts) == 1 and self._ours(hosts[0])):
            await PlainTextResponse(REFUSAL, 421)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _ours(self, host: str) -> bool:
        name = host_name(host)
        if name in self._names:
            return True
        try:
            ip_address(name)
        except ValueError:
            return False
        return True  # nobody resolves an address


def host_name(host: str) -> str:
    """Of a Host field (RFC 9110 §7.2), without its port, in lower case."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].rstrip(".").lower()
