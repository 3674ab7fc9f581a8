"""Fuzz target of the decoder: any octets of a capture give records, or one clear error. Nothing else may come out.

    python tests/fuzz/fuzz_decode.py [atheris options]     coverage guided, until a finding or Ctrl-C, with atheris
    python tests/fuzz/fuzz_decode.py                       20,000 examples of hypothesis, without atheris

tests/fuzz/test_fuzz_decode.py runs a bounded number of examples of the same check in the suite.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

if __name__ == "__main__":
    tests = Path(__file__).resolve().parent.parent
    sys.path[:0] = [str(tests.parent), str(tests)]

from hypothesis import strategies as st
from support.captures import KEYTABS, vector_file
from support.fuzzing import fuzz
from support.vectors import load_messages

from kinkvpn.decode.capture import CaptureDamaged, NotCapture, read_frames
from kinkvpn.decode.command import summarise
from kinkvpn.decode.datagrams import Extractor
from kinkvpn.decode.keyring import Keyring
from kinkvpn.decode.transcript import Transcript
from kinkvpn.decode.view import WIDTH, View

VECTORS = sorted({message.vector for message in load_messages()})
SEEDS = [vector_file(vector).read_bytes() for vector in VECTORS]
KEYRING = Keyring(KEYTABS)
VIEW = View(colour=False)


def check(octets: bytes) -> None:
    """What must hold of any octets. Raises AssertionError, or whatever the decoder should not have raised."""
    extractor, transcript, damage = Extractor(), Transcript(KEYRING), ""
    try:
        for datagram in extractor.extract(read_frames(io.BytesIO(octets))):
            record = transcript.record(datagram)
            assert json.loads(json.dumps(record)) == record
            assert all(len(line) <= WIDTH for line in VIEW.message(record).splitlines())
    except (NotCapture, CaptureDamaged) as error:
        damage = str(error)
        assert "\n" not in damage
    summary = summarise(extractor, transcript, damage)
    VIEW.summary(summary)
    assert not summary["ok"] or not damage


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A capture with some octets overwritten, cut out, doubled or put in."""
    octets = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 8))):
        start = draw(st.integers(0, max(0, len(octets) - 1)))
        end = start + draw(st.sampled_from([0, 1, 1, 2, 4, 16]))
        octets[start:end] = draw(st.binary(max_size=4) | st.just(bytes(octets[start:end]) * 2))
    return bytes(octets)


if __name__ == "__main__":
    fuzz(check, mutated(), 20_000)
