from __future__ import annotations

from dataclasses import replace

import pytest
from support.kinkhosts import policies, settings

from kinkvpn.proto.delete import MAX_DOOMED, DeleteCommand, Doomed
from kinkvpn.proto.deletions import Deletions
from kinkvpn.proto.events import Effect, RemoveInbound, RemoveOutbound, Tell, WakeAt
from kinkvpn.proto.outcome import Cause, Completed, Failed
from kinkvpn.proto.pairs import Pairs
from kinkvpn.proto.policies import LONGEST_RETRY
from kinkvpn.proto.quick_mode import SaPair
from kinkvpn.wire.isakmp import Delete, Notify
from kinkvpn.wire.kink import Isakmp

SILENCE = Failed("nobody", peer_may_hold_state=True, cause=Cause.SILENCE)


class Stage:
    """Deletions with ``count`` standing pairs, whose commands are not sent anywhere."""

    def __init__(self, count: int, most: int = 16) -> None:
        self.pairs = Pairs()
        self.made = [SaPair("net0", 1000 + n, 2000 + n, "s", True, 600, 0.0) for n in range(count)]
        for pair in self.made:
            self.pairs.establish(pair)
        self.begun: list[DeleteCommand] = []
        self.busy = False
        self.deletions = Deletions(
            settings("b", *policies("a", 1), delete_grace=5.0),
            self.pairs,
            begin=self.begin,
            under_way=lambda: self.busy,
            most=lambda: most,
        )

    def begin(self, command: DeleteCommand) -> list[Effect]:
        self.begun.append(command)
        return [Tell("begun")]


@pytest.mark.parametrize(("most", "messages"), [(16, [MAX_DOOMED, 6]), (1, [1] * (MAX_DOOMED + 6))])
def test_as_few_messages_as_the_peer_takes(most: int, messages: list[int]) -> None:
    stage = Stage(MAX_DOOMED + 6, most)
    effects = stage.deletions.delete(stage.made, 1.0)
    assert [len(command.doomed) for command in stage.begun] == messages
    assert effects == [
        *(RemoveOutbound("net0", pair.outbound_spi) for pair in stage.made),
        *[Tell("begun")] * len(messages),
    ]
    assert stage.pairs.all() == []
    assert stage.deletions.delete([], 1.0) == []


def test_an_answer_begins_the_grace_of_each() -> None:
    stage = Stage(2)
    stage.deletions.delete(stage.made, 1.0)
    assert stage.deletions.concluded(stage.begun[0], Completed(0.1), 2.0, heard=True) == [WakeAt(7.0, "b")] * 2
    assert stage.deletions.wake(6.9) == []
    assert stage.deletions.wake(7.0) == [RemoveInbound(1000), RemoveInbound(1001)]


def test_a_refusal_ends_it_at_once() -> None:
    stage = Stage(1)
    stage.deletions.delete(stage.made, 1.0)
    assert stage.deletions.concluded(stage.begun[0], Failed("no"), 2.0, heard=True) == [RemoveInbound(1000)]


def test_what_nobody_answered_is_sent_again_one_at_a_time() -> None:
    stage = Stage(2)
    stage.deletions.delete(stage.made, 1.0)
    again = 32.0 + LONGEST_RETRY
    assert stage.deletions.concluded(stage.begun[0], SILENCE, 32.0, heard=False) == [WakeAt(again, "b")]
    assert stage.deletions.wake(again - 0.1) == []
    assert stage.deletions.wake(again) == [Tell("begun")]
    stage.busy = True
    assert stage.deletions.send_owed(again) == []
    stage.busy = False
    stage.deletions.concluded(stage.begun[1], Completed(0.1), again + 1, heard=True)
    assert stage.deletions.send_owed(again + 1) == [Tell("begun")]
    assert [[doomed.spi for doomed in command.doomed] for command in stage.begun[1:]] == [[1000], [1001]]


def test_a_host_that_goes_sends_nothing_again() -> None:
    stage = Stage(1)
    stage.deletions.delete(stage.made, 1.0)
    stage.deletions.closing = True
    assert stage.deletions.concluded(stage.begun[0], SILENCE, 32.0, heard=False) == [RemoveInbound(1000)]
    assert stage.deletions.send_owed(33.0) == []


def test_a_dead_peer_is_told_when_it_is_heard() -> None:
    stage = Stage(2)
    gone = [RemoveOutbound("net0", 2000), RemoveOutbound("net0", 2001)]
    assert stage.deletions.abandon(stage.made, 1.0) == [*gone, WakeAt(1.0 + LONGEST_RETRY, "b")]
    assert stage.begun == []
    assert stage.deletions.send_owed(2.0) == [Tell("begun")]
    assert stage.begun[0].doomed == (Doomed.of(stage.made[0]),)


def test_the_peer_deletes() -> None:
    stage = Stage(3)
    spis = tuple(spi.to_bytes(4, "big") for spi in (2000, 2002, 9999))
    answers, gone, effects = stage.deletions.answer((Delete(3, spis),), 1.0)
    twins = tuple(spi.to_bytes(4, "big") for spi in (1000, 1002))
    assert answers == (Isakmp((Delete(3, twins), Notify(3, spis[2], 11))),)
    assert gone == [stage.made[0], stage.made[2]]
    told = Tell("sa_deleted_by_peer", (("peer", "b"), ("policy", "net0")))
    assert effects == [
        effect for pair in gone for effect in (RemoveOutbound("net0", pair.outbound_spi), WakeAt(6.0, "b"), told)
    ]
    assert stage.pairs.taken(2.0) >= {2000, 2002, 9999}, "their CREATE may come after their DELETE"
    half_open = replace(stage.made[0], inbound_spi=1500, outbound_spi=2500)
    stage.pairs.await_ack(half_open)
    _, gone, effects = stage.deletions.answer((Delete(3, ((2500).to_bytes(4, "big"),)),), 1.0)
    assert gone == [half_open]
    assert effects == [WakeAt(6.0, "b"), told], "there was no outbound SA yet"


def test_all_of_some_policies_end_and_others_stand() -> None:
    stage = Stage(2)
    other, half_open = replace(stage.made[0], policy="net1", outbound_spi=1), replace(stage.made[0], outbound_spi=2)
    stage.pairs.establish(other)
    stage.pairs.await_ack(half_open)
    effects = stage.deletions.end({"net0"}, 1.0)
    gone = [effect.spi for effect in effects if isinstance(effect, RemoveOutbound)]
    assert gone == [pair.outbound_spi for pair in stage.made]
    assert sum(len(command.doomed) for command in stage.begun) == 3
    assert (stage.pairs.all(), stage.pairs.unacknowledged()) == ([other], [])
