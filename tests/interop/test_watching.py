"""What is to be seen of two real daemons that carry traffic, are rekeyed, restart and go."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from contextlib import contextmanager
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from selenium.webdriver.support.ui import WebDriverWait
from support.browser import chromium, complaints, door, prefer, resize
from support.lab import command, control_socket, events, policy, start, status, wait

from kinkvpn.demo.lab import Host, Lab, kinkvpn
from kinkvpn.metrics import exposition
from kinkvpn.top.app import Top
from kinkvpn.top.look import Observer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from selenium import webdriver

pytestmark = [pytest.mark.root, pytest.mark.kdc]


def series(host: Host) -> dict[tuple[str, tuple[str, ...]], float]:
    """Everything that a collector gets of the host's daemon now."""
    text, _ = exposition(status(host))
    if which("promtool"):
        checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
        assert (checked.returncode, checked.stdout) == (0, b"")
    families = text_string_to_metric_families(text.decode())
    return {(one.name, tuple(one.labels.values())): one.value for family in families for one in family.samples}


def counting(found: dict[tuple[str, tuple[str, ...]], float]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Those that a collector takes the rate of."""
    return (key for key in found if key[0].endswith(("_total", "_bucket", "_count", "_sum")))


def talk(lab: Lab, source: Host, target: Host) -> None:
    """Pings until something has gone both ways through the SAs of now."""
    a, _ = lab.hosts
    before = policy(a, "b/1")
    with source.namespace.spawn(
        ["ping", "-n", "-i", "0.05", target.site.inner_address(4)], stdout=subprocess.DEVNULL
    ) as pings:
        try:
            for way in ("packets_in", "packets_out"):
                wait(lab, source, lambda way=way: policy(a, "b/1")[way] > before[way], f"carries no {way}")
        finally:
            pings.kill()


def test_nothing_that_counts_goes_back_when_keys_and_peers_do(lab: Lab) -> None:
    """A rekey from here, one from there, a peer that is killed and comes again: what was carried stays carried."""
    a, b = lab.hosts
    start(lab)
    name = "kinkvpn_policy_packets_total", ("out", "b", "b/1")
    down = series(a)
    assert (down["kinkvpn_policy_up", ("b", "b/1")], down[name]) == (0, 0)
    talk(lab, a, b)
    seen = [series(a)]
    up = seen[0]
    assert up["kinkvpn_policy_up", ("b", "b/1")] == up["kinkvpn_peer_up", ("b",)] == 1
    assert up["kinkvpn_exchange_duration_seconds_count", ("create",)] >= 1
    assert up["kinkvpn_policy_sa_seconds_left", ("b", "b/1")] > 0
    assert up["kinkvpn_ticket_expiry_timestamp_seconds", (b.principal,)] > up["process_start_time_seconds", ()]
    for host, other in ((a, "b"), (b, "a")):
        before = policy(host, f"{other}/1")["spi_out"]
        assert command(host, "rekey", other).returncode == 0
        assert policy(host, f"{other}/1")["spi_out"] != before
        talk(lab, a, b)
        seen.append(series(a))
    wait(lab, a, lambda: policy(a, "b/1")["pairs"] == 1, "still has the pairs of before")
    b.kill()
    start(lab, b)
    talk(lab, b, a)
    wait(lab, a, lambda: bool(events(a, "peer_restarted")), "has not noticed that its peer began anew")
    seen.append(series(a))
    for earlier, later in zip([down, *seen], seen, strict=False):
        assert later[name] > earlier[name]
        assert not [key for key in counting(earlier) if later[key] < earlier[key]]


# --- the page, in a browser ---

PORT = 9910
PICTURES = Path(__file__).parents[2] / "docs/images"
PATIENCE = 30.0  # of a browser that asks every two seconds, on a busy machine


def listen(host: Host) -> None:
    """Have the page by TCP too."""
    text = host.configuration.read_text()
    host.configuration.write_text(f'{text}\n[metrics]\nlisten = "127.0.0.1:{PORT}"\n')


def until(driver: webdriver.Chrome, script: str) -> Any:
    """What ``script`` gives as soon as it is true."""
    return WebDriverWait(driver, PATIENCE, 0.1).until(lambda _: driver.execute_script(f"return {script}"))


def text_of(driver: webdriver.Chrome, selector: str) -> str:
    return str(driver.execute_script("return document.querySelector(arguments[0]).innerText", selector))


def test_the_page_in_a_browser(lab: Lab, tmp_path: Path) -> None:
    """A tunnel with traffic, somebody who forges, a rekey; then the daemon goes, and another comes."""
    a, b = lab.hosts
    listen(a)
    start(lab)
    with door(a.namespace, PORT) as port, chromium(tmp_path / "profile") as driver, flooding(a, b):
        driver.get(f"http://127.0.0.1:{port}/")
        until(driver, "document.querySelector('.established')")
        assert a.principal in text_of(driver, "#who")
        assert "1 of 2 tunnels up" in until(driver, "document.querySelector('#state').innerText")
        rows = until(driver, "[...document.querySelectorAll('#sas tbody tr')].map(row => row.innerText)")
        found = policy(a, "b/1")
        assert {found["spi_in"], found["spi_out"]} <= {row.split()[0] for row in rows}
        until(driver, "document.querySelector('#line-out').getAttribute('d')?.length > 20")
        until(driver, "/[1-9].* kbit/.test(document.querySelector('#rate-out').innerText)")
        until(driver, "document.querySelector('#events').innerText.includes('started')")
        assert command(a, "rekey", "b").returncode == 0
        until(driver, "document.querySelector('#events').innerText.includes('established')")
        assert complaints(driver) == [], "nothing that the policy refuses, and no exception"
        looks_right(driver)
        picture(driver)
        a.kill()
        until(driver, "!document.querySelector('#gone').hidden")
        assert "has not answered since" in text_of(driver, "#gone")
        assert driver.title.startswith("gone")
        start(lab, a)
        until(driver, "document.querySelector('#gone').hidden")
        until(driver, f"document.querySelector('#about').innerText.includes('pid {a.pid}')")
        only_to_look_at(port)


@contextmanager
def flooding(source: Host, target: Host) -> Iterator[None]:
    """Large pings both ways while the block runs, and now and then something that no peer has sent."""
    command = ["ping", "-n", "-i", "0.02", "-s", "1300", target.site.inner_address(4)]
    with source.namespace.spawn(command) as pings:
        try:
            yield
        finally:
            pings.kill()


def looks_right(driver: webdriver.Chrome) -> None:
    """By day and by night, on a desk and on a telephone, to eyes and to a screen reader."""
    backs = []
    for scheme in ("light", "dark"):
        prefer(driver, scheme)
        backs.append(driver.execute_script("return getComputedStyle(document.body).backgroundColor"))
    assert len(set(backs)) == 2
    prefer(driver, "light")
    resize(driver, 360, 740)
    assert driver.execute_script("return document.documentElement.scrollWidth") <= 360
    labels = driver.execute_script("return getComputedStyle(document.querySelector('#peers td'), '::before').content")
    assert labels == '"State"', "a heading for each cell, where a table has no room"
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    tree = driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    named = {
        (node["role"]["value"], node["name"]["value"]) for node in tree if node.get("name") and not node["ignored"]
    }
    for name in ("Peers", "Tunnels", "Security associations", "Packets that were not delivered", "Events"):
        assert ("heading", name) in named
    assert ("table", "Peers") in named
    assert any(role in ("image", "img") and "Throughput of the last" in name for role, name in named)


def picture(driver: webdriver.Chrome) -> None:
    """For the documentation, when asked for: KINKVPN_PICTURES=1."""
    if os.environ.get("KINKVPN_PICTURES"):
        until(driver, "samples.length > 12")
        driver.save_screenshot(str(PICTURES / "status-page.png"))


def only_to_look_at(port: int) -> None:
    """By TCP nothing is changed, and nobody reads by another name than ours."""
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as anybody:
        for path in ("/v1/stop", "/v1/rekey", "/v1/peers/b/rekey"):
            assert anybody.post(path).status_code in (403, 404, 405)
        for path in ("/", "/metrics", "/v1/status", "/v1/events?follow=false"):
            assert anybody.get(path).status_code == 200
            assert anybody.get(path, headers={"Host": "evil.example"}).status_code == 421
        openmetrics = anybody.get("/metrics", headers={"Accept": "application/openmetrics-text"})
        assert openmetrics.text.endswith("# EOF\n")
        assert anybody.get("/v1/status").headers.get("access-control-allow-origin") is None


# --- kinkvpn top ---


def test_top(lab: Lab) -> None:
    """The command in a terminal, ended by its key; and, when asked for, a picture of it."""
    a, b = lab.hosts
    start(lab)
    with flooding(a, b):
        wait(lab, a, lambda: policy(a, "b/1")["state"] == "established", "has no SA")
        in_a_terminal(a)
        if os.environ.get("KINKVPN_PICTURES"):
            asyncio.run(drawn(a))


async def drawn(host: Host) -> None:
    """After half a minute, as the documentation has it."""
    top = Top(Observer(control_socket(host)), 0.5)
    async with top.run_test(size=(80, 24)) as pilot:
        await pilot.pause(25)
        top.save_screenshot(str(PICTURES / "top.svg"))


def in_a_terminal(host: Host) -> None:
    """The command itself, in a terminal of 80 columns, ended by its key."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    arguments = [*kinkvpn(), "top", "--socket", str(control_socket(host)), "--interval", "0.2"]
    environment = {**os.environ, "TERM": "xterm-256color"}
    with subprocess.Popen(arguments, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as top:
        os.close(theirs)
        try:
            said = bytearray()
            read_until(ours, said, b"tunnels up")
            os.write(ours, b"q")
            read_until(ours, said, b"\x1b[?1049l")  # the screen of before
            assert top.wait(PATIENCE) == 0
        finally:
            top.kill()
            os.close(ours)


def read_until(terminal: int, said: bytearray, words: bytes) -> None:
    """Adds what is written there until it has ``words``."""
    deadline = time.monotonic() + PATIENCE
    while words not in said:
        assert time.monotonic() < deadline, bytes(said[-2000:])
        if select.select([terminal], [], [], 1.0)[0]:
            said += os.read(terminal, 65536)
