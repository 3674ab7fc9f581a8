"""Packets of one policy that wait for an SA (RFC 4301 §5.1: hold, and ask keying for one)."""

from __future__ import annotations

from collections import deque
from math import inf

# Ours. A CREATE takes a round trip and a visit to the KDC; 32 full packets are 45 kB, enough for the first flight of a
# few connections, and little if a thousand policies wait.
MAX_HELD_PACKETS = 32
# Ours. As long as a KDC on another continent and two retransmissions take; what is older has been sent again by its
# host.
HOLD_SECONDS = 10.0
# Ours. Keying may have given up since it was asked: it is asked again while packets wait, and no more often than this.
ACQUIRE_SECONDS = 1.0


class HoldQueue:
    """Bounded in packets and time; the oldest leaves first. Also paces the asking."""

    __slots__ = ("_ask_at", "_packets")

    def __init__(self) -> None:
        self._packets: deque[tuple[float, bytes]] = deque()
        self._ask_at = float("-inf")

    def __len__(self) -> int:
        return len(self._packets)

    def put(self, packet: bytes, now: float) -> bool:
        """Let ``packet`` wait; True if the oldest had to leave for it."""
        full = len(self._packets) >= MAX_HELD_PACKETS
        if full:
            self._packets.popleft()
        self._packets.append((now + HOLD_SECONDS, packet))
        return full

    def expire(self, now: float) -> int:
        """Let go what has waited too long; how many packets that were."""
        expired = 0
        while self._packets and now >= self._packets[0][0]:
            self._packets.popleft()
            expired += 1
        return expired

    def take(self) -> list[bytes]:
        """All that wait, oldest first. There is an SA now: the next packet without one asks at once."""
        taken = [packet for _, packet in self._packets]
        self._packets.clear()
        self._ask_at = float("-inf")
        return taken

    def ask(self, now: float) -> bool:
        """Whether keying should be asked now, which then counts as done."""
        due = bool(self._packets) and now >= self._ask_at
        if due:
            self._ask_at = now + ACQUIRE_SECONDS
        return due

    def deadline(self) -> float | None:
        """When ``expire`` or ``ask`` has something to do next."""
        return min(self._packets[0][0], self._ask_at) if self._packets else None


class Holds:
    """A queue for each policy that protects."""

    __slots__ = ("_queues", "_waiting")

    def __init__(self) -> None:
        self._queues: dict[str, HoldQueue] = {}
        self._waiting: dict[str, HoldQueue] = {}  # those of them that are not empty

    def __contains__(self, policy: str) -> bool:
        return policy in self._queues

    def add(self, policy: str) -> None:
        """One for ``policy``."""
        self._queues[policy] = HoldQueue()

    def remove(self, policy: str) -> int:
        """Take it away, if there is one; how many packets that were."""
        self._waiting.pop(policy, None)
        return len(self._queues.pop(policy, ()))

    def put(self, policy: str, packet: bytes, now: float) -> tuple[bool, bool]:
        """Whether the oldest had to leave for ``packet``; whether keying should be asked now."""
        held = self._waiting[policy] = self._queues[policy]
        return held.put(packet, now), held.ask(now)

    def take(self, policy: str, now: float) -> tuple[int, list[bytes]]:
        """How many have waited too long; the others, oldest first."""
        held = self._waiting.pop(policy, None)
        return (0, []) if held is None else (held.expire(now), held.take())

    def expire(self, now: float) -> tuple[int, list[str]]:
        """How many have waited too long; the policies for which keying should be asked now."""
        expired, asked = 0, []
        for policy, held in list(self._waiting.items()):
            expired += held.expire(now)
            if held.ask(now):
                asked.append(policy)
            if not held:
                del self._waiting[policy]
        return expired, asked

    def deadline(self) -> float:
        """When ``expire`` has something to do; infinity while nothing waits."""
        return min((at for held in self._waiting.values() if (at := held.deadline()) is not None), default=inf)

    def length(self, policy: str) -> int:
        """How many wait for ``policy``."""
        return len(self._queues.get(policy, ()))

    def lengths(self) -> dict[str, int]:
        """How many wait, by policy."""
        return {policy: len(held) for policy, held in self._queues.items()}
