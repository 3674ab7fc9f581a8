"""How many errors may leave without a key: few, fewer to one place, and never a stream (RFC 4430 §4.2.8, §10)."""

from __future__ import annotations

from collections import OrderedDict
from ipaddress import IPv6Address

# Ours. A person who debugs sees the first errors of a source at once; a flood from one (forged) source gets five in
# a burst and one a second, smaller than what it sent; 1,024 sources of a few octets each are remembered.
BURST = 5.0
PER_SECOND = 1.0
MAX_SOURCES = 1024
# Ours. Whoever forges a source for each datagram has a fresh bucket each time, so there is one for all of them
# together: 16 kB/s of errors are two hundred a second, more than a site of two thousand peers needs when all its
# tickets have become useless at once (who hears nothing asks again), and nothing to whoever they are aimed at.
BURST_OCTETS = 65536.0
OCTETS_PER_SECOND = 16384.0
# An IPv6 site has a /64 at the least (RFC 4291 §2.5.4), and all of its 2^64 addresses to ask from.
_INTERFACE_BITS = 64


def source_of(address: str) -> str:
    """Whom an address counts for: itself in IPv4, its /64 in IPv6.

    Args:
        address: in text form, as a socket gives it; a zone (``%eth0``) is no part of it.
    """
    if ":" not in address:
        return address
    parsed = IPv6Address(address.partition("%")[0])
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return f"{int(parsed) >> _INTERFACE_BITS:x}::/64"


class Allowance:
    """A token bucket for each source, or principal where there is one, bounded in number; and one of octets for all.

    Args:
        times: as many octets for all as strangers have, for those who are not quite that.
    """

    def __init__(self, times: int = 1) -> None:
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._burst_octets = times * BURST_OCTETS
        self._octets_per_second = times * OCTETS_PER_SECOND
        self._octets = self._burst_octets
        self._since = 0.0

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, source: str, now: float, octets: int = 0) -> bool:
        """Whether one more may go to ``source``; it costs nothing when it may not.

        Args:
            source: from ``source_of``, or a principal.
            now: seconds, monotonic.
            octets: length of what would go.
        """
        tokens, since = self._buckets.pop(source, (BURST, now))
        tokens = min(BURST, tokens + (now - since) * PER_SECOND)
        earned = max(0.0, now - self._since) * self._octets_per_second
        self._octets = min(self._burst_octets, self._octets + earned)
        self._since = now
        allowed = tokens >= 1 and self._octets >= octets
        if allowed:
            tokens -= 1
            self._octets -= octets
        self._buckets[source] = (tokens, now)
        if len(self._buckets) > MAX_SOURCES:
            self._buckets.popitem(last=False)
        return allowed
