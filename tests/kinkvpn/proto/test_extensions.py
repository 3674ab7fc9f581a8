from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.vectors import load_messages

from esp.sa import Endpoint
from kinkvpn.errors import MalformedMessage
from kinkvpn.proto.events import Count, Tally
from kinkvpn.proto.extensions import (
    LARGEST_MTU,
    MAGIC,
    SMALLEST_MTU,
    UNDERSTOOD,
    Capability,
    Observed,
    Told,
    attach,
    build,
    filled,
    machine_notify,
    machine_of,
    parse,
    read,
)
from kinkvpn.wire.ipsec_doi import FIRST_PRIVATE_STATUS, LAST_PRIVATE_STATUS, NotifyType
from kinkvpn.wire.isakmp import Nonce, Notify
from kinkvpn.wire.kink import Isakmp, KinkError, KinkPayload, build_plaintext, parse_plaintext

OURS = (NotifyType.KINKVPN_CAPABILITIES, NotifyType.KINKVPN_OBSERVED_ENDPOINT, NotifyType.KINKVPN_INNER_MTU)
FULL = Told(UNDERSTOOD | Capability.BEHIND_NAT, Observed(Endpoint("192.0.2.1", 20_001), True), 1400)

endpoints = st.builds(
    Endpoint,
    st.integers(0, 2**32 - 1).map(lambda bits: str(IPv4Address(bits)))
    | st.integers(0, 2**128 - 1).map(lambda bits: str(IPv6Address(bits))),
    st.integers(1, 65535),
)
tellings = st.builds(
    Told,
    st.integers(0, 31).map(Capability) | st.just(UNDERSTOOD | Capability.BEHIND_NAT),
    st.none() | st.builds(Observed, endpoints, st.booleans()),
    st.none() | st.integers(SMALLEST_MTU, LARGEST_MTU),
)


def test_the_layouts_are_those_of_the_page() -> None:
    values = [notify.value for notify in build(FULL)]
    assert values == [
        b"KVPN" + bytes.fromhex("0001001f"),
        b"KVPN" + bytes.fromhex("04 01 4e21 c0000201"),
        b"KVPN" + bytes.fromhex("00000578"),
    ]
    six = build(Told(Capability(1), Observed(Endpoint("fe80::1%2", 910), False)))[1]
    assert six.value == b"KVPN" + bytes.fromhex("06 00 038e fe80 0000 0000 0000 0000 0000 0000 0001")
    assert all(FIRST_PRIVATE_STATUS <= number <= LAST_PRIVATE_STATUS for number in OURS)
    assert [(notify.type, notify.protocol, notify.spi) for notify in build(FULL)] == [(kind, 1, b"") for kind in OURS]


@given(st.integers(0, 2000), st.booleans(), st.sampled_from([1, 4, 8]))
def test_a_message_is_filled_up_to_a_size_as_far_as_its_cipher_goes(octets: int, telling: bool, block: int) -> None:
    def seal(payloads: tuple[KinkPayload, ...]) -> bytes:
        text = build_plaintext(payloads)
        return bytes(200 + len(text) + -len(text) % block)

    before = attach((), build(FULL)) if telling else ()
    payloads = filled(seal, before, octets)
    if payloads == before:
        assert octets < len(seal(attach(before, (Notify(1, b"", NotifyType.KINKVPN_PADDING, MAGIC),))))
        return
    assert octets - max(block, 4) < len(seal(payloads)) <= octets
    assert read(payloads) == (FULL if telling else None, [])
    read_back = parse_plaintext(build_plaintext(payloads))
    (notify,) = [each for each in read_back[-1].payloads if each.type == NotifyType.KINKVPN_PADDING]
    assert notify.value.startswith(MAGIC)
    assert not any(notify.value[len(MAGIC) :])


def test_padding_that_is_somebody_elses_is_ignored_like_any_other() -> None:
    other = Notify(1, b"", NotifyType.KINKVPN_PADDING, b"else")
    assert read([Isakmp((other,))]) == (None, [Count(Tally.NOTIFY_IGNORED)])


@given(tellings)
def test_what_is_built_is_read_from_the_wire(told: Told) -> None:
    octets = build_plaintext(attach((), build(told)))
    assert read(parse_plaintext(octets)) == (told, [])


