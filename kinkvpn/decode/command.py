"""``kinkvpn decode``: reads, prints as it reads, and says in its exit code whether all of it verified."""

from __future__ import annotations

import json
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

from kinkvpn.decode.capture import CaptureDamaged, NotCapture, read_frames
from kinkvpn.decode.datagrams import Extractor
from kinkvpn.decode.keyring import Keyring, KeysUnreadable
from kinkvpn.decode.transcript import Transcript
from kinkvpn.decode.view import View

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

GOOD, NOT_ALL = 0, 1
BAD_INPUT = (NotCapture, KeysUnreadable)  # exit code 2, as for every command


def run(
    capture: str,
    keytabs: Sequence[Path],
    ccaches: Sequence[Path] = (),
    *,
    ports: Sequence[int],
    as_json: bool,
    out: TextIO,
) -> int:
    """Decodes ``capture`` (``-`` for stdin) to ``out``; the exit code.

    Raises:
        NotCapture, KeysUnreadable: bad input, in one line.
        LibraryUnusable: no MIT libkrb5.
    """
    keyring = Keyring(keytabs, ccaches)
    with _opened(capture) as file:
        try:
            frames = read_frames(file)
        except (NotCapture, CaptureDamaged) as error:
            raise NotCapture(f"{capture}: {error}") from error
        extractor, transcript = Extractor(ports), Transcript(keyring)
        view = View(colour=_takes_colour(out))
        damage = ""
        try:
            for datagram in extractor.extract(frames):
                record = transcript.record(datagram)
                out.write((json.dumps(record) if as_json else view.message(record) + "\n") + "\n")
                out.flush()  # tcpdump may be at the other end of the pipe, and somebody may be watching
        except CaptureDamaged as error:
            damage = f"nothing is known beyond frame {extractor.passed.frames}: {error}"
    summary = summarise(extractor, transcript, damage)
    out.write((json.dumps(summary) if as_json else view.summary(summary)) + "\n")
    return GOOD if summary["ok"] else NOT_ALL


def _opened(capture: str) -> AbstractContextManager[BinaryIO]:
    if capture == "-":
        return nullcontext(sys.stdin.buffer)
    try:
        return Path(capture).open("rb")
    except OSError as error:
        raise NotCapture(f"{capture}: {error.strerror}") from error


def _takes_colour(out: TextIO) -> bool:
    """https://no-color.org: any value that is not empty says no."""
    return out.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def summarise(extractor: Extractor, transcript: Transcript, damage: str) -> dict[str, Any]:
    """The last record: counts, open ends, and whether every message parsed, verified and decrypted."""
    transcript.conversations.finish()
    conversations, passed = transcript.conversations, extractor.passed
    remarks = [damage] if damage else []
    if not transcript.count:
        remarks.append("no KINK message: nothing on UDP port 910, nor on 4500 behind a non-ESP marker (see --port)")
    if passed.other_marked:
        remarks.append(f"{passed.other_marked} datagrams behind a non-ESP marker were not KINK (IKE?)")
    if passed.incomplete:
        remarks.append(f"{passed.incomplete} fragmented UDP datagrams were not whole: KINK may have been among them")
    remarks += [
        f"{count} frames of link type {kind}, which is not understood" for kind, count in passed.link_types.items()
    ]
    return {
        "record": "summary",
        "ok": bool(transcript.count) and not transcript.status["failed"] and not damage,
        "messages": transcript.count,
        "frames": passed.frames,
        "status": {status: transcript.status[status] for status in ("verified", "clear", "failed")},
        "unanswered": {"count": conversations.unanswered.count, "numbers": conversations.unanswered.numbers},
        "unacknowledged": {
            "count": conversations.unacknowledged.count,
            "numbers": conversations.unacknowledged.numbers,
        },
        "findings": {kind.value: count for kind, count in transcript.findings.items()},
        "damage": damage or None,
        "remarks": remarks,
    }
