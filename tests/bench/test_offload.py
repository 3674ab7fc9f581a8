"""Each kind of packet is measured; how long it took is nobody's to say."""

from __future__ import annotations

import pytest

from bench.offload import measure

pytestmark = pytest.mark.build


def test_there_is_a_row_for_each_kind_of_packet() -> None:
    rows = measure(rounds=1)
    kinds = {(row.version, row.protocol) for row in rows}
    assert kinds == {(version, protocol) for version in (4, 6) for protocol in ("TCP", "UDP")}
    # Headers of IPv6 and TCP leave no room in 64 octets.
    assert [row.octets for row in rows] == [64, 576, 1_420, 64, 576, 1_420, 576, 1_420, 64, 576, 1_420]
