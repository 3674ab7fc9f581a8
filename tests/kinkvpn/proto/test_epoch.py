"""The lives of a peer (RFC 4430 §3.7)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kinkvpn.proto.epoch import MAX_PAST_EPOCHS, Epochs

EPOCH = st.integers(0, 0xFFFFFFFF)


def test_the_first_word_of_a_peer_is_no_restart() -> None:
    epochs = Epochs()
    assert epochs.present is None
    assert not epochs.observe(7)
    assert epochs.present == 7
    assert not epochs.observe(7)
    assert not epochs.outlived(7)


def test_another_epoch_is_a_restart_and_the_one_before_is_outlived() -> None:
    epochs = Epochs()
    epochs.observe(7)
    assert epochs.observe(9)
    assert epochs.present == 9
    assert epochs.outlived(7)
    assert not epochs.outlived(9)


@given(st.lists(EPOCH, unique=True, min_size=1, max_size=30))
def test_the_newest_lives_are_remembered_and_no_more(lives: list[int]) -> None:
    epochs = Epochs()
    restarts = [epochs.observe(life) for life in lives]
    assert restarts == [False] + [True] * (len(lives) - 1)
    over = lives[:-1]
    assert len(epochs) == min(len(over), MAX_PAST_EPOCHS)
    assert [life for life in lives if epochs.outlived(life)] == over[-MAX_PAST_EPOCHS:]
