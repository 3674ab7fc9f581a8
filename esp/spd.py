"""The SPD: which policy decides for a packet (RFC 4301 §4.4.1, §5.1, §5.2)."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from enum import Enum
from heapq import merge
from itertools import count
from operator import itemgetter
from typing import TYPE_CHECKING

from esp.errors import DropReason, InvalidPolicy
from esp.inner import OPAQUE, PROTOCOLS_WITH_PORTS, PROTOCOLS_WITH_TYPE, parse_inner
from esp.policy import Action, Direction, box, check_policy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from esp.inner import Flow
    from esp.policy import Policy, Selector

# Ours. One entry is about 250 octets: 4 MB at most. A host that scans fills it and pays for its own misses.
MAX_FLOWS = 16_384

_SHOW_MORE = PROTOCOLS_WITH_PORTS | PROTOCOLS_WITH_TYPE

# What is to come protected does not pass in the clear (RFC 4301 §5.2); BYPASS does.
_CLEARTEXT = {Action.DISCARD: DropReason.POLICY_DISCARD, Action.PROTECT: DropReason.NOT_PROTECTED}

# What a flow has, in the order of the packet: source, destination, protocol, source port, destination port.
Point = tuple[int, int, int, int, int]


class Match(Enum):
    """Whether a flow is of a selector's traffic."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"  # the addresses are, but the packet does not show the rest (RFC 4301 §4.4.1.1, OPAQUE)


def point(flow: Flow) -> Point:
    """``flow`` as numbers."""
    protocol, addresses, ports = flow
    half = len(addresses) // 2
    source, destination = int.from_bytes(addresses[:half]), int.from_bytes(addresses[half:])
    if ports == OPAQUE:
        return source, destination, protocol, OPAQUE, OPAQUE
    return source, destination, protocol, ports >> 16, ports & 0xFFFF


class SelectorMatcher:
    """A selector made ready for flows of one direction: an interval for each place of a :data:`Point`."""

    __slots__ = ("intervals", "names_opaque", "octets")

    def __init__(self, selector: Selector, direction: Direction) -> None:
        local, remote, protocol, local_port, remote_port = box(selector)
        self.octets = 8 if selector.version == 4 else 32  # of both addresses
        self.intervals = (
            (local, remote, protocol, local_port, remote_port)
            if direction is Direction.OUTBOUND
            else (remote, local, protocol, remote_port, local_port)
        )
        self.names_opaque = any(last == OPAQUE for _, last in self.intervals)

    def match(self, flow: Flow) -> Match:
        """Whether ``flow`` is of its traffic."""
        return self.match_point(point(flow)) if len(flow[1]) == self.octets else Match.NO

    def match_point(self, at: Point) -> Match:
        """The same of a flow of its address family."""
        found = Match.YES
        for shown, (first, last) in zip(at, self.intervals, strict=True):
            if not first <= shown <= last:
                if shown != OPAQUE:
                    return Match.NO
                found = Match.UNKNOWN
        return found


Row = tuple[SelectorMatcher, "Policy"]
Place = tuple[int, int]  # rank, and number of its coming


