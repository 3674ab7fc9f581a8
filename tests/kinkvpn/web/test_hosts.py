"""Who may ask by which name: rebinding is refused, and so is a request that hides its name."""

from __future__ import annotations

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from kinkvpn.web.hosts import OnlyHosts, host_name


async def _yes(_asked: object) -> PlainTextResponse:
    return PlainTextResponse("yes")


async def ask(headers: list[tuple[str, str]], *names: str) -> int:
    transport = httpx.ASGITransport(OnlyHosts(Starlette(routes=[Route("/", _yes)]), names))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        return (await client.get("/", headers=headers)).status_code


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.0.0.1:9910", "[::1]:9910", "[::1]", "localhost:9910", "LOCALHOST", "192.0.2.1:80", "gw.test."],
)
async def test_addresses_localhost_and_our_names(host: str) -> None:
    assert await ask([("Host", host)], "gw.test") == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example:9910", "127.0.0.1.evil.example", "", "[evil]"]
)
async def test_any_other_name(host: str) -> None:
    assert await ask([("Host", host)], "gw.test") == 421


async def test_two_names_are_no_name() -> None:
    assert await ask([("Host", "127.0.0.1"), ("Host", "evil.example")]) == 421


@pytest.mark.parametrize(
    ("host", "name"), [("A.b:80", "a.b"), ("[::1]:80", "::1"), ("a.", "a"), ("", ""), ("[", ""), (":80", "")]
)
def test_names(host: str, name: str) -> None:
    assert host_name(host) == name


async def test_names_become_others() -> None:
    app = OnlyHosts(Starlette(routes=[Route("/", _yes)]), ["gw.test"])
    app.known_as(["other.test"])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
        answers = [(await client.get("/", headers={"Host": name})).status_code for name in ("gw.test", "other.test")]
    assert answers == [421, 200]
