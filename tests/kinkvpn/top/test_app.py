"""The screen, in textual's own hands, with the real API of a simulated daemon behind it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from support.api import HOSTILE, Crowd, served
from support.screen import seen, shown

from kinkvpn.api.client import Client
from kinkvpn.terminal import printable
from kinkvpn.top.app import Top
from kinkvpn.top.look import Observer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.programs


def spis(path: Path) -> set[str]:
    with Client(path) as daemon:
        return {sa["spi"] for sa in daemon.get("/v1/sas")["sas"]}


def test_the_keys(tmp_path: Path) -> None:
    """It shows, sorts, filters, asks before it rekeys, and says what came of it."""

    async def at_the_keys(path: Path) -> None:
        top = Top(Observer(path), 0.1)
        async with top.run_test(size=(80, 24), notifications=True) as pilot:
            await seen(pilot, "1/2 tunnels up", "established", "idle", "Packets")
            for order in ("by name", "by state", "by rate", "by time left"):
                await pilot.press("s")
                await seen(pilot, order)
            await pilot.press("slash", *"established", "enter")
            await seen(pilot, "only 'established'")
            assert "idle" not in shown(pilot)
            await pilot.press("k")
            await seen(pilot, "New keys for every tunnel with east now?")
            before = spis(path)
            await pilot.press("n")
            assert spis(path) == before
            await pilot.press("k")
            await seen(pilot, "New keys for every tunnel")
            await pilot.press("y")
            await seen(pilot, "east: new keys for")
            assert spis(path) != before
            await pilot.press("escape")
            await seen(pilot, "idle")
            await pilot.press("2")
            await seen(pilot, "Dropped")
            assert "SPI" not in shown(pilot)
            await pilot.resize_terminal(160, 40)
            await seen(pilot, "SPI", "Dropped")

    with served(tmp_path / "k.sock") as path:
        asyncio.run(at_the_keys(path))


def test_it_outlives_the_daemon(tmp_path: Path) -> None:
    """Nobody there yet; somebody; nobody; another one."""
    path = tmp_path / "k.sock"

    async def through_it_all() -> None:
        async with Top(Observer(path), 0.1).run_test(size=(80, 24)) as pilot:
            for _ in range(2):
                await seen(pilot, "not running, trying again: no daemon is running")
                async with living():
                    await seen(pilot, "1/2 tunnels up", without="not running")
            await seen(pilot, "not running, trying again")

    @asynccontextmanager
    async def living() -> AsyncIterator[None]:
        """A daemon comes and goes in another thread, so that this one can look meanwhile."""
        daemon = served(path)
        await asyncio.to_thread(daemon.__enter__)
        try:
            yield
        finally:
            await asyncio.to_thread(daemon.__exit__, None, None, None)

    asyncio.run(through_it_all())


def test_names_are_no_markup_and_move_no_cursor(tmp_path: Path) -> None:
    """Of a peer, in every place that has one; nor is what somebody types to filter by."""
    plain = printable(HOSTILE)

    async def look(path: Path) -> None:
        async with Top(Observer(path), 0.1).run_test(size=(400, 40), notifications=True) as pilot:
            await seen(pilot, f"{plain}  ", "guest_came peer=<img src=x", "1/2 tunnels up")
            assert shown(pilot).replace("\n", "").isprintable()
            await pilot.press("k")
            await seen(pilot, "New keys for every tunnel with other now?")
            await pilot.press("n", "down", "k")
            await seen(pilot, "[link=http://evil]y[/nope]")
            await pilot.press("y")
            await seen(pilot, ": new keys for")
            await pilot.press("slash", *"[/nope]", "enter")
            await seen(pilot, "only '[/nope]'")

    daemon = Crowd([HOSTILE, "other"])
    with served(tmp_path / "k.sock", lambda: daemon) as path:
        asyncio.run(look(path))


@pytest.mark.parametrize(
    ("peers", "words"), [(0, ("0/0 tunnels up", "no tunnels")), (200, ("199/200", "o199    down"))]
)
def test_80_columns_have_room_for_nobody_and_for_many(tmp_path: Path, peers: int, words: tuple[str, ...]) -> None:
    async def look(path: Path) -> None:
        async with Top(Observer(path), 0.1).run_test(size=(80, 24)) as pilot:
            await seen(pilot, *words, "Tunnel  State" if not peers else "Tunnel", "SPI", "q quit")

    daemon = Crowd([f"o{number}" for number in range(peers)])
    with served(tmp_path / "k.sock", lambda: daemon) as path:
        asyncio.run(look(path))
