"""Fuzz target of the wire layer: any octets are read, or refused with MalformedMessage. Nothing else may come out.

    python tests/fuzz/fuzz_wire.py [atheris options]     coverage guided, until a finding or Ctrl-C, with atheris
    python tests/fuzz/fuzz_wire.py                       100,000 examples of hypothesis, without atheris

tests/fuzz/test_fuzz_wire.py runs a bounded number of examples of the same check in the suite.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":
    tests = Path(__file__).resolve().parent.parent
    sys.path[:0] = [str(tests.parent), str(tests)]

from hypothesis import strategies as st
from support.fuzzing import fuzz
from support.vectors import load_messages

from kinkvpn.errors import MalformedMessage
from kinkvpn.wire.kink import build_message, build_plaintext, parse_message, parse_plaintext, signed_octets

if TYPE_CHECKING:
    from collections.abc import Callable

SEEDS = sorted({message.datagram for message in load_messages()})
PLAINTEXT_SEEDS = sorted({message.plaintext for message in load_messages() if message.plaintext is not None})


def refusal(parse: Callable[[bytes], object], octets: bytes) -> MalformedMessage | None:
    """The error with which ``parse`` refuses ``octets``, None if it reads them."""
    try:
        parse(octets)
    except MalformedMessage as error:
        return error
    return None


def check(octets: bytes) -> None:
    """What must hold of any octets. Raises AssertionError, or whatever the parser should not have raised."""
    check_message(octets)
    check_plaintext(octets)


def check_message(octets: bytes) -> None:
    """Refused with a sound offset and the XID where there is one; or built again no longer than it was, and equal."""
    refused = refusal(parse_message, octets)
    if refused is not None:
        assert 0 <= refused.offset <= len(octets)
        assert (refused.xid is None) == (len(octets) < 16)
        return
    message = parse_message(octets)
    built = build_message(message)
    assert len(built) <= len(octets)
    assert parse_message(built) == message
    assert build_message(parse_message(built)) == built
    assert len(signed_octets(octets)) % 4 == 0 or not message.checksum


def check_plaintext(octets: bytes) -> None:
    """Refused with a sound offset; or built again no longer than it was, and equal."""
    refused = refusal(parse_plaintext, octets)
    if refused is not None:
        assert 0 <= refused.offset <= len(octets)
        return
    payloads = parse_plaintext(octets)
    built = build_plaintext(payloads)
    assert len(built) <= len(octets)
    assert parse_plaintext(built) == payloads


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A captured datagram or plaintext with some octets overwritten, cut out, doubled or put in."""
    octets = bytearray(draw(st.sampled_from(SEEDS) | st.sampled_from(PLAINTEXT_SEEDS)))
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, max(0, len(octets) - 1)))
        end = start + draw(st.sampled_from([0, 1, 1, 2, 4, 16]))
        octets[start:end] = draw(st.binary(max_size=4) | st.just(bytes(octets[start:end]) * 2))
    if draw(st.booleans()) and len(octets) >= 4:
        octets[2:4] = len(octets).to_bytes(2, "big")  # a Length that agrees lets the rest be reached
    return bytes(octets)


if __name__ == "__main__":
    fuzz(check, mutated(), 100_000)
