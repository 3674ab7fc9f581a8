"""The local API of real daemons: docs/api.md is what happens, and every answer is as the OpenAPI document has it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from support.api import undescribed
from support.lab import START_SECONDS, amend, answers, control_socket, crosswise, start, status, wait

from kinkvpn.api.app import OPERATIONS
from kinkvpn.api.client import Client
from kinkvpn.api.control import NotRunning
from kinkvpn.api.schema import document

if TYPE_CHECKING:
    from kinkvpn.demo.lab import Host, Lab

pytestmark = [pytest.mark.root, pytest.mark.kdc]

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text()


def established(lab: Lab) -> Host:
    """Host a, whose one peer, b, has SAs with it."""
    a, b = lab.hosts
    amend(a, "[peer]", start="boot")
    start(lab)
    wait(lab, a, lambda: crosswise(a, b), "has no pairs with b")
    return a


def commands() -> list[tuple[str, str]]:
    """Every command of the page and what it is said to print, without what may differ."""
    found: list[tuple[str, list[str]]] = []
    for line in re.findall(r"^    (.*)$", PAGE, re.MULTILINE):
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return [(command, "\n".join(printed)) for command, printed in found]


def alike(printed: str) -> str:
    """As a pattern: ``...`` is anything, and so is a number or the version where there is one."""
    pieces = [
        re.escape(re.sub(r"0x[0-9a-f]+|\b[0-9a-f]{8}-|\d+(\.\d+)*", "7", piece)) for piece in printed.split("...")
    ]
    return ".*".join(pieces).replace(r"\n.*", ".*")


def plain(printed: str) -> str:
    return re.sub(r"0x[0-9a-f]+|\b[0-9a-f]{8}-|\d+(\.\d+)*", "7", printed)


def test_every_example_of_the_page_is_what_happens(lab: Lab) -> None:
    a = established(lab)
    found = commands()
    assert len(found) >= 14
    for command, printed in found:
        here = command.replace("/run/kinkvpn/kinkvpn.sock", str(control_socket(a))).replace("/west", "/b")
        done = subprocess.run(["sh", "-c", here], capture_output=True, text=True, timeout=30, check=False)
        assert (done.returncode, done.stderr) == (0, ""), command
        expected = alike(printed.replace("west", "b").replace("east", a.name))
        assert re.fullmatch(expected, plain(done.stdout.rstrip("\n")), re.DOTALL), f"{command}\n{done.stdout[:2000]}"
    paths = {re.sub(r".*http://k([^?']*).*", r"\1", command).replace("/west", "/{name}") for command, _ in found}
    assert {one.path for one in OPERATIONS if one.path.startswith("/v1/")} <= paths
    wait(lab, a, lambda: not_running(a), "still answers", START_SECONDS)
    a.stop(None)


def not_running(host: Host) -> bool:
    try:
        status(host)
    except NotRunning:
        return True
    except Exception:  # it ends while it is asked
        return False
    return False


def test_what_a_daemon_answers_is_what_the_document_says(lab: Lab) -> None:
    a = established(lab)
    assert answers(a)
    described: Any = document(OPERATIONS, "")
    with Client(control_socket(a)) as daemon:
        for one in OPERATIONS:
            if one.method != "GET" or isinstance(one.answer, str):
                continue
            answer = daemon.get(one.path.replace("{name}", "b"))
            msgspec.convert(answer, one.answer)
            operation = described["paths"][one.path]["get"]
            schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
            assert undescribed(answer, schema, described) == [], one.path
        told = [event.data["event"] for event in daemon.events(follow=False)]
    assert told.count("sa_established") == 2
    assert "started" in told
