"""Bounded reading and writing of octets: the one door through which a peer's octets come in. Pure.

A :class:`Reader` never looks beyond its end and raises MalformedMessage and nothing else; a :class:`Writer` raises
LocalMisuse when a value does not fit its field. Both know the generic payload header, which KINK (RFC 4430 §4.2) has
from ISAKMP (RFC 2408 §3.2), so payload chains are walked here, once, for every kind of payload.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from kinkvpn.errors import LocalMisuse, MalformedMessage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#  0                   1                   2                   3
#  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
# +---------------+---------------+---------------+---------------+
# | Next Payload  |   RESERVED    |         Payload Length        |  RFC 4430 §4.2, RFC 2408 §3.2
# +---------------+---------------+---------------+---------------+
GENERIC_HEADER = struct.Struct("!BBH")
_GENERIC_OCTETS = GENERIC_HEADER.size


class Reader:
    """A forward cursor over part of some octets; positions count from the start of the whole.

    Args:
        octets: the whole datagram or plaintext.
        start: where this reader begins.
        end: the first octet it must not read; the end of ``octets`` when None.
        error: what :meth:`fail` makes; the class says what a responder answers.
    """

    __slots__ = ("_end", "_error", "_octets", "_position")

    def __init__(
        self, octets: bytes, start: int = 0, end: int | None = None, error: type[MalformedMessage] = MalformedMessage
    ) -> None:
        self._octets = octets
        self._position = start
        self._end = len(octets) if end is None else end
        self._error = error

    @property
    def position(self) -> int:
        """Octets from the start of the whole."""
        return self._position

    @property
    def remaining(self) -> int:
        """Octets not read yet."""
        return self._end - self._position

    def fail(self, field: str, reason: str, offset: int | None = None) -> MalformedMessage:
        """The error to raise; ``offset`` is the current position when None."""
        return self._error(field, self._position if offset is None else offset, reason)

    def unpack(self, layout: struct.Struct, field: str) -> tuple[Any, ...]:
        """The next ``layout.size`` octets, unpacked. Raises MalformedMessage naming ``field`` if there are fewer."""
        start = self._position
        end = start + layout.size
        if end > self._end:
            raise self._short(layout.size, field)
        self._position = end
        return layout.unpack_from(self._octets, start)

    def take(self, count: int, field: str) -> bytes:
        """The next ``count`` octets. Raises MalformedMessage naming ``field`` if there are fewer."""
        start = self._position
        end = start + count
        if end > self._end:
            raise self._short(count, field)
        self._position = end
        return self._octets[start:end]

    def rest(self) -> bytes:
        """All octets not read yet, perhaps none."""
        start = self._position
        self._position = self._end
        return self._octets[start : self._end]

    def peek(self) -> bytes:
        """All octets not read yet, perhaps none; they stay unread."""
        return self._octets[self._position : self._end]

    def within(self, count: int, field: str, error: type[MalformedMessage] | None = None) -> Reader:
        """A reader over the next ``count`` octets, which this one skips; its positions count from the same start.

        Raises MalformedMessage naming ``field`` if there are fewer.
        """
        start = self._position
        end = start + count
        if end > self._end:
            raise self._short(count, field)
        self._position = end
        return Reader(self._octets, start, end, error or self._error)

    def align(self, boundary: int, field: str) -> None:
        """Skip padding up to the next multiple of ``boundary``; what the padding holds is ignored.

        Raises MalformedMessage naming ``field`` if the octets end before.
        """
        padding = -self._position % boundary
        if padding:
            self.take(padding, field)

    def expect_end(self, field: str) -> None:
        """Raises MalformedMessage naming ``field`` unless everything was read."""
        if self.remaining:
            raise self.fail(field, f"{self.remaining} octets too many")

    def _short(self, count: int, field: str) -> MalformedMessage:
        return self.fail(field, f"{count} octets needed, {self.remaining} left")


def pack(layout: struct.Struct, field: str, *values: int) -> bytes:
    """``values`` as ``layout`` has them. Raises LocalMisuse naming ``field`` if one does not fit."""
    try:
        return layout.pack(*values)
    except struct.error as error:
        raise LocalMisuse(f"{field}: {error}") from None


class Writer:
    """Octets in the making; positions count from the first octet written."""

    __slots__ = ("_octets",)

    def __init__(self) -> None:
        self._octets = bytearray()

    def pack(self, layout: struct.Struct, field: str, *values: int) -> None:
        """Append ``values`` as ``layout`` has them. Raises LocalMisuse naming ``field`` if one does not fit."""
        try:
            self._octets += layout.pack(*values)
        except struct.error as error:
            raise LocalMisuse(f"{field}: {error}") from None

    def put(self, octets: bytes) -> None:
        """Append ``octets``."""
        self._octets += octets

    def align(self, boundary: int) -> None:
        """Append zero octets up to the next multiple of ``boundary``."""
        padding = -len(self._octets) % boundary
        if padding:
            self._octets += bytes(padding)

    def getvalue(self) -> bytes:
        """Everything written so far."""
        return bytes(self._octets)


def read_chain(reader: Reader, first: int, boundary: int, most: int) -> Iterator[tuple[int, int, Reader]]:
    """Walk a chain of payloads.

    Args:
        reader: stands where the first payload's padding or header begins; left after the last payload's last octet.
        first: type of the first payload, from whatever header announced it; 0 means that there is none.
        boundary: every payload begins on a multiple of it: 4 in KINK (RFC 4430 §4.1), 1 in ISAKMP.
        most: how many payloads are still believable.

    Yields:
        (type, type of the next payload, reader over the body without the generic header).

    Raises:
        MalformedMessage: a length below 4 or beyond the end, missing padding, more than ``most`` payloads.
    """
    kind, count = first, 0
    octets, end, error = reader._octets, reader._end, reader._error
    while kind != 0:
        if boundary > 1:
            reader.align(boundary, "padding")
        count += 1
        if count > most:
            raise reader.fail("Next Payload", f"more than {most} payloads in a chain")
        start = reader._position
        following, _reserved, length = reader.unpack(GENERIC_HEADER, "payload header")
        if length < _GENERIC_OCTETS:
            raise reader.fail("Payload Length", f"{length} is less than its own header", start + 2)
        stop = start + length
        if stop > end:
            raise reader.fail("Payload Length", f"{length} reaches beyond the end", start + 2)
        reader._position = stop
        yield kind, following, Reader(octets, start + _GENERIC_OCTETS, stop, error)
        kind = following


def write_chain(writer: Writer, payloads: Sequence[tuple[int, bytes]], boundary: int, most: int) -> None:
    """Append a chain of (type, body); no padding follows the last one.

    Raises:
        LocalMisuse: more than ``most`` payloads, or one too long for Payload Length.
    """
    if len(payloads) > most:
        raise LocalMisuse(f"{len(payloads)} payloads in a chain, at most {most} can be")
    for number, (_, body) in enumerate(payloads, 1):
        if boundary > 1:
            writer.align(boundary)
        following = payloads[number][0] if number < len(payloads) else 0
        writer.pack(GENERIC_HEADER, "Payload Length", following, 0, _GENERIC_OCTETS + len(body))
        writer.put(body)
