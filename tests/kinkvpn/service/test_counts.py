"""What is counted is told by name, each family by itself, and times in classes."""

from __future__ import annotations

from kinkvpn.proto.events import Count, Family, Label, Tally
from kinkvpn.service.counts import Counts


def test_nothing_yet() -> None:
    assert Counts().status() == {"counters": {}, "labelled": {}, "seconds": {}}


def test_tallies_labels_and_times() -> None:
    counts = Counts()
    done, sent = Label(Family.EXCHANGES, "create.completed"), Label(Family.MESSAGES_SENT, "create")
    counts.add(Tally.DEFECT)
    counts.label([sent, sent])
    counts.take(Count(Tally.IGNORED_EVENT, (done,), took=0.003))
    counts.take(Count(Tally.IGNORED_EVENT))
    told = counts.status()
    assert told["counters"] == {Tally.DEFECT.value: 1, Tally.IGNORED_EVENT.value: 2}
    assert told["labelled"] == {"exchanges": {"create.completed": 1}, "messages_sent": {"create": 2}}
    assert list(told["seconds"]) == ["create"]
    took = told["seconds"]["create"]
    assert (took["count"], took["sum"], took["le"]["0.002"], took["le"]["0.005"]) == (1, 0.003, 0, 1)
