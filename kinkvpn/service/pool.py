"""The addresses that a gateway lends: one of each family to a principal, the same again for as long as it remembers.

Where the search begins follows from the name, so a gateway that has forgotten everything finds the same, too, unless
somebody else has it by now. Bounded, and without a clock.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence, Set

    from esp.policy import Network
    from kinkvpn.proto.lease import Address

# Ours. Of those who have gone the last ones are remembered: 4,096 names and addresses are 1 MB.
MAX_REMEMBERED = 4096
# Ours. What a search looks at, of an IPv6 pool of 2^64 too: enough for every peer that a gateway can have.
MAX_SEARCHED = 1 << 16


class Span(NamedTuple):
    """Some addresses in a row."""

    first: int
    length: int
    version: int

    def at(self, index: int) -> Address:
        """One of them."""
        number = self.first + index
        return ip_address(number.to_bytes(4 if self.version == 4 else 16))


class Pool:
    """Who has which addresses.

    Args:
        networks: to lend from, those of each family in order.
        fixed: by principal, what nobody else gets, inside of ``networks`` or not.
        kept: addresses in ``networks`` that nobody gets: the gateway's own.
    """

    def __init__(
        self,
        networks: Sequence[Network],
        fixed: Mapping[str, tuple[Address, ...]] | None = None,
        kept: Set[Address] = frozenset(),
    ) -> None:
        self._spans: dict[int, list[Span]] = {
            version: [_hosts(network) for network in networks if network.version == version]
            for version in sorted({network.version for network in networks})
        }
        self._fixed = dict(fixed or {})
        self._holders: dict[Address, str] = dict.fromkeys(kept, "")
        self._holders |= {address: name for name, addresses in self._fixed.items() for address in addresses}
        self._here: dict[str, tuple[Address, ...]] = {}
        self._gone: OrderedDict[str, tuple[Address, ...]] = OrderedDict()  # the longest gone first

    def take(self, principal: str, wanted: Sequence[Address] = ()) -> tuple[Address, ...]:
        """Addresses for ``principal``: those it has or had, those ``wanted`` if they are free, or others; none are left
        of a family whose pool is empty.
        """
        if principal in self._here:
            return self._here[principal]
        kept = (*self._gone.pop(principal, ()), *self._own(principal))
        known: dict[int, Address] = {address.version: address for address in kept}
        for version in self._spans:
            if version not in known:
                found = self._find(principal, version, wanted)
                if found is not None:
                    known[version] = found
        addresses = tuple(known[version] for version in sorted(known))
        self._holders |= dict.fromkeys(addresses, principal)
        self._here[principal] = addresses
        return addresses

    def give_back(self, principal: str) -> None:
        """They are ``principal``'s until somebody needs them."""
        addresses = self._here.pop(principal, None)
        if addresses is None:
            return
        self._gone[principal] = addresses
        if len(self._gone) > MAX_REMEMBERED:
            self._forget()

    def _own(self, principal: str) -> tuple[Address, ...]:
        return self._fixed.get(principal, ())

    def _find(self, principal: str, version: int, wanted: Sequence[Address]) -> Address | None:
        spans = self._spans[version]
        for address in wanted:
            if address.version == version and address not in self._holders and _inside(address, spans):
                return address
        free = self._free(principal, spans)
        while free is None and self._gone:
            free = next((address for address in self._forget() if address.version == version), None)
        return free

    def _free(self, principal: str, spans: Sequence[Span]) -> Address | None:
        return next((address for address in _candidates(principal, spans) if address not in self._holders), None)

    def _forget(self) -> list[Address]:
        """Who has been gone for the longest; what that sets free, all of it in the pool."""
        principal, addresses = self._gone.popitem(last=False)
        freed = [address for address in addresses if address not in self._own(principal)]
        for address in freed:
            del self._holders[address]
        return freed


def _hosts(network: Network) -> Span:
    """Without what is no host's: the first, and of IPv4 the last, where there are more than two (RFC 4291 §2.6.1)."""
    first, length = int(network.network_address), network.num_addresses
    if length > 2:
        first, length = first + 1, length - (2 if network.version == 4 else 1)
    return Span(first, length, network.version)


def _inside(address: Address, spans: Sequence[Span]) -> bool:
    return any(0 <= int(address) - span.first < span.length for span in spans)


def _candidates(principal: str, spans: Sequence[Span]) -> Iterator[Address]:
    start = int.from_bytes(hashlib.sha256(principal.encode()).digest()[:8])
    for span in spans:
        for step in range(min(span.length, MAX_SEARCHED)):
            yield span.at((start + step) % span.length)
