"""Loss is told of when it begins, and once a minute while it goes on."""

from __future__ import annotations

from esp.loss import REPORT_SECONDS, Loss


def test_loss_is_told_at_once_and_then_once_a_minute() -> None:
    loss = Loss()
    assert loss.report(0, 100, 0.0) is None
    assert loss.report(2, 198, 1.0) == (2, 200)
    assert loss.report(5, 295, 2.0) is None
    assert loss.report(5, 395, 1.0 + REPORT_SECONDS) == (3, 200)
    assert loss.report(5, 10_000, 1000.0) is None
    assert loss.report(6, 10_001, 2000.0) == (1, 9607)
