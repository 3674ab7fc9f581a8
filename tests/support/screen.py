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


async def seen(pilot: Pilot[Any], *words: str) -> None:
    """Returns once all of the words are on the screen."""
    deadline = time.monotonic() + PATIENCE
    while missing := [word for word in words if word not in shown(pilot)]:
        assert time.monotonic() < deadline, f"{missing} not in\n{shown(pilot)}"
        await pilot.pause(0.02)
