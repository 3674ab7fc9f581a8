"""What is on the screen of a textual application, as text."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from textual.pilot import Pilot

PATIENCE = 30.0  # on a busy machine


def shown(pilot: Pilot[Any]) -> str:
    """All of its lines."""
    return "\n".join(strip.text for strip in pilot.app.screen._compositor.render_strips())


async def seen(pilot: Pilot[Any], *words: str, without: str | None = None) -> None:
    """Returns once all of the words are on the screen, and what it is to be without is not."""
    deadline = time.monotonic() + PATIENCE
    while True:
        screen = shown(pilot)
        missing = [word for word in words if word not in screen]
        if not missing and (without is None or without not in screen):
            return
        assert time.monotonic() < deadline, f"{missing} not in, or {without!r} in\n{screen}"
        await pilot.pause(0.02)
