"""Conversations with one machine, written as they are read: ``Playbook(machine) >> event << effect << effect``."""

from __future__ import annotations

from typing import Any, Protocol

from kinkvpn.proto.events import Effect, Event, SendMessage


class _Any:
    """Equal to everything; stands in a field that a playbook does not care for."""

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return "ANY"


ANY: Any = _Any()


class Machine(Protocol):
    """What takes events."""

    def handle(self, event: Event, now: float) -> list[Effect]: ...


class Playbook:
    """Feeds events to a machine, and holds its effects, in order and to the last one, against what was expected.

    Args:
        machine: under test.
        now: the time of the first event; ``at`` changes it.
    """

    def __init__(self, machine: Machine, now: float = 0.0) -> None:
        self.machine = machine
        self.now = now
        self.sent: list[bytes] = []
        self._left: list[Effect] = []

    def at(self, now: float) -> Playbook:
        """The events that follow happen at ``now``."""
        self.now = now
        return self

    def __rshift__(self, event: Event) -> Playbook:
        self.end()
        self._left = self.machine.handle(event, self.now)
        self.sent += [effect.datagram for effect in self._left if isinstance(effect, SendMessage)]
        return self

    def __lshift__(self, effect: Effect) -> Playbook:
        assert self._left, f"expected {effect}, but there are no more effects"
        assert self._left[0] == effect
        del self._left[0]
        return self

    def end(self) -> None:
        """Nothing else may have happened."""
        assert self._left == []