class _Index:
    """Rows in order, found by what a packet has: of each place of a :data:`Point`, the prefix that a row's interval
    has in common.

    Rows whose prefixes are of the same lengths, of which there are few kinds in any configuration, share a table; a
    packet, as one long number, is looked up in each table once (Srinivasan, Suri and Varghese, 1999: tuple space
    search).

    Args:
        octets: of both addresses of its packets.
        shown: whether these show protocol and ports; otherwise only addresses are looked at.
    """

    __slots__ = ("_shown", "_tables", "_widths")

    def __init__(self, octets: int, *, shown: bool) -> None:
        self._widths = 4 * octets, 4 * octets, 8, 16, 16
        self._shown = 5 if shown else 2
        self._tables: dict[int, dict[int, dict[Place, Row]]] = {}  # by mask, key and order

    def add(self, order: Place, row: Row) -> None:
        """Put ``row`` where ``order`` has its place."""
        mask, key = self._place(row[0])
        rows = self._tables.setdefault(mask, {}).setdefault(key, {})
        between = bool(rows) and order < next(reversed(rows))
        rows[order] = row
        if between:
            self._tables[mask][key] = dict(sorted(rows.items(), key=itemgetter(0)))

    def remove(self, order: Place, row: Row) -> None:
        """Take ``row`` out."""
        mask, key = self._place(row[0])
        table = self._tables[mask]
        del table[key][order]
        if not table[key]:
            del table[key]
        if not table:
            del self._tables[mask]

    def _place(self, matcher: SelectorMatcher) -> tuple[int, int]:
        mask = key = 0
        for place, (width, (low, last)) in enumerate(zip(self._widths, matcher.intervals, strict=True)):
            first = max(low, 0)  # OPAQUE is below all that is shown: "any" begins there
            free = (first ^ last).bit_length() if place < self._shown else width
            mask = mask << width | ((1 << width) - 1) >> free << free
            key = key << width | first
        return mask, key & mask

    def candidates(self, flow: Flow) -> Iterator[Row]:
        """The rows that may match, in order."""
        protocol, addresses, ports = flow
        # What is not shown is nothing that a row here asks for, so that it may be any number.
        whole = int.from_bytes(addresses) << 40 | max(protocol, 0) << 32 | max(ports, 0)
        found = [rows.items() for mask, table in self._tables.items() if (rows := table.get(whole & mask)) is not None]
        return (row for _, row in (merge(*found) if len(found) > 1 else found[0] if found else ()))


class _Decisions(dict["Flow", "Policy | None"]):
    """What has been decided for each flow; what has not is asked of ``search``, and kept."""

    __slots__ = ("_search",)

    def __init__(self, search: Callable[[Flow], Policy | None]) -> None:
        super().__init__()
        self._search = search

    def __missing__(self, flow: Flow) -> Policy | None:
        found = self._search(flow)
        if len(self) >= MAX_FLOWS:
            self.clear()
        self[flow] = found
        return found


class PolicyList:
    """The policies of one direction: ordered, the first match decides, no match is a refusal (RFC 4301 §4.4.1).

    What decided for a flow is kept, so that the cost of a packet does not depend on how many policies there are. What
    a new flow costs depends on how many kinds of prefix lengths they have.

    Args:
        direction: of the packets that are looked up.

    Attributes:
        lookup: the policy that decides for a packet of a flow; None where none is known to. Not a method: for a flow
            that is known a dict alone takes 45 ns, one in a method 105, and every packet asks.
    """

    __slots__ = ("_decisions", "_direction", "_indexes", "_order", "_rows", "lookup")

    def __init__(self, direction: Direction) -> None:
        self._direction = direction
        self._order = count()
        self._rows: dict[str, list[tuple[Place, Row]]] = {}
        # By octets of both addresses, and whether protocol and ports are looked at: not for packets that hide them.
        self._indexes: dict[tuple[int, bool], _Index] = {
            (octets, shown): _Index(octets, shown=shown) for octets in (8, 32) for shown in (True, False)
        }
        self._decisions = _Decisions(self._search)
        self.lookup: Callable[[Flow], Policy | None] = self._decisions.__getitem__

    def add(self, policy: Policy) -> None:
        """Put ``policy``, which is checked, behind those of its rank."""
        matchers = [SelectorMatcher(selector, self._direction) for selector in policy.selectors]
        rows = self._rows[policy.name] = [((policy.rank, next(self._order)), (matcher, policy)) for matcher in matchers]
        for order, row in rows:
            for index in self._of(row[0]):
                index.add(order, row)
        self._decisions.clear()

    def replace(self, policy: Policy) -> None:
        """Put ``policy`` in the place of the one of its name, which has the same selectors."""
        rows = self._rows[policy.name] = [(order, (matcher, policy)) for order, (matcher, _) in self._rows[policy.name]]
        for order, row in rows:
            for index in self._of(row[0]):
                index.remove(order, row)
                index.add(order, row)
        self._decisions.clear()

    def remove(self, name: str) -> None:
        """Take out the policy called ``name``, if it is here."""
        for order, row in self._rows.pop(name, ()):
            for index in self._of(row[0]):
                index.remove(order, row)
        self._decisions.clear()

    def _of(self, matcher: SelectorMatcher) -> list[_Index]:
        kinds = (False,) if matcher.names_opaque else (False, True)
        return [self._indexes[matcher.octets, shown] for shown in kinds]

    def _search(self, flow: Flow) -> Policy | None:
        """The first policy that matches.

        A packet that does not show its ports passes an entry that asks for them by, as RFC 4301 §4.4.1.1 has it, but
        then only one that asks for OPAQUE can decide. One behind it that asks for nothing could be BYPASS.
        """
        uncertain = False
        at = point(flow)
        shown = flow[0] != OPAQUE and (flow[2] != OPAQUE or flow[0] not in _SHOW_MORE)
        for matcher, policy in self._indexes[len(flow[1]), shown].candidates(flow):
            match = matcher.match_point(at)
            if match is Match.YES and (matcher.names_opaque or not uncertain):
                return policy
            uncertain = uncertain or match is Match.UNKNOWN
        return None


