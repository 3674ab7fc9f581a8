"""The files of the page: all that it names is there, and nothing is from elsewhere."""

from __future__ import annotations

import re
import socket
from contextlib import contextmanager
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio
from selenium.webdriver.support.ui import WebDriverWait
from starlette.applications import Starlette
from support.api import HOSTILE, Crowd, looping, served_on
from support.browser import chromium

from kinkvpn.web.pages import PAGES, POLICY, routes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from selenium import webdriver

PATIENCE = 60.0  # of a browser that asks every two seconds, on a busy machine


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


def until(driver: webdriver.Chrome, script: str) -> Any:
    """What ``script`` gives as soon as it is true."""
    return WebDriverWait(driver, PATIENCE, 0.1).until(lambda _: driver.execute_script(f"return {script}"))


@contextmanager
def shown(names: list[str], profile: Path) -> Iterator[webdriver.Chrome]:
    """The page of a daemon with those peers, in a browser."""
    listener, daemon = socket.create_server(("127.0.0.1", 0)), Crowd(names)

    async def live(ready: Callable[[], None]) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(served_on, listener, daemon)
            ready()

    port = listener.getsockname()[1]
    with looping(live), chromium(profile) as driver:
        driver.get(f"http://127.0.0.1:{port}/")
        until(driver, "document.querySelector('#about dd')")
        yield driver


@pytest.mark.programs
def test_names_are_text_and_tables_are_bounded(tmp_path: Path) -> None:
    """Of a peer, which may be a principal that came from the network; and what is down is on top of however many."""
    names = [HOSTILE, *(f"peer{number}" for number in range(600))]
    with shown(names, tmp_path / "profile") as driver:
        first = until(driver, "[...document.querySelectorAll('#peers tbody tr')].map(row => row.cells[0].textContent)")
        assert first[:2] == [names[-1], HOSTILE]
        assert len(first) == 500
        assert driver.execute_script("return document.querySelector('#more-sas').textContent").startswith("700 more: ")
        until(driver, "document.querySelector('#events li')?.textContent.includes('onerror=alert(1)')")
        assert driver.execute_script("return document.images.length + document.links.length") == 2, "ours"
        title = driver.execute_script("return document.title")
        assert title == "600/601 – kinkvpn"  # noqa: RUF001 # as the page has it
        refused = [entry for entry in driver.get_log("browser") if "Content Security Policy" in entry["message"]]
        assert refused == [], "nothing has even tried"


@pytest.mark.programs
def test_a_daemon_without_peers_says_so(tmp_path: Path) -> None:
    with shown([], tmp_path / "profile") as driver:
        assert until(driver, "document.querySelector('#no-peers').checkVisibility()")
        assert driver.execute_script("return document.querySelector('#peers').hidden")
