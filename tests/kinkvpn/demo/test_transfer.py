"""Both ends of the transfer over loopback, and what the receiving end says when the other does not keep its word."""

from __future__ import annotations

import hashlib
import json
import socket
import struct
import subprocess
import sys
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.kdc import free_port

from kinkvpn.demo.capture import CANARY
from kinkvpn.demo.transfer import BLOCK_OCTETS, Received, blocks, digest, receive, send


@given(st.integers(0, 3 * BLOCK_OCTETS))
def test_the_octets_are_as_many_as_asked_for(octets: int) -> None:
    assert sum(len(block) for block in blocks(octets)) == octets


def test_every_cut_holds_a_canary_and_no_two_blocks_are_equal() -> None:
    seen = [bytes(block) for block in blocks(3 * BLOCK_OCTETS)]
    assert len(set(seen)) == 3
    for start in range(0, 4096, 7):
        assert CANARY in seen[1][start : start + 32 + len(CANARY)]


def test_the_digest_is_that_of_the_octets() -> None:
    octets = b"".join(bytes(block) for block in blocks(BLOCK_OCTETS + 5))
    assert digest(BLOCK_OCTETS + 5) == hashlib.sha256(octets).digest()


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_both_ends_agree(address: str) -> None:
    port, size = free_port(), 3 * BLOCK_OCTETS + 17
    reports = receive(address, port)
    assert next(reports) == 0  # it listens
    sender = Thread(target=send, args=(address, port, size))
    sender.start()
    *progress, verdict = reports
    sender.join()
    assert isinstance(verdict, Received)
    assert verdict.equal
    assert (verdict.octets, verdict.sha256) == (size, digest(size).hex())
    assert verdict.gbit_per_s > 0
    assert all(0 < octets <= size for octets in progress if isinstance(octets, int))


def claimed(octets: bytes, *, count: int, trailer: bytes) -> list[int | Received]:
    """What the receiving end says to a sender that announces ``count`` octets."""
    port = free_port()
    reports = receive("127.0.0.1", port)
    next(reports)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(struct.pack("!Q", count) + octets + trailer)
        connection.shutdown(socket.SHUT_WR)
        return list(reports)


def test_one_changed_octet_is_seen() -> None:
    sent, right = b"a" * 5000, hashlib.sha256(b"a" * 5000).digest()
    assert claimed(sent, count=5000, trailer=right)[-1].equal  # the last one is the verdict
    assert not claimed(b"b" + sent[1:], count=5000, trailer=right)[-1].equal  # as above


@pytest.mark.parametrize(("count", "trailer"), [(5001, b""), (5000, b"short")])
def test_a_connection_that_ends_early_is_no_verdict(count: int, trailer: bytes) -> None:
    with pytest.raises(ConnectionError, match="closed"):
        claimed(b"a" * 5000, count=count, trailer=trailer)


@pytest.mark.programs
def test_the_program_prints_json_lines_and_one_line_of_error() -> None:
    port = str(free_port())
    program = [sys.executable, "-m", "kinkvpn.demo.transfer"]
    with subprocess.Popen([*program, "receive", "127.0.0.1", port], stdout=subprocess.PIPE, text=True) as receiver:
        assert receiver.stdout is not None
        assert json.loads(receiver.stdout.readline()) == {"octets": 0}
        subprocess.run([*program, "send", "127.0.0.1", port, "100000"], check=True)
        lines = [json.loads(line) for line in receiver.stdout]
    assert receiver.returncode == 0
    assert lines[-1]["equal"] is True
    assert lines[-1]["octets"] == 100000
    refused = subprocess.run([*program, "send", "127.0.0.1", port, "1"], capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "refused" in refused.stderr
    assert subprocess.run([*program, "fetch"], capture_output=True, check=False).returncode == 2
