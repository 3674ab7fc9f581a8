from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.kinkhosts import Wire, principal

from esp.sa import SecurityProtocol
from kinkvpn.proto.delete import MAX_NOTIFIES, DeleteCommand, Doomed, answer_delete
from kinkvpn.proto.quick_mode import RequestFailed, SaPair
from kinkvpn.wire.isakmp import Delete, IsakmpPayload, Nonce, Notify
from kinkvpn.wire.kink import Isakmp, KinkPayload, MessageType, build_plaintext

KEY = Wire().realm.issue(principal("a"), principal("b")).key
PAIRS = {2000 + n: SaPair("net", 1000 + n, 2000 + n, "s", True, 60, 0.0) for n in range(3)}


def octets(*spis: int) -> tuple[bytes, ...]:
    return tuple(spi.to_bytes(4, "big") for spi in spis)


def said(payloads: tuple[KinkPayload, ...]) -> tuple[IsakmpPayload, ...]:
    (payload,) = payloads
    assert isinstance(payload, Isakmp)
    return payload.payloads


def test_the_command_names_our_inbound_spi() -> None:
    command = DeleteCommand(Doomed("net", 0x1001, 60.0))
    assert command.type is MessageType.DELETE
    assert command.subject == "net"
    assert said(command.payloads()) == (Delete(3, octets(0x1001)),)
    assert command.begin(KEY, 0.0) == command.withdraw() == []


def test_several_pairs_in_one_payload() -> None:
    pairs = [Doomed(name, spi, 60.0) for name, spi in (("net", 0x1001), ("net", 0x1002), ("other", 0x1003))]
    command = DeleteCommand(*pairs)
    assert said(command.payloads()) == (Delete(3, octets(0x1001, 0x1002, 0x1003)),)
    assert command.subject == "net, other"
    answers, gone = answer_delete((Delete(3, octets(2002, 2000)),), PAIRS)
    assert said(answers) == (Delete(3, octets(1002, 1000)),)
    assert gone == [PAIRS[2002], PAIRS[2000]]


def test_each_protocol_has_a_payload_of_its_own() -> None:
    ah = replace(PAIRS[2001], protocol=SecurityProtocol.AH)
    doomed = [Doomed("net", 0x1001, 60.0), Doomed.of(replace(ah, inbound_spi=0x1002)), Doomed("net", 0x1003, 60.0)]
    command = DeleteCommand(*doomed)
    assert said(command.payloads()) == (Delete(3, octets(0x1001, 0x1003)), Delete(2, octets(0x1002)))
    pairs = {**PAIRS, 2001: ah}
    answers, gone = answer_delete((Delete(3, octets(2000, 2001)), Delete(2, octets(2001, 2002))), pairs)
    assert gone == [PAIRS[2000], ah]
    wrong = (Notify(3, octets(2001)[0], 11), Notify(2, octets(2002)[0], 11))
    assert said(answers) == (Delete(3, octets(1000)), Delete(2, octets(1001)), *wrong)


@pytest.mark.parametrize("answer", [Delete(3, octets(7)), Notify(3, octets(7)[0], 11)])
def test_the_twin_or_invalid_spi_is_the_end(answer: IsakmpPayload) -> None:
    command = DeleteCommand(Doomed("net", 0x1001, 60.0))
    assert command.complete(((Notify(3, b"", 40000), answer),), ackreq=False, key=KEY, now=0.0) == []


@pytest.mark.parametrize(
    ("answer", "why"),
    [((), "without a Delete"), ((Notify(3, b"", 24),), "AUTHENTICATION-FAILED"), ((Nonce(b"x" * 8),), "without")],
)
def test_anything_else_is_a_failure(answer: tuple[IsakmpPayload, ...], why: str) -> None:
    with pytest.raises(RequestFailed, match=why):
        DeleteCommand(Doomed("net", 0x1001, 60.0)).complete((answer,), ackreq=False, key=KEY, now=0.0)


def test_a_known_spi_is_answered_with_its_twin() -> None:
    answers, gone = answer_delete((Delete(3, octets(2000)),), PAIRS)
    assert said(answers) == (Delete(3, octets(1000)),)
    assert gone == [PAIRS[2000]]


def test_known_unknown_repeated_and_foreign_spis_at_once() -> None:
    asked = (Delete(3, octets(2000, 9, 2001)), Notify(3, b"", 14), Delete(3, octets(2000)), Delete(2, octets(2002)))
    answers, gone = answer_delete(asked, PAIRS)
    assert gone == [PAIRS[2000], PAIRS[2001]]
    assert said(answers) == (Delete(3, octets(1000, 1001)), Notify(3, octets(9)[0], 11), Notify(2, octets(2002)[0], 11))


def test_no_delete_payload_at_all() -> None:
    answers, gone = answer_delete((), PAIRS)
    assert said(answers) == (Notify(3, b"", 16),)
    assert gone == []


DELETES = st.builds(
    Delete,
    st.sampled_from([2, 3]),
    st.lists(st.sampled_from(octets(*range(1995, 2100))), min_size=1, max_size=400).map(tuple),
)


@given(st.lists(DELETES, max_size=32).map(tuple))
def test_the_answer_always_fits_a_message(asked: tuple[Delete, ...]) -> None:
    answers, gone = answer_delete(asked, PAIRS)
    assert len(build_plaintext(answers)) < 1000
    assert len([payload for payload in said(answers) if isinstance(payload, Notify)]) <= MAX_NOTIFIES
    assert len(gone) == len(set(gone)) <= len(PAIRS)
