from __future__ import annotations

import time

from kinkvpn.service.epoch import epoch


def test_a_process_has_one_epoch() -> None:
    first = epoch()
    assert 0 <= int(time.time()) - first < 100_000
    assert epoch() == first < 1 << 32
