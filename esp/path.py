"""How much the paths to outer addresses carry, as far as it has been told (RFC 4301 §8.2, RFC 1191, RFC 8201)."""

from __future__ import annotations

from math import inf

from esp.mtu import LARGEST_PATH, SMALLEST_PATH

# RFC 1191 §6.3, RFC 8201 §4: what ICMP has said is tried again after ten minutes; the path may have changed.
FORGET_SECONDS = 600.0
# Ours. An address costs 200 octets; peers that send from more than these at once are not there.
MAX_ADDRESSES = 16_384


class Paths:
    """What is known of each path. What is not, carries :data:`esp.mtu.LARGEST_PATH`."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, float]] = {}  # octets, and when that is forgotten; by outer address

    def octets(self, address: str) -> int:
        """Octets of the largest IP packet that the path to ``address`` carries."""
        known = self._known.get(address)
        return LARGEST_PATH if known is None else known[0]

    def narrow(self, address: str, octets: int, now: float) -> bool:
        """The path to ``address`` is said to carry no more than ``octets``. Whether that is news.

        Nobody makes it narrower than what every path has to carry: an attacker who could would have us send ten
        packets for each (RFC 8201 §4, RFC 4301 §8.2.2).
        """
        octets = max(octets, _least(address))
        if octets >= self.octets(address):
            return False
        self._keep(address, octets, now + FORGET_SECONDS)
        return True

    def confirm(self, address: str, octets: int) -> bool:
        """The path to ``address`` has been found to carry ``octets`` and no more, by trying. Whether that is news."""
        octets = max(octets, _least(address))
        news = octets != self.octets(address)
        self._keep(address, octets, inf)
        return news

    def _keep(self, address: str, octets: int, until: float) -> None:
        if len(self._known) >= MAX_ADDRESSES and address not in self._known:
            del self._known[next(iter(self._known))]
        self._known[address] = octets, until

    def forget(self, now: float) -> list[str]:
        """The addresses of which nothing is known any more from now on."""
        old = [address for address, (_, until) in self._known.items() if until <= now]
        for address in old:
            del self._known[address]
        return old

    def deadline(self) -> float:
        """When :meth:`forget` has something to do; infinity while there is nothing."""
        return min((until for _, until in self._known.values()), default=inf)


def _least(address: str) -> int:
    return SMALLEST_PATH[6 if ":" in address else 4]
