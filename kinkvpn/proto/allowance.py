"""How many errors may leave without a key: few, and fewer to one place (RFC 4430 §10)."""

from __future__ import annotations

from collections import OrderedDict

# Ours. A person who debugs sees the first errors of a source at once; a flood from one (forged) source gets five in
# a burst and one a second, smaller than what it sent; 1,024 sources of a few octets each are remembered.
BURST = 5.0
PER_SECOND = 1.0
MAX_SOURCES = 1024


class Allowance:
    """A token bucket per source address, or per principal where there is one; bounded in number."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, source: str, now: float) -> bool:
        """Whether one more may go to ``source``.

        Args:
            source: address in text form, or principal.
            now: seconds, monotonic.
        """
        tokens, since = self._buckets.pop(source, (BURST, now))
        tokens = min(BURST, tokens + (now - since) * PER_SECOND)
        allowed = tokens >= 1
        self._buckets[source] = (tokens - 1 if allowed else tokens, now)
        if len(self._buckets) > MAX_SOURCES:
            self._buckets.popitem(last=False)
        return allowed
