"""Capture files: what scapy and our own hand write is read as it was meant, and nothing else is taken for a capture."""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.captures import (
    START,
    PcapNgWriter,
    Raw,
    block,
    interface,
    packet,
    pcap,
    section,
    vector_file,
)

from kinkvpn.decode.capture import CaptureDamaged, Frame, NotCapture, read_frames

if TYPE_CHECKING:
    from pathlib import Path

FRAMES = [b"one", b"", b"three" * 20]


def read(octets: bytes) -> list[Frame]:
    return list(read_frames(io.BytesIO(octets)))


def partly(octets: bytes) -> tuple[list[Frame], Exception | None]:
    """The frames before the first error, and it."""
    found: list[Frame] = []
    try:
        found.extend(read_frames(io.BytesIO(octets)))
    except (NotCapture, CaptureDamaged) as error:
        return found, error
    return found, None


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("nano", [False, True])
def test_pcap_of_either_byte_order_and_resolution(order: str, nano: bool) -> None:
    frames = read(pcap(FRAMES, order=order, nano=nano))
    assert [frame.octets for frame in frames] == FRAMES
    assert [frame.number for frame in frames] == [1, 2, 3]
    assert [frame.time for frame in frames] == pytest.approx([int(START) + at for at in (0, 0.1, 0.2)])


def test_the_link_type_is_without_the_length_of_the_check_sequence() -> None:
    octets = bytearray(pcap(FRAMES, link_type=113))
    octets[20:24] = struct.pack("<I", 0x34000071)
    assert {frame.link_type for frame in read(bytes(octets))} == {113}


def test_pcapng_as_scapy_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "capture.pcapng"
    with PcapNgWriter(str(path)) as writer:
        for number, octets in enumerate(FRAMES):
            frame = Raw(octets)
            frame.time = START + number
            writer.write(frame)
    with path.open("rb") as file:
        frames = list(read_frames(file))
    assert [frame.octets for frame in frames] == FRAMES
    assert [frame.time for frame in frames] == pytest.approx([START, START + 1, START + 2])


def test_pcapng_interfaces_keep_their_own_link_type_and_clock() -> None:
    millis = struct.pack("<HHBxxx", 9, 1, 3)
    binary = struct.pack("<HHBxxx", 9, 1, 0x80 | 10)
    offset = struct.pack("<HHq", 14, 8, 1000)
    octets = section() + interface(1) + interface(113, millis + offset) + interface(101, binary + bytes(4))
    octets += packet(b"a", 0, 5_000_000) + packet(b"b", 1, 5_000) + packet(b"c", 2, 5 * 1024)
    assert [(frame.link_type, frame.time) for frame in read(octets)] == [(1, 5.0), (113, 1005.0), (101, 5.0)]


def test_a_new_section_has_its_own_byte_order_and_interfaces() -> None:
    first = section() + interface(1) + interface(113) + packet(b"a", 1)
    second = section(">") + interface(276, order=">") + packet(b"b", 0, order=">")
    assert [(frame.number, frame.link_type) for frame in read(first + second)] == [(1, 113), (2, 276)]


def test_simple_and_obsolete_packets_are_packets_and_other_blocks_are_not() -> None:
    simple = block(3, struct.pack("<I", 3) + b"abc")
    old = block(2, struct.pack("<HHIIII", 0, 0, 0, 7_000_000, 2, 2) + b"de")
    frames = read(section() + interface(1) + block(5, bytes(12)) + simple + old + block(0xBAD, b"name"))
    assert [(frame.octets, frame.time) for frame in frames] == [(b"abc", None), (b"de", 7.0)]


@pytest.mark.parametrize("octets", [b"", b"abc", b"%PDF-1.7 no capture at all", bytes(100)])
def test_what_is_no_capture_is_said_to_be_none(octets: bytes) -> None:
    with pytest.raises(NotCapture, match=r"neither pcap nor pcapng|empty"):
        read(octets)


def test_a_compressed_capture_says_how_to_open_it() -> None:
    with pytest.raises(NotCapture, match=r"zcat FILE \| kinkvpn decode -"):
        read(b"\x1f\x8b\x08\x00")


BAD_BLOCKS = {
    "block of 8 octets": struct.pack("<II", 6, 8),
    "block of 4294967292 octets": struct.pack("<II", 6, 0xFFFFFFFC),
    "lengths differ": struct.pack("<II", 5, 16) + bytes(4) + struct.pack("<I", 20),
    "interface 7": packet(b"a", 7),
    "claims 9 octets": block(6, struct.pack("<IIIII", 0, 0, 0, 9, 9) + b"a"),
    "frame 1 has a block of 4 octets": block(6, bytes(4)),
    "interface description of 4 octets": block(1, bytes(4)),
    "byte order": struct.pack("<II", 0x0A0D0D0A, 28) + b"oops" + bytes(16),
    "major version 2": block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 2, 0, -1)),
    "section header of 8 octets": struct.pack("<III", 0x0A0D0D0A, 8, 0x1A2B3C4D),
}


@pytest.mark.parametrize("message", BAD_BLOCKS)
def test_a_damaged_pcapng_says_where(message: str) -> None:
    with pytest.raises(CaptureDamaged, match=message):
        read(section() + interface(1) + BAD_BLOCKS[message])


def test_more_interfaces_than_a_host_has_are_refused() -> None:
    with pytest.raises(CaptureDamaged, match="more than 4096 interfaces"):
        read(section() + interface(1) * 4097)


def test_a_frame_longer_than_any_is_not_read_into_memory() -> None:
    octets = pcap([b"good"]) + struct.pack("<IIII", 0, 0, 0x7FFFFFFF, 0x7FFFFFFF)
    found, error = partly(octets)
    assert len(found) == 1
    assert "claims 2147483647 octets" in str(error)


@pytest.mark.parametrize("octets", [vector_file("create-3way-transform").read_bytes(), pcap(FRAMES)])
def test_every_truncation_gives_fewer_frames_and_an_error_unless_it_is_between_two(octets: bytes) -> None:
    whole = read(octets)
    silent = []
    for cut in range(len(octets)):
        found, error = partly(octets[:cut])
        assert found == whole[: len(found)]
        if error is None:
            silent.append(len(found))
    assert silent == list(range(len(whole)))


def test_every_truncation_of_a_pcapng_too() -> None:
    octets = section() + interface(1) + packet(b"one") + packet(b"two!")
    silent = [cut for cut in range(len(octets)) if partly(octets[:cut])[1] is None]
    assert silent == [len(section()), len(section() + interface(1)), len(octets) - len(packet(b"two!"))]


HEADS = [b"", pcap([])[:24], section(), section() + interface(1)]


@given(st.sampled_from(HEADS), st.binary(max_size=200))
def test_any_octets_are_read_or_refused(head: bytes, octets: bytes) -> None:
    partly(head + octets)


def test_a_file_that_fails_in_the_middle_says_where() -> None:
    class Disk(io.BytesIO):
        def read(self, count: int | None = -1, /) -> bytes:
            if self.tell() >= 40:
                raise OSError(5, "Input/output error")
            return super().read(count)

    with pytest.raises(CaptureDamaged, match=r"beyond octet 40: Input/output error"):
        list(read_frames(Disk(pcap(FRAMES))))


def test_a_pipe_that_delivers_in_pieces_is_read_whole() -> None:
    class Pipe(io.BytesIO):
        def read(self, count: int | None = -1, /) -> bytes:
            return super().read(min(count or 0, 3))

    assert [frame.octets for frame in read_frames(Pipe(pcap(FRAMES)))] == FRAMES
