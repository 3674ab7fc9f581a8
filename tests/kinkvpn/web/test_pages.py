"""The files of the page: all that it names is there, and nothing is from elsewhere."""

from __future__ import annotations

import re
from importlib.resources import files

import httpx
import pytest
from starlette.applications import Starlette

from kinkvpn.web.pages import PAGES, POLICY, routes


@pytest.mark.parametrize(("path", "name", "kind"), PAGES)
async def test_each_file_is_sent_as_what_it_is(path: str, name: str, kind: str) -> None:
    transport = httpx.ASGITransport(Starlette(routes=list(routes())))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        answer = await client.get(path)
        refused = await client.post(path)
    assert answer.content == files("kinkvpn.web").joinpath(name).read_bytes()
    assert answer.headers["content-type"].partition(";")[0] == kind
    assert answer.headers["content-security-policy"] == POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert refused.status_code == 405


def test_nothing_is_loaded_from_elsewhere_and_nothing_is_inline() -> None:
    page = files("kinkvpn.web").joinpath("status.html").read_text()
    named = set(re.findall(r'(?:src|href)="([^"]*)"', page))
    assert {f"/{name.lstrip('/')}" for name in named} - {"/metrics", "/v1/status"} == {path for path, _, _ in PAGES[1:]}
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", page), "the policy lets none of these run"
    for _, name, _ in PAGES:
        text = files("kinkvpn.web").joinpath(name).read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|//\w+\.", text), name
    assert "innerHTML" not in files("kinkvpn.web").joinpath("status.js").read_text()
