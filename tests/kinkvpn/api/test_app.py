"""The operations, asked over a real socket of the real server, with a simulated host behind it."""

from __future__ import annotations

import json
import logging
import socket
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import pytest
import schemathesis
import trio
from hypothesis import settings
from support.api import looping, served, served_on, simulated, undescribed

from kinkvpn.api import answers
from kinkvpn.api.app import OPERATIONS, onlookers_application
from kinkvpn.api.client import Client
from kinkvpn.api.control import CommandRefused
from kinkvpn.api.schema import PROBLEM_TYPE, document
from kinkvpn.errors import KinkvpnError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

DOCUMENT = document(OPERATIONS, "0")
schema = schemathesis.openapi.from_dict(DOCUMENT)


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with served(tmp_path_factory.mktemp("api") / "k.sock") as path:
        yield path


@pytest.fixture
def daemon(control: Path) -> Iterator[Client]:
    with Client(control) as client:
        yield client


@pytest.fixture
def http(control: Path) -> Iterator[httpx.Client]:
    with httpx.Client(
        transport=httpx.HTTPTransport(uds=str(control), verify=False), base_url="http://k", timeout=30
    ) as client:
        yield client


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The same over TCP, for clients that know nothing else."""
    listener = socket.create_server(("127.0.0.1", 0))

    async def live(ready: Callable[[], None]) -> None:
        async with simulated() as found, trio.open_nursery() as nursery:
            await nursery.start(served_on, listener, found)
            ready()
            await trio.sleep_forever()

    with looping(live):
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


READ = [one for one in OPERATIONS if one.method == "GET" and isinstance(one.answer, type | type(dict[str, Any]))]


@pytest.mark.parametrize("operation", READ, ids=lambda one: one.path)
def test_an_answer_is_what_the_document_says_and_no_more(http: httpx.Client, operation: Any) -> None:
    response = http.get(operation.path.replace("{name}", "east"))
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    answer = response.json()
    msgspec.convert(answer, operation.answer)
    described = DOCUMENT["paths"][operation.path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert undescribed(answer, described, DOCUMENT) == []


def test_the_parts_are_those_of_the_status(daemon: Client) -> None:
    status = daemon.status()
    (peer,) = status["peers"]
    assert [policy["state"] for policy in peer["policies"]] == ["established", "down"]
    assert (
        [one["name"] for one in daemon.get("/v1/peers")["peers"]] == [daemon.get("/v1/peers/east")["name"]] == ["east"]
    )
    policies = daemon.get("/v1/policies")["policies"]
    assert [(each["peer"], each["name"]) for each in policies] == [("east", "tunnel0"), ("east", "tunnel1")]
    assert daemon.get("/v1/counters").keys() == status["counters"].keys()
    sas = daemon.get("/v1/sas")["sas"]
    assert [(sa["peer"], sa["policy"]) for sa in sas] == [("east", "tunnel0")] * 2
    spis = {sa["direction"]: sa["spi"] for sa in sas}
    assert spis == {"in": policies[0]["spi_in"], "out": policies[0]["spi_out"]}
    assert all(sa["lifetime"] > sa["since"] >= 0 for sa in sas)


def test_what_is_asked_of_it_is_done(daemon: Client) -> None:
    assert daemon.post("/v1/peers/east/probe")["seconds"] > 0
    before = daemon.get("/v1/peers/east")["policies"][0]["spi_in"]
    for path in ("/v1/rekey", "/v1/peers/east/rekey"):
        (policy,) = daemon.post(path)["policies"]
        assert policy["spi_in"] != before
        before = policy["spi_in"]
    assert daemon.post("/v1/peers/east/down")["taken_down"]
    states = [policy["state"] for policy in daemon.post("/v1/peers/east/up")["policies"]]
    assert states == ["established"] * 2, "that for which no packet has come too"
    assert not daemon.get("/v1/peers/east")["taken_down"]
    assert daemon.post("/v1/stop")["pid"] == daemon.pid


@pytest.mark.parametrize(
    ("method", "path", "status", "detail"),
    [
        ("POST", "/v1/peers/wset/probe", 404, "no peer 'wset'; there are east"),
        ("GET", "/v1/peers/wset", 404, "no peer 'wset'; there are east"),
        ("GET", "/v1/peers/host%2Fa@R", 404, "no peer 'host/a@R'; there are east"),
        ("POST", "/v1/peers/host%2Fa%40R/down", 404, "no peer 'host/a@R'; there are east"),
        (
            "GET",
            "/v1/peers/a@R/probe",
            405,
            "GET /v1/peers/a@R/probe: Method Not Allowed; GET /v1/openapi.json says what there is",
        ),
        ("GET", "/v2/status", 404, "GET /v2/status: Not Found; GET /v1/openapi.json says what there is"),
        ("DELETE", "/v1/status", 405, "DELETE /v1/status: Method Not Allowed; GET /v1/openapi.json says what there is"),
        ("GET", "/v1/events?after=x", 400, "'x' is no id of an event"),
        ("GET", "/v1/events?follow=maybe", 400, "follow is true or false, not 'maybe'"),
    ],
)
def test_what_cannot_be_is_a_problem(http: httpx.Client, method: str, path: str, status: int, detail: str) -> None:
    response = http.request(method, path)
    assert response.headers["content-type"] == PROBLEM_TYPE
    problem = msgspec.convert(response.json(), answers.Problem)
    assert (response.status_code, problem["status"], problem["detail"]) == (status, status, detail)


class Broken:
    """A daemon of which everything goes wrong."""

    async def status(self) -> None:
        raise ZeroDivisionError

    async def rekey(self, _peer: str | None) -> None:
        raise KinkvpnError("nothing is established")


def test_a_refusal_and_a_defect(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with served(tmp_path / "k.sock", Broken) as path, Client(path) as client:
        with pytest.raises(CommandRefused, match=r"^nothing is established$"):
            client.post("/v1/rekey")
        with pytest.raises(CommandRefused, match=r"^status failed; the daemon's log has the reason$"):
            client.status()
    (logged,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert logged.message == "command_failed"
    assert logged.exc_info is not None


def test_events_are_followed_from_where_one_was(control: Path, http: httpx.Client) -> None:
    with httpx.Client(
        transport=httpx.HTTPTransport(uds=str(control), verify=False), base_url="http://k", timeout=30
    ) as client:
        response = client.get("/v1/events", params={"follow": "false"}, headers={"Last-Event-ID": "5eed-0"})
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-store"
    assert http.head("/v1/events").status_code == 200, "and comes to an end"


@schema.exclude(path="/v1/events").parametrize()
@settings(max_examples=10)
def test_whatever_the_document_allows_is_answered_as_it_says(case: schemathesis.Case, url: str) -> None:
    case.call_and_validate(base_url=url)


def test_the_document_is_served(http: httpx.Client) -> None:
    assert json.loads(http.get("/v1/openapi.json").text)["paths"].keys() == DOCUMENT["paths"].keys()


async def test_onlookers_look_and_change_nothing() -> None:
    """Over TCP nobody can be told from anybody: what changes something is not even there."""
    async with simulated() as found:
        transport = httpx.ASGITransport(onlookers_application(found, ["gw.test"]))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:9910") as anybody:
            for path in ("/", "/metrics", "/v1/status", "/v1/sas"):
                assert (await anybody.get(path)).status_code == 200
                assert (await anybody.get(path, headers={"Host": "gw.test:9910"})).status_code == 200
                assert (await anybody.get(path, headers={"Host": "evil.example"})).status_code == 421
            for one in OPERATIONS:
                if one.method != "GET":
                    answer = await anybody.post(one.path.replace("{name}", "east"))
                    assert answer.status_code in (404, 405), one.path
            assert not found.stopping.is_set()
            metrics = await anybody.get("/metrics", headers={"Accept": "application/openmetrics-text"})
            assert metrics.text.endswith("# EOF\n")
            assert 'kinkvpn_policy_up{peer="east",policy="tunnel1"} 0.0' in metrics.text


def test_a_browser_changes_nothing_wherever_it_comes_from(http: httpx.Client) -> None:
    """By ssh -L the socket is at a port, and any page can have a browser send a POST there (Fetch §3.2)."""
    for origin in ("http://localhost:9910", "https://evil.example", "null"):
        answer = http.post("/v1/peers/east/probe", headers={"Origin": origin})
        assert (answer.status_code, answer.json()["detail"]) == (403, "a browser may look, and not change anything")
    assert http.post("/v1/peers/east/probe").status_code == 200
    assert http.get("/v1/status", headers={"Origin": "https://evil.example"}).status_code == 200