@pytest.mark.parametrize("notify", build(FULL), ids=lambda notify: NotifyType(notify.type).name)
def test_truncated_at_every_octet_it_is_counted_and_as_good_as_absent(notify: Notify) -> None:
    capabilities = build(Told(UNDERSTOOD))
    for length in range(len(notify.value)):
        cut = Notify(notify.protocol, b"", notify.type, notify.value[:length])
        told, counts = read([Isakmp((*capabilities, cut))])
        assert told == Told(UNDERSTOOD)
        assert counts == [Count(Tally.NOTIFY_IGNORED if length < len(MAGIC) else Tally.EXTENSION_MALFORMED)]


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (NotifyType.KINKVPN_OBSERVED_ENDPOINT, "05 01 4e21 c0000201"),
        (NotifyType.KINKVPN_OBSERVED_ENDPOINT, "04 02 4e21 c0000201"),
        (NotifyType.KINKVPN_OBSERVED_ENDPOINT, "04 01 0000 c0000201"),
        (NotifyType.KINKVPN_OBSERVED_ENDPOINT, "04 01 4e21 c000020100"),
        (NotifyType.KINKVPN_OBSERVED_ENDPOINT, "06 01 4e21 c0000201"),
        (NotifyType.KINKVPN_INNER_MTU, "0000023f"),
        (NotifyType.KINKVPN_INNER_MTU, "00010000"),
        (NotifyType.KINKVPN_INNER_MTU, "0000057800"),
    ],
)
def test_what_cannot_be_is_malformed(kind: NotifyType, body: str) -> None:
    with pytest.raises(MalformedMessage):
        parse(Notify(1, b"", kind, MAGIC + bytes.fromhex(body)))


@given(st.sampled_from(OURS), st.binary(max_size=40), st.booleans())
def test_any_octets_are_read_or_malformed(kind: NotifyType, body: bytes, magic: bool) -> None:
    try:
        value = parse(Notify(1, b"", kind, (MAGIC if magic else b"") + body))
    except MalformedMessage:
        assert magic or body.startswith(MAGIC)
    else:
        assert magic or value is None or body.startswith(MAGIC)


def test_the_future_may_add_flags_and_octets_to_capabilities() -> None:
    notify = Notify(1, b"", NotifyType.KINKVPN_CAPABILITIES, MAGIC + bytes.fromhex("ffffffff 0123"))
    assert parse(notify) == UNDERSTOOD | Capability.BEHIND_NAT


def test_nothing_is_told_without_capabilities_and_the_notifies_of_others_are_counted() -> None:
    others = (
        Notify(1, b"", NotifyType.INITIAL_CONTACT),
        Notify(1, b"", 40000, b"KVPN"),
        Notify(1, b"", NotifyType.KINKVPN_INNER_MTU, b"somebody else's"),
    )
    assert read([Isakmp(others)]) == (None, [Count(Tally.NOTIFY_IGNORED)] * 3)
    assert read([Isakmp(build(FULL)[1:])]) == (None, [])
    refusal = Isakmp((Notify(3, b"", NotifyType.NO_PROPOSAL_CHOSEN),))
    assert read([refusal, KinkError(1)]) == (None, [])


def test_they_go_behind_the_first_quick_mode_or_alone() -> None:
    first, second = Isakmp((Nonce(b"12345678"),)), Isakmp((Nonce(b"87654321"),))
    notifies = build(FULL)
    assert attach((first, second), ()) == (first, second)
    assert attach((first, second), notifies) == (Isakmp((*first.payloads, *notifies)), second)
    assert attach((), notifies) == (Isakmp(notifies),)
    assert attach((KinkError(6),), notifies) == (KinkError(6), Isakmp(notifies))


@pytest.mark.parametrize("message", [m for m in load_messages() if m.plaintext is not None], ids=str)
def test_the_other_implementation_tells_nothing(message: object) -> None:
    assert read(parse_plaintext(message.plaintext)) == (None, [])


def test_whose_machine_it_is_stands_wherever_notifies_may() -> None:
    notify = machine_notify(bytes(range(16)))
    assert notify.value == b"KVPN" + bytes(range(16))
    assert FIRST_PRIVATE_STATUS <= notify.type <= LAST_PRIVATE_STATUS
    assert machine_of(attach((Isakmp((Nonce(b"n" * 16),)),), (*build(FULL), notify))) == bytes(range(16))
    assert machine_of(attach((), build(FULL))) == machine_of(()) == b""
    assert read(attach((), (notify, *build(FULL)))) == (FULL, [])


@given(st.binary(max_size=40).filter(lambda octets: len(octets) != 16))
def test_a_machine_of_another_length_is_none_and_is_counted(octets: bytes) -> None:
    said = attach((), (machine_notify(octets),))
    assert machine_of(said) == b""
    assert read(said) == (None, [Count(Tally.EXTENSION_MALFORMED)])
    foreign = attach((), (Notify(1, b"", NotifyType.KINKVPN_MACHINE, b"else" + octets),))
    assert machine_of(foreign) == b""
    assert read(foreign) == (None, [Count(Tally.NOTIFY_IGNORED)])
