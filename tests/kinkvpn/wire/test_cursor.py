"""The bounded reader and writer, against slices of the same octets."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinkvpn.errors import LocalMisuse, MalformedMessage, MalformedQuickMode
from kinkvpn.wire.cursor import Reader, Writer, read_chain, write_chain

PAIR = struct.Struct("!BH")


@given(st.binary(max_size=40), st.lists(st.integers(0, 12), max_size=8))
def test_a_reader_takes_slices_and_never_more(octets: bytes, counts: list[int]) -> None:
    reader, taken = Reader(octets), 0
    for count in counts:
        if count <= len(octets) - taken:
            assert reader.take(count, "field") == octets[taken : taken + count]
            taken += count
        else:
            with pytest.raises(MalformedMessage) as caught:
                reader.take(count, "field")
            assert (caught.value.field, caught.value.offset) == ("field", taken)
        assert (reader.position, reader.remaining) == (taken, len(octets) - taken)
    assert reader.rest() == octets[taken:]
    assert reader.rest() == b""


def test_a_reader_unpacks_in_network_order() -> None:
    reader = Reader(b"\x01\x02\x03\xff")
    assert reader.unpack(PAIR, "pair") == (1, 0x0203)
    with pytest.raises(MalformedMessage, match=r"^pair at octet 3: 3 octets needed, 1 left$"):
        reader.unpack(PAIR, "pair")


@given(st.binary(min_size=8, max_size=24), st.integers(0, 4), st.integers(0, 4))
def test_a_reader_within_counts_from_the_same_start(octets: bytes, skipped: int, count: int) -> None:
    outer = Reader(octets)
    outer.take(skipped, "skipped")
    inner = outer.within(count, "body")
    assert (inner.position, inner.remaining, outer.position) == (skipped, count, skipped + count)
    assert inner.rest() == octets[skipped : skipped + count]
    with pytest.raises(MalformedMessage) as caught:
        inner.take(1, "beyond")
    assert caught.value.offset == skipped + count


def test_a_reader_within_must_fit() -> None:
    with pytest.raises(MalformedMessage, match=r"^body at octet 0: 4 octets needed, 3 left$"):
        Reader(b"abc").within(4, "body")


def test_the_error_class_is_inherited_and_can_be_changed() -> None:
    outer = Reader(b"abcd", error=MalformedQuickMode)
    assert type(outer.within(1, "x").fail("x", "y")) is MalformedQuickMode
    assert type(outer.within(1, "x", MalformedMessage).fail("x", "y")) is MalformedMessage
    assert outer.fail("x", "y").offset == 2
    assert outer.fail("x", "y", 0).offset == 0


@given(st.integers(0, 12), st.sampled_from([1, 2, 4, 8]), st.binary(min_size=24, max_size=24))
def test_alignment_skips_whatever_padding_holds(position: int, boundary: int, octets: bytes) -> None:
    reader = Reader(octets)
    reader.take(position, "before")
    reader.align(boundary, "padding")
    assert reader.position % boundary == 0
    assert 0 <= reader.position - position < boundary


def test_padding_must_be_there() -> None:
    reader = Reader(b"abc")
    reader.take(1, "before")
    with pytest.raises(MalformedMessage, match=r"^padding at octet 1: 3 octets needed, 2 left$"):
        reader.align(4, "padding")


def test_the_end_is_the_end() -> None:
    reader = Reader(b"ab", 1)
    with pytest.raises(MalformedMessage, match=r"^body at octet 1: 1 octets too many$"):
        reader.expect_end("body")
    reader.rest()
    reader.expect_end("body")


@given(st.integers(-10, 300), st.integers(-10, 70000))
def test_a_writer_packs_what_fits_and_names_what_does_not(small: int, large: int) -> None:
    writer = Writer()
    if 0 <= small < 256 and 0 <= large < 65536:
        writer.pack(PAIR, "pair", small, large)
        assert writer.getvalue() == bytes([small, large >> 8, large & 255])
    else:
        with pytest.raises(LocalMisuse, match=r"^pair: "):
            writer.pack(PAIR, "pair", small, large)
        assert writer.getvalue() == b""


@given(st.binary(max_size=9), st.sampled_from([1, 2, 4, 8]))
def test_a_writer_pads_with_zeros(octets: bytes, boundary: int) -> None:
    writer = Writer()
    writer.put(octets)
    writer.align(boundary)
    padded = writer.getvalue()
    assert len(padded) % boundary == 0
    assert padded == octets + bytes(len(padded) - len(octets))
    assert len(padded) - len(octets) < boundary


CHAINS = st.lists(st.tuples(st.integers(1, 255), st.binary(max_size=9)), max_size=6)


@given(CHAINS, st.sampled_from([1, 4]), st.binary(max_size=5))
def test_a_chain_is_read_as_it_was_written(chain: list[tuple[int, bytes]], boundary: int, after: bytes) -> None:
    writer = Writer()
    write_chain(writer, chain, boundary, 6)
    written = writer.getvalue()
    reader = Reader(written + after)
    first = chain[0][0] if chain else 0
    read = [(kind, following, body.rest()) for kind, following, body in read_chain(reader, first, boundary, 6)]
    assert [(kind, body) for kind, _, body in read] == chain
    assert [following for _, following, _ in read] == [kind for kind, _, _ in read][1:] + [0] * bool(read)
    assert reader.rest() == after


@given(CHAINS.filter(bool), st.sampled_from([1, 4]), st.data())
def test_a_cut_chain_is_refused(chain: list[tuple[int, bytes]], boundary: int, data: st.DataObject) -> None:
    writer = Writer()
    write_chain(writer, chain, boundary, 6)
    cut = data.draw(st.integers(0, len(writer.getvalue()) - 1))
    with pytest.raises(MalformedMessage) as caught:
        list(read_chain(Reader(writer.getvalue()[:cut]), chain[0][0], boundary, 6))
    assert caught.value.offset <= cut


@pytest.mark.parametrize(
    ("octets", "complaint"),
    [
        ("00000003", "Payload Length at octet 2: 3 is less than its own header"),
        ("00000000", "Payload Length at octet 2: 0 is less than its own header"),
        ("00000005", "Payload Length at octet 2: 5 reaches beyond the end"),
        ("0000ffff", "Payload Length at octet 2: 65535 reaches beyond the end"),
        ("000000", "payload header at octet 0: 4 octets needed, 3 left"),
        ("0700000500", "padding at octet 5: 3 octets needed, 0 left"),
        ("070000040700000407000004", "Next Payload at octet 8: more than 2 payloads in a chain"),
    ],
)
def test_a_broken_chain_is_refused_where_it_breaks(octets: str, complaint: str) -> None:
    with pytest.raises(MalformedMessage) as caught:
        list(read_chain(Reader(bytes.fromhex(octets)), 7, 4, 2))
    assert str(caught.value) == complaint


def test_a_chain_too_long_to_be_read_is_not_written() -> None:
    with pytest.raises(LocalMisuse, match="3 payloads in a chain, at most 2 can be"):
        write_chain(Writer(), [(1, b"")] * 3, 4, 2)


def test_a_payload_too_long_for_its_length_is_not_written() -> None:
    with pytest.raises(LocalMisuse, match=r"^Payload Length: "):
        write_chain(Writer(), [(1, bytes(65532))], 4, 2)
