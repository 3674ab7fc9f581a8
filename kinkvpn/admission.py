"""Who may come without a [[peer]] of their own: rules that name principals, patterns of them, or groups."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from kinkvpn.proto.lease import Lease

# Part of a refusal, and what the doctor knows it by.
NO_GROUPS = "its ticket has no PAC, which would tell its groups"

# Ours. What a * stands for: a part of a name, never more of them, nor a realm. A backslash makes any of the three part
# of a name (RFC 1964 §2.1.3), and who has such a name is meant by nobody's pattern.
_PART = r"[^/@\\]*"


@dataclass(frozen=True, slots=True)
class Rule:
    """One [[people.allow]].

    Args:
        who: principals, or patterns with ``*``; none for everybody of ``groups``.
        groups: SIDs, of which somebody must be in one; none for everybody of ``who``.
        barred: principals or patterns for whom the rule is none.
        lease: what they are lent, but for the addresses.
    """

    who: tuple[str, ...]
    groups: frozenset[str]
    barred: tuple[str, ...]
    lease: Lease

    def admits(self, principal: str, groups: Callable[[], frozenset[str]]) -> bool:
        """Whether ``principal`` is meant.

        Args:
            principal: with its realm, authenticated.
            groups: returns the SIDs of its groups; called only where it matters.

        Raises:
            NotAdmitted: from ``groups``.
        """
        if matches(principal, self.barred) or (self.who and not matches(principal, self.who)):
            return False
        return not self.groups or not self.groups.isdisjoint(groups())


def matches(principal: str, patterns: Iterable[str]) -> bool:
    """Whether one of ``patterns`` means ``principal``: ``*`` is any text without ``/`` and ``@``; case matters."""
    return any(_compiled(pattern).fullmatch(principal) is not None for pattern in patterns)


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(_PART.join(map(re.escape, pattern.split("*"))), re.DOTALL)


def first_rule(rules: Sequence[Rule], principal: str, groups: Callable[[], frozenset[str]]) -> Rule | None:
    """The first of ``rules`` that lets ``principal`` in. Raises NotAdmitted, from ``groups``."""
    return next((rule for rule in rules if rule.admits(principal, groups)), None)


def lacks_groups(rules: Sequence[Rule], principal: str, groups: Callable[[], frozenset[str]]) -> bool:
    """Whether a rule would let ``principal`` in for its groups, and its ticket has none at all. Raises NotAdmitted."""
    meant = any(rule.groups and rule.admits(principal, partial(frozenset, rule.groups)) for rule in rules)
    return meant and not groups()
