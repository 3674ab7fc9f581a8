from __future__ import annotations

import pytest

from esp.sa import Endpoint
from kinkvpn.proto.acquaintance import OFFERED_TO_STRANGERS, Acquaintance, Ourselves
from kinkvpn.proto.events import Count, Path, Tally
from kinkvpn.proto.extensions import UNDERSTOOD, Capability, Observed, Told, attach, build, read
from kinkvpn.wire.isakmp import Notify
from kinkvpn.wire.kink import Isakmp, KinkPayload, MessageType

CREATE, DELETE, STATUS = MessageType.CREATE, MessageType.DELETE, MessageType.STATUS
PEER = Path(Endpoint("192.0.2.2", 910))
MARKED = Path(Endpoint("192.0.2.2", 4500), marked=True)
OUTSIDE = Endpoint("203.0.113.1", 20_000)
QUICK_MODE = (Isakmp(()),)
OURSELVES = Ourselves(1400, owns=lambda address: address == "192.0.2.1")


def known(*, enabled: bool = True, ourselves: Ourselves = OURSELVES) -> Acquaintance:
    return Acquaintance(ourselves, enabled=enabled)


def telling(observed: Observed | None = None, mtu: int | None = None) -> tuple[KinkPayload, ...]:
    return attach((), build(Told(UNDERSTOOD, observed, mtu)))


def told(acquaintance: Acquaintance, kind: MessageType = CREATE, transmission: int = 1) -> Told | None:
    return read(acquaintance.extend(kind, QUICK_MODE, transmission))[0]


def test_a_stranger_is_told_in_the_first_transmissions_only() -> None:
    stranger = known()
    assert told(stranger) == told(stranger, STATUS, OFFERED_TO_STRANGERS) == Told(UNDERSTOOD, None, 1400)
    assert told(stranger, transmission=OFFERED_TO_STRANGERS + 1) is None
    assert told(stranger, DELETE) is None


def test_a_friend_is_told_every_time_and_how_it_looks_from_here() -> None:
    friend = known()
    assert friend.reply_came(CREATE, telling(), MARKED, granted=1) == []
    expected = Told(UNDERSTOOD, Observed(MARKED.remote, True), 1400)
    assert told(friend, transmission=7) == expected
    assert read(friend.answer(True, QUICK_MODE)) == (expected, [])
    assert friend.answer(False, QUICK_MODE) == QUICK_MODE


def test_what_was_answered_is_left_to_status_until_there_is_news() -> None:
    friend = known()
    for _ in range(2):  # the first answer is news: it tells how the peer looks from here
        assert told(friend) is not None
        friend.reply_came(CREATE, telling(), MARKED, granted=1)
    assert told(friend) is None
    assert told(friend, STATUS) is not None
    friend.command_came(telling(), PEER)
    assert told(friend) is not None, "it came from elsewhere"
    friend.reply_came(CREATE, telling(), PEER, granted=1)
    assert told(friend) is None
    friend.forget()
    assert told(friend) is not None


def test_who_answers_an_offer_plainly_is_plain_until_it_says_otherwise() -> None:
    peer = known()
    peer.reply_came(CREATE, QUICK_MODE, PEER, granted=2)
    assert peer.plain
    assert told(peer) is None
    assert peer.command_came(telling(), PEER) == (True, [])
    assert not peer.plain
    assert told(peer, transmission=5) is not None


def test_who_answers_only_what_has_no_offer_is_plain_the_second_time() -> None:
    """Once, the network may have lost the offers; a peer that drops them does it every time."""
    peer = known()
    for expected in (False, True):
        peer.reply_came(CREATE, QUICK_MODE, PEER, granted=OFFERED_TO_STRANGERS + 1)
        assert peer.plain is expected


@pytest.mark.parametrize(("kind", "granted"), [(DELETE, 1), (CREATE, 0)], ids=["delete", "refused"])
def test_what_carries_no_offer_back_makes_nobody_plain(kind: MessageType, granted: int) -> None:
    peer = known()
    peer.reply_came(kind, QUICK_MODE, PEER, granted=granted)
    assert not peer.plain
    assert told(peer) is not None


def test_a_restarted_peer_is_a_stranger_again() -> None:
    peer = known()
    peer.reply_came(CREATE, QUICK_MODE, PEER, granted=1)
    peer.forget()
    assert told(peer) is not None
    peer.command_came(telling(mtu=1300), PEER)
    peer.forget()
    assert (peer.told, peer.inner_mtu) == (None, None)


