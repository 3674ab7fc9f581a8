"""``kinkvpn decode`` of what two daemons say to each other: all of it verifies, with both keytabs."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from support.lab import amend, ask, configure, crosswise, kinit, start, wait, without_keytab

from kinkvpn.demo.capture import Capture
from kinkvpn.demo.lab import WIRE, DaemonOptions, Host, Lab, kinkvpn
from kinkvpn.demo.traffic import ping

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

pytestmark = [pytest.mark.root, pytest.mark.kdc]

WHOLE = 65535


def keytab(host: Host) -> str:
    return str(host.configuration.parent / "keytab")


def decoded(capture: Path, *keytabs: str, ccaches: Sequence[Path] = ()) -> tuple[int, list[dict[str, Any]]]:
    """Exit code and records of the command."""
    given = [argument for path in keytabs for argument in ("--keytab", path)]
    given += [argument for path in ccaches for argument in ("--ccache", str(path))]
    process = [*kinkvpn(), "decode", "--json", str(capture), *given]
    done = subprocess.run(process, capture_output=True, text=True, check=False)
    assert not done.stderr
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def conversation(lab: Lab, path: Path) -> None:
    """A tunnel made, used, probed and ended, with a capture of the wire from before to after."""
    a, b = lab.hosts
    with Capture(a.namespace, WIRE, path, snaplen=WHOLE) as capture:
        start(lab)
        ping(a, b, 4)
        ping(b, a, 6)
        wait(lab, b, lambda: crosswise(a, b), "has not one pair per policy with a")
        ask(a, "probe", peer="b")
        a.stop()
        b.stop()
        assert capture.stop() == 0


@pytest.mark.parametrize(("port", "groups"), [(910, []), (4500, ["x25519"])])
def test_a_conversation_of_two_daemons_verifies_whole(lab: Lab, directory: Path, port: int, groups: list[str]) -> None:
    """Over either port; once with PFS too, whose public values are counted and not shown."""
    a, b = configure(lab, DaemonOptions())
    for host in (a, b):
        amend(host, "[peer]", kink_over=str(port), **({"pfs": groups} if groups else {}))
    path = directory / f"{port}.pcap"
    conversation(lab, path)
    code, (*messages, summary) = decoded(path, keytab(a), keytab(b))
    assert (code, summary["ok"], summary["unanswered"]["count"]) == (0, True, 0)
    assert {message["marked"] for message in messages} == {port == 4500}
    assert all(message["destination"].endswith(f":{port}") for message in messages)
    assert {message["status"] for message in messages} == {"verified"}
    assert {message["type"]["name"] for message in messages} >= {"CREATE", "REPLY", "STATUS", "DELETE"}
    # Nothing that we send is against the letter of the RFC.
    assert not {found["kind"] for message in messages for found in message["findings"] if found["severity"] != "note"}
    for message in messages:
        assert {message["client"], message["server"]} == {a.principal, b.principal}
        if message["type"]["name"] == "REPLY":
            assert message["ap_rep"]["answers"] == message["relation"]["answers"]
    quick_mode = [entry for message in messages for entry in quick_mode_of(message)]
    assert quick_mode[0]["payload"] == "SA"
    told = {entry["notify"]["name"]: entry["meaning"] for entry in quick_mode if entry["payload"] == "NOTIFY"}
    assert "kink on esp port" in told["KINKVPN_CAPABILITIES"]
    assert "the receiver is seen at 192.0.2." in told["KINKVPN_OBSERVED_ENDPOINT"]
    selectors = [entry["selector"] for entry in quick_mode if entry["payload"] == "ID"]
    assert selectors[:2] == ["10.1.0.0/24", "10.2.0.0/24"]
    exchanged = {(entry["group"]["name"], entry["public_value_octets"]) for entry in quick_mode if "group" in entry}
    assert exchanged == ({("CURVE25519", 32)} if groups else set())


def quick_mode_of(message: dict[str, Any]) -> list[dict[str, Any]]:
    """Every Quick Mode payload of a message."""
    inside = [each for payload in message["payloads"] for each in payload.get("inside", ())]
    return [entry for payload in inside for entry in payload.get("quick_mode", ())]


def test_one_keytab_opens_what_was_sent_to_its_host(lab: Lab, directory: Path) -> None:
    a, b = configure(lab, DaemonOptions())
    path = directory / "half.pcap"
    conversation(lab, path)
    code, (*messages, summary) = decoded(path, keytab(b))
    assert (code, summary["ok"]) == (1, False)
    began = {message["number"]: message["source"] for message in messages if message["relation"]["role"] == "command"}
    for message in messages:
        first = message["relation"].get("answers") or message["relation"]["repeats"] or message["number"]
        opened = began[first].startswith(a.site.wire)
        assert message["status"] == ("verified" if opened else "failed")
        if not opened:
            assert "no-key" in [found["kind"] for found in message["findings"]]


def test_user_to_user_is_said_to_stay_closed(lab: Lab, directory: Path) -> None:
    a, b = configure(lab, DaemonOptions())
    for host in (a, b):
        amend(host, "[peer]", user_to_user="always")
    path = directory / "u2u.pcap"
    conversation(lab, path)
    code, (*messages, _) = decoded(path, keytab(a), keytab(b))
    assert code == 1
    asked, handed = messages[:2]
    assert (asked["type"]["name"], asked["status"], handed["status"]) == ("GETTGT", "clear", "clear")
    assert asked["payloads"][0]["principal"] in (a.principal, b.principal)
    assert handed["payloads"][0]["ticket"]["server"].startswith("krbtgt/")
    create = next(message for message in messages if message["type"]["name"] == "CREATE")
    assert [found["kind"] for found in create["findings"]] == ["user-to-user"]
    assert {message["status"] for message in messages if message["checksum_octets"]} == {"failed"}


def test_user_to_user_opens_with_the_credential_caches_that_the_hosts_live_on(lab: Lab, directory: Path) -> None:
    """Both caches show everything; one of them what was sent to its host, and what that answered."""
    a, b = configure(lab, DaemonOptions())
    ccaches = {}
    for host in (a, b):
        ccache = ccaches[host.name] = host.configuration.parent / "ccache"
        kinit(lab, host, ccache, "-k", "-t", keytab(host), host.principal)
        without_keytab(host, ccache)
    path = directory / "ccaches.pcap"
    conversation(lab, path)
    code, (*messages, summary) = decoded(path, ccaches=list(ccaches.values()))
    # What a keyless host is asked at first, with a service ticket that it cannot open, nobody can.
    closed = [message for message in messages if message["status"] == "failed"]
    assert {found["kind"] for message in closed for found in message["findings"]} <= {"no-key"}
    kinds = {message["type"]["name"] for message in messages if message["status"] == "verified"}
    assert kinds >= {"CREATE", "REPLY", "STATUS", "DELETE"}
    assert (code, summary["ok"]) == (bool(closed), not closed)
    _, (*messages, _) = decoded(path, ccaches=[ccaches["b"]])
    creates = [message for message in messages if message["type"]["name"] == "CREATE"]
    for message in creates:
        kinds = {found["kind"] for found in message["findings"]}
        to_b = message["destination"].startswith(b.site.wire)
        assert ("user-to-user" in kinds) == (not to_b and message["status"] == "failed" and "no-key" not in kinds)
    assert {"verified", "failed"} <= {message["status"] for message in creates}
