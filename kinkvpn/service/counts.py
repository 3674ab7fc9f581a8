"""What keying counts, from the start of the daemon to its end: nothing of it ever goes back."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import groupby
from typing import TYPE_CHECKING

from kinkvpn.latency import Latencies

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kinkvpn.api import answers
    from kinkvpn.proto.events import Count, Label, Tally


class Counts:
    """Tallies, the labels of each family, and how long exchanges took."""

    def __init__(self) -> None:
        self._counters: Counter[Tally] = Counter()
        self._labelled: Counter[Label] = Counter()
        self._latencies: defaultdict[Label, Latencies] = defaultdict(Latencies)

    def add(self, tally: Tally) -> None:
        """One more."""
        self._counters[tally] += 1

    def label(self, labels: Iterable[Label]) -> None:
        """One more of each."""
        self._labelled.update(labels)

    def take(self, count: Count) -> None:
        """As an effect has it."""
        self.add(count.tally)
        self.label(count.labels)
        if count.took is not None:
            self._latencies[count.labels[0]].add(count.took)

    def status(self) -> answers.Counted:
        """All of it, by name."""
        return {
            "counters": {tally.value: count for tally, count in sorted(self._counters.items())},
            "labelled": {
                family.value: {label.name: self._labelled[label] for label in found}
                for family, found in groupby(sorted(self._labelled), lambda label: label.family)
            },
            "seconds": {label.name.partition(".")[0]: took.status() for label, took in self._latencies.items()},
        }
