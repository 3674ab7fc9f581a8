"""With a real process."""

from __future__ import annotations

import select
import sys
from typing import TYPE_CHECKING

import pytest

from bench.conversation import Partner
from kinkvpn.demo.namespace import LabFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS = 60.0  # for a failure only
SCRIPT = """
import json, sys
print('{"octets": 1}\\n{"octets": 2}\\n{"halves": [3]}', flush=True)
print(json.dumps({"told": json.loads(sys.stdin.readline())}), flush=True)
"""


@pytest.fixture
def partner() -> Iterator[Partner]:
    made = Partner("a", [sys.executable, "-c", SCRIPT])
    yield made
    made.end()


def heard_when_readable(partner: Partner) -> dict[str, object]:
    ready, _, _ = select.select([partner], [], [], SECONDS)
    assert ready == [partner]
    return partner.hear()


def test_whoever_was_away_hears_all_that_was_said_meanwhile(partner: Partner) -> None:
    """Several lines have come at once, and the process waits for an answer to the last of them."""
    assert heard_when_readable(partner) == {"octets": 1}
    assert heard_when_readable(partner) == {"octets": 2}
    assert heard_when_readable(partner) == {"halves": [3]}


def test_it_is_told_and_then_it_is_gone(partner: Partner) -> None:
    for _ in range(3):
        partner.hear()
    partner.tell({"sent": 4})
    assert partner.hear() == {"told": {"sent": 4}}
    with pytest.raises(LabFailed, match="is gone") as gone:
        partner.hear()
    assert gone.value.host == "a"