class Spd:
    """All policies, by name, and in order for each direction."""

    __slots__ = ("_peers", "_policies", "inbound", "outbound")

    def __init__(self) -> None:
        self._policies: dict[str, Policy] = {}
        self._peers: Counter[str] = Counter()
        self.outbound = PolicyList(Direction.OUTBOUND)
        self.inbound = PolicyList(Direction.INBOUND)

    def __contains__(self, name: object) -> bool:
        return name in self._policies

    def __getitem__(self, name: str) -> Policy:
        """The policy called ``name``.

        Raises:
            InvalidPolicy: there is none.
        """
        try:
            return self._policies[name]
        except KeyError:
            raise InvalidPolicy(f"no policy {name!r}") from None

    def add(self, policy: Policy) -> None:
        """Put ``policy`` behind those of its rank.

        Raises:
            InvalidPolicy: its name is taken, or a selector of it matches nothing.
        """
        if policy.name in self._policies:
            raise InvalidPolicy(f"there is a policy {policy.name!r} already")
        check_policy(policy)
        self._policies[policy.name] = policy
        self._peers[policy.peer] += 1
        for direction in policy.directions:
            self._list(direction).add(policy)

    def remove(self, name: str) -> Policy:
        """Take out and return the policy called ``name``.

        Raises:
            InvalidPolicy: there is none.
        """
        policy = self[name]
        del self._policies[name]
        self._peers[policy.peer] -= 1
        for direction in policy.directions:
            self._list(direction).remove(name)
        return policy

    def replace(self, policy: Policy) -> None:
        """Put ``policy`` in the place of the one of its name.

        Raises:
            InvalidPolicy: there is none, or its traffic is another.
        """
        alike = replace(policy, answer_within=None, large=False)
        if alike != replace(self[policy.name], answer_within=None, large=False):
            raise InvalidPolicy(f"policy {policy.name!r} is about something else")
        self._policies[policy.name] = policy
        for direction in policy.directions:
            self._list(direction).replace(policy)

    def refusal(self, packet: bytes) -> DropReason | None:
        """Why ``packet``, from the outside in the clear, may not pass (RFC 4301 §5.2, step 3b); None if it may."""
        inner = parse_inner(packet)
        if inner is None or inner[0] != len(packet):
            return DropReason.NOT_IP
        policy = self.inbound.lookup(inner[1])
        if policy is None:
            return DropReason.NO_POLICY
        return _CLEARTEXT.get(policy.action)

    def _list(self, direction: Direction) -> PolicyList:
        return self.outbound if direction is Direction.OUTBOUND else self.inbound

    def any_of(self, peer: str) -> bool:
        """Whether some policy is of ``peer``."""
        return self._peers[peer] > 0
