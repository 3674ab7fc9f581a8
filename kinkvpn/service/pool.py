"""The addresses that a gateway lends: one of each family to a machine of a principal's, the same again for as long as
it remembers.

Where the search begins follows from their names, so a gateway that has forgotten everything finds the same, too, unless
somebody else has it by now. Bounded, and without a clock.
"""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence, Set

    from esp.policy import Network
    from kinkvpn.proto.lease import Address

# Ours. Of those who have gone the last ones are remembered: 4,096 names and addresses are 1 MB.
MAX_REMEMBERED = 4096
# Ours. Of one principal, so that nobody has the others forgotten by coming from ever other machines.
MAX_REMEMBERED_OF_ONE = 16
# Ours. What a search looks at, of an IPv6 pool of 2^64 too: enough for every peer that a gateway can have.
MAX_SEARCHED = 1 << 16


class Holder(NamedTuple):
    """Who has an address: a machine of a principal's, or whichever it is that has come."""

    principal: str
    machine: bytes = b""


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
        fixed: by principal, what nobody else gets, inside of ``networks`` or not. Of its machines the first that
            comes has it.
        kept: addresses in ``networks`` that nobody gets: the gateway's own.
    """

    def __init__(
        self,
        networks: Sequence[Network],
        fixed: Mapping[str, tuple[Address, ...]] | None = None,
        kept: Set[Address] = frozenset(),
    ) -> None:
        self._own = kept
        self._taken: set[Address] = set()  # by those who are here, or have gone
        self._here: dict[Holder, tuple[Address, ...]] = {}
        self._with_fixed: dict[str, Holder] = {}
        self._gone: OrderedDict[Holder, tuple[Address, ...]] = OrderedDict()  # the longest gone first, without fixed
        self._remembered: Counter[str] = Counter()  # of those, by principal
        self.change(networks, fixed or {})

    def change(self, networks: Sequence[Network], fixed: Mapping[str, tuple[Address, ...]]) -> list[Holder]:
        """Lend from these, and fix those, from now on; who is here with what it would not be given any more, and should
        give that back.
        """
        self._spans: dict[int, list[Span]] = {
            version: [hosts(network) for network in networks if network.version == version]
            for version in sorted({network.version for network in networks})
        }
        self._fixed = dict(fixed)
        self._reserved = {*self._own, *(address for addresses in fixed.values() for address in addresses)}
        for holder, addresses in self._gone.items():
            self._gone[holder] = self._left_of(addresses)
        return [holder for holder, addresses in self._here.items() if not self._suits(holder, addresses)]

    def _suits(self, holder: Holder, addresses: tuple[Address, ...]) -> bool:
        first = self._with_fixed.get(holder.principal) == holder
        own = self._fixed.get(holder.principal, ()) if first else ()
        return {*own} <= {*addresses} and all(address in own or self._is_lent(address) for address in addresses)

    def _is_lent(self, address: Address) -> bool:
        return address not in self._reserved and _inside(address, self._spans.get(address.version, ()))

    def _left_of(self, addresses: tuple[Address, ...]) -> tuple[Address, ...]:
        """Those that stay with who has gone; nobody has the others."""
        left = tuple(filter(self._is_lent, addresses))
        self._taken -= {*addresses} - {*left}
        return left

    def take(self, principal: str, wanted: Sequence[Address] = (), machine: bytes = b"") -> tuple[Address, ...]:
        """Addresses for a machine of ``principal``: those it has, those ``wanted`` if they are free, those it had, or
        others; none are left of a family whose pool is empty.
        """
        holder = Holder(principal, machine)
        if holder in self._here:
            return self._here[holder]
        known: dict[int, Address] = {}
        wanted = [*wanted, *self._drop(holder)]
        if self._with_fixed.setdefault(principal, holder) == holder:
            known |= {address.version: address for address in self._fixed.get(principal, ())}
        for version in self._spans:
            if version not in known:
                found = self._find(holder, version, wanted)
                if found is not None:
                    known[version] = found
        addresses = tuple(known[version] for version in sorted(known))
        self._taken |= {*addresses}
        self._here[holder] = addresses
        return addresses

    def is_free(self, address: Address) -> bool:
        """Whether :meth:`take` would give it to whoever wants it."""
        return address not in self._taken and self._is_lent(address)

    def give_back(self, principal: str, machine: bytes = b"") -> None:
        """They are theirs until somebody needs them."""
        holder = Holder(principal, machine)
        addresses = self._here.pop(holder, None)
        if addresses is None:
            return
        if self._with_fixed.get(principal) == holder:
            del self._with_fixed[principal]
        self._gone[holder] = self._left_of(addresses)
        self._remembered[principal] += 1
        if self._remembered[principal] > MAX_REMEMBERED_OF_ONE:
            self._drop(next(one for one in self._gone if one.principal == principal))
        if len(self._gone) > MAX_REMEMBERED:
            self._forget()

    def _find(self, holder: Holder, version: int, wanted: Sequence[Address]) -> Address | None:
        for address in wanted:
            if address.version == version and self.is_free(address):
                return address
        free = self._free(holder, self._spans[version])
        while free is None and self._gone:
            free = next((address for address in self._forget() if address.version == version), None)
        return free

    def _free(self, holder: Holder, spans: Sequence[Span]) -> Address | None:
        candidates = _candidates(holder, spans)
        return next((one for one in candidates if one not in self._taken and one not in self._reserved), None)

    def _forget(self) -> list[Address]:
        """Who has been gone for the longest; what that sets free, all of it in the pool."""
        return list(self._drop(next(iter(self._gone))))

    def _drop(self, holder: Holder) -> tuple[Address, ...]:
        """What ``holder`` had, which is free now."""
        addresses = self._gone.pop(holder, None)
        if addresses is None:
            return ()
        self._taken -= {*addresses}
        self._remembered[holder.principal] -= 1
        if not self._remembered[holder.principal]:
            del self._remembered[holder.principal]
        return addresses


def hosts(network: Network) -> Span:
    """What there is to lend of it: not what is no host's, the first, and of IPv4 the last, where there are more than
    two of them (RFC 4291 §2.6.1).
    """
    first, length = int(network.network_address), network.num_addresses
    if length > 2:
        first, length = first + 1, length - (2 if network.version == 4 else 1)
    return Span(first, length, network.version)


def _inside(address: Address, spans: Sequence[Span]) -> bool:
    return any(0 <= int(address) - span.first < span.length for span in spans)


def _candidates(holder: Holder, spans: Sequence[Span]) -> Iterator[Address]:
    start = int.from_bytes(hashlib.sha256(holder.principal.encode() + holder.machine).digest()[:8])
    for span in spans:
        for step in range(min(span.length, MAX_SEARCHED)):
            yield span.at((start + step) % span.length)
