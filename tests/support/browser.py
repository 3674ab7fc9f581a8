"""A real browser without a window, and a way for it into a host's network namespace."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import contextmanager
from shutil import which
from typing import TYPE_CHECKING, Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from support.lab import within

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kinkvpn.demo.namespace import Namespace

CHROMIUM, CHROMEDRIVER = which("chromium"), which("chromedriver")
# Debian's Chromium as root, in a container with little of /dev/shm, and nothing fetched from anywhere.
ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--lang=en-GB",
)
ANSWER_SECONDS = 60


@contextmanager
def chromium(profile: Path, width: int = 1100, height: int = 1500) -> Iterator[webdriver.Chrome]:
    """One window of that many CSS pixels, which logs what its console says."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for argument in (*ARGUMENTS, f"--user-data-dir={profile}", f"--window-size={width},{height}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(CHROMEDRIVER))
    try:
        driver.set_page_load_timeout(ANSWER_SECONDS)
        driver.set_script_timeout(ANSWER_SECONDS)
        yield driver
    finally:
        driver.quit()


def resize(driver: webdriver.Chrome, width: int, height: int) -> None:
    """As a telephone of that many CSS pixels."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": True}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def prefer(driver: webdriver.Chrome, scheme: str) -> None:
    """As for somebody who has their desktop ``light`` or ``dark``."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def complaints(driver: webdriver.Chrome) -> list[dict[str, Any]]:
    """What the console has of errors since the last call: refusals by the policy, exceptions."""
    found: list[dict[str, Any]] = driver.get_log("browser")
    return [entry for entry in found if entry["level"] == "SEVERE"]


@contextmanager
def door(namespace: Namespace, port: int) -> Iterator[int]:
    """A port of 127.0.0.1 out here, behind which is ``port`` of 127.0.0.1 in there."""
    loop = asyncio.new_event_loop()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while octets := await reader.read(65536):
                writer.write(octets)
                await writer.drain()
        except ConnectionError:
            pass
        writer.close()

    async def visit(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner = within(namespace, socket.socket)
        inner.setblocking(False)
        try:
            await loop.sock_connect(inner, ("127.0.0.1", port))
        except ConnectionError:
            inner.close()
            writer.close()
            return
        inner_reader, inner_writer = await asyncio.open_connection(sock=inner)
        await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))

    server = loop.run_until_complete(asyncio.start_server(visit, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        asyncio.run_coroutine_threadsafe(_end(server), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _end(server: asyncio.Server) -> None:
    server.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
