from __future__ import annotations

from support.kinkhosts import policy

from kinkvpn.proto.policies import FIRST_RETRY, LONGEST_RETRY, PolicyState, change, take_due, take_yielding


def test_failures_wait_longer_and_longer_and_a_pair_ends_that() -> None:
    state = PolicyState(policy())
    waits = [state.failed("silence", 100.0) - 100.0 for _ in range(2000)]
    assert waits[:7] == [FIRST_RETRY * 2**number for number in range(6)] + [LONGEST_RETRY]
    assert set(waits[6:]) == {LONGEST_RETRY}
    assert (state.failures, state.last_error) == (2000, "silence")
    state.established()
    assert (state.failures, state.last_error, state.not_before) == (0, "", 0.0)


def test_what_is_due_is_taken_once() -> None:
    states = {name: PolicyState(policy(name=name)) for name in ("one", "two", "three")}
    states["one"].retry_at, states["two"].retry_at = 10.0, 20.0
    states["two"].yield_at, states["three"].yield_at = 10.0, 20.0
    assert take_due(states, 9.9) == take_yielding(states, 9.9) == []
    assert (take_due(states, 10.0), take_yielding(states, 10.0)) == (["one"], ["two"])
    assert (take_due(states, 30.0), take_yielding(states, 30.0)) == (["two"], ["three"])
    assert take_due(states, 30.0) == take_yielding(states, 30.0) == []


def test_what_goes_on_for_a_policy_stays_unless_it_has_ended() -> None:
    states = {name: PolicyState(policy(name=name)) for name in ("one", "two", "three")}
    stays, ends = states["three"], states["two"]
    stays.failed("silence", 1.0)
    wanted = [policy(name="four"), policy(name="three", lifetime_seconds=60), policy(name="two")]
    change(states, wanted, {"one", "two"})
    assert list(states) == ["four", "three", "two"]
    assert (states["three"], states["three"].failures, states["three"].settings) == (stays, 1, wanted[1])
    assert states["two"] is not ends
