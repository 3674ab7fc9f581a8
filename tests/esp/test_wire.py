"""Trailers, padding, and what shares the port."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esp.errors import DropReason
from esp.wire import Kind, build_trailers, classify, parse_trailer

BLOCKS = st.sampled_from((4, 8, 16))
NEXT_HEADERS = st.integers(0, 255)


@pytest.mark.parametrize(
    ("datagram", "kind"),
    [
        (b"", Kind.JUNK),
        (b"\xff", Kind.KEEPALIVE),
        (b"\x00", Kind.JUNK),
        (b"\xff\xff", Kind.JUNK),
        (bytes(3), Kind.JUNK),
        (bytes(4), Kind.CONTROL),
        (bytes(4) + b"\xff", Kind.CONTROL),
        (b"\x00\x00\x00\x01", Kind.ESP),
        (b"\x00\x00\x01\x00" + bytes(40), Kind.ESP),
        (b"\xff" * 4, Kind.ESP),
    ],
)
def test_what_a_datagram_is(datagram: bytes, kind: Kind) -> None:
    assert classify(datagram) is kind


@given(st.binary(min_size=4, max_size=64))
def test_esp_is_whatever_has_an_spi(datagram: bytes) -> None:
    assert (classify(datagram) is Kind.ESP) == (int.from_bytes(datagram[:4]) != 0)


@given(st.binary(max_size=100), BLOCKS, NEXT_HEADERS)
def test_a_trailer_fills_the_last_block_and_no_more(payload: bytes, block: int, next_header: int) -> None:
    trailer = build_trailers(block, next_header)[len(payload) % block]
    text = payload + trailer
    assert len(text) % block == 0
    assert 2 <= len(trailer) < 2 + block
    assert list(trailer) == [*range(1, len(trailer) - 1), len(trailer) - 2, next_header]
    assert parse_trailer(text) == (len(payload), next_header)


@given(st.binary(max_size=40), st.integers(0, 255), NEXT_HEADERS)
def test_padding_may_be_longer_than_needed(payload: bytes, pad: int, next_header: int) -> None:
    text = payload + bytes(range(1, pad + 1)) + bytes([pad, next_header])
    assert parse_trailer(text) == (len(payload), next_header)


@given(st.binary(max_size=40), st.integers(1, 255), st.data())
def test_a_wrong_pad_octet_is_seen(payload: bytes, pad: int, data: st.DataObject) -> None:
    padding = bytearray(range(1, pad + 1))
    padding[data.draw(st.integers(0, pad - 1))] ^= data.draw(st.integers(1, 255))
    assert parse_trailer(payload + padding + bytes([pad, 4])) is DropReason.BAD_PADDING


def test_padding_longer_than_the_text() -> None:
    assert parse_trailer(bytes([2, 3, 3, 4])) is DropReason.BAD_PADDING


@given(st.binary(max_size=300))
def test_any_octets_get_an_answer(text: bytes) -> None:
    trailer = parse_trailer(text)
    if isinstance(trailer, DropReason):
        assert trailer is (DropReason.MALFORMED if len(text) < 2 else DropReason.BAD_PADDING)
    else:
        end, next_header = trailer
        pad = len(text) - 2 - end
        assert text[end:] == bytes(range(1, pad + 1)) + bytes([pad, next_header])
