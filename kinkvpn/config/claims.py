"""What one peer or policy alone may have, and traffic that must be one policy's for certain."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from esp.policy import covers, overlap
from esp.sa import Endpoint
from kinkvpn.traffic import overlaps, show_selector

if TYPE_CHECKING:
    from esp.policy import Policy, Selector
    from kinkvpn.document import Table
    from kinkvpn.proto.settings import PolicySettings


@dataclass(slots=True)
class Claims:
    """What one peer or policy of a file may have only, and who has it."""

    values: dict[tuple[str, str, str | Endpoint], tuple[Table, str]] = field(default_factory=dict)
    policies: list[tuple[PolicySettings, Table]] = field(default_factory=list)
    before: list[tuple[Policy, Table]] = field(default_factory=list)
    lent: tuple[Selector, ...] = ()  # what people's policies are parts of

    def claim(self, table: Table, key: str, value: str | Endpoint, owner: str = "", kind: str = "peer") -> None:
        """``owner``, who is what ``table`` says, one of its ``kind``, wants ``value`` for ``key``.

        An empty one was reported already.
        """
        shown = value.address if isinstance(value, Endpoint) else value
        holder, name = self.values.setdefault((kind, key, value), (table, owner))
        if shown and holder is not table:
            table.report_value((key,), shown, f"one of its own; {name or holder.place(table)} has this one")

    def check(self) -> None:
        """Report what a policy gets nothing of, or has to share."""
        self._check_overlaps()
        self._check_lent()
        self._check_reached()

    def _check_reached(self) -> None:
        """What somebody thinks is protected would go in the clear where something before it has all of it."""
        for passing, entry in self.before:
            for policy, _ in self.policies:
                if any(covers(one, policy.selector) for one in passing.selectors):
                    entry.report(
                        f"{entry.name}: leaves nothing of policy {policy.name} ({show_selector(policy.selector)}): "
                        'expected a part of it, or order = "after"'
                    )

    def _check_lent(self) -> None:
        """The peers' policies stand before those of people, who would get no answers."""
        for policy, entry in self.policies:
            shared = next((one for one in self.lent if overlap(one, policy.selector)), None)
            if shared is not None:
                entry.report(
                    f"{entry.name}: policy {policy.name} ({show_selector(policy.selector)}) overlaps "
                    f"what people are lent ({show_selector(shared)}): expected traffic that one of them has"
                )

    def _check_overlaps(self) -> None:
        """Traffic that two policies want belongs to neither for certain."""
        order = {id(policy): index for index, (policy, _) in enumerate(self.policies)}
        for pair in overlaps(self.policies, lambda claimed: claimed[0].selector):
            (first, _), (second, entry) = sorted(pair, key=lambda item: order[id(item[0])])
            entry.report(
                f"{entry.name}: policy {second.name} ({show_selector(second.selector)}) overlaps "
                f"policy {first.name} ({show_selector(first.selector)}): expected traffic that one policy has"
            )