def test_switched_off_it_neither_tells_nor_listens() -> None:
    deaf = known(enabled=False)
    assert told(deaf) is None
    assert deaf.command_came(telling(Observed(OUTSIDE, False), 1300), PEER) == (False, [])
    assert deaf.reply_came(CREATE, telling(Observed(OUTSIDE, False), 1300), PEER, granted=1) == []
    assert (deaf.behind_nat, deaf.inner_mtu) == (None, None)
    assert deaf.answer(True, QUICK_MODE) == QUICK_MODE


def test_notifies_of_others_are_counted_whichever_way_they_come() -> None:
    other = (Isakmp((Notify(1, b"", 40000),)),)
    assert known().command_came(other, PEER) == (False, [Count(Tally.NOTIFY_IGNORED)])
    assert known().reply_came(CREATE, other, PEER, granted=1) == [Count(Tally.NOTIFY_IGNORED)]
    assert known(enabled=False).command_came(other, PEER) == (False, [Count(Tally.NOTIFY_IGNORED)])


@pytest.mark.parametrize(
    ("seen", "marked", "behind"),
    [
        (("192.0.2.1", 910), False, False),
        (("192.0.2.1", 4500), True, False),
        (("192.0.2.1", 910), True, True),
        (("192.0.2.1", 20_000), False, True),
        (("203.0.113.1", 4500), True, True),
    ],
)
def test_behind_a_nat_is_who_is_seen_where_it_is_not(seen: tuple[str, int], marked: bool, behind: bool) -> None:
    peer = known()
    assert peer.behind_nat is None
    peer.command_came(telling(Observed(Endpoint(*seen), marked)), PEER)
    assert peer.behind_nat is behind
    ours = told(peer)
    assert ours is not None
    assert (Capability.BEHIND_NAT in ours.capabilities) is behind


def test_the_smaller_mtu_is_that_of_both() -> None:
    peer = known()
    peer.command_came(telling(mtu=1500), PEER)
    assert peer.inner_mtu == 1400
    peer.command_came(telling(mtu=1300), PEER)
    assert peer.inner_mtu == 1300
    silent = known(ourselves=Ourselves())
    silent.command_came(telling(mtu=1300), PEER)
    assert silent.inner_mtu is None


def test_the_esp_port_is_shown_once_for_each_address_that_a_nat_gives() -> None:
    peer = known()
    assert not peer.introduces(PEER)
    peer.reply_came(CREATE, telling(Observed(OUTSIDE, False)), PEER, granted=1)
    assert not peer.introduces(MARKED), "what came to the ESP port showed it"
    assert peer.introduces(PEER)
    assert not peer.introduces(PEER)
    peer.reply_came(CREATE, telling(Observed(Endpoint("203.0.113.2", 20_000), False)), PEER, granted=1)
    assert peer.introduces(PEER)
    assert not peer.introduces(None)


@pytest.mark.parametrize(
    ("capabilities", "takes"),
    [(None, False), (Capability.INNER_MTU, False), (Capability.TFC_PADDING, True), (UNDERSTOOD, True)],
)
def test_padding_is_for_a_peer_that_has_said_that_it_takes_it(capabilities: Capability | None, takes: bool) -> None:
    """RFC 4303 §2.7. A peer that is told nothing is one for which the configuration speaks."""
    for enabled in (True, False):
        peer = known(enabled=enabled)
        peer.reply_came(
            CREATE, () if capabilities is None else attach((), build(Told(capabilities))), MARKED, granted=1
        )
        assert peer.takes_padding is (takes or not enabled)
        peer.forget()
        assert peer.takes_padding is not enabled


def test_who_is_told_nothing_any_more_is_a_stranger_again() -> None:
    friend = known(ourselves=Ourselves(1400, machine=bytes(16)))
    friend.reply_came(CREATE, telling(mtu=1300), MARKED, granted=1)
    friend.enable(True)
    assert friend.inner_mtu == 1300, "as it was"
    friend.enable(False)
    assert (friend.told, friend.inner_mtu) == (None, None)
    assert friend.extend(CREATE, QUICK_MODE, 1) == QUICK_MODE
    friend.enable(True)
    assert told(friend) is not None
