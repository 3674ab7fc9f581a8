"""AGGFRAG payloads: packets aggregated and fragmented into payloads of one size, and put together again (RFC 9347)."""

from __future__ import annotations

import struct
from collections import deque
from math import inf
from typing import TYPE_CHECKING

from esp.errors import DropReason

if TYPE_CHECKING:
    from collections.abc import Iterator

# --- specification ---

AGGFRAG = 144  # next header (RFC 9347 §7.1)

# Non-congestion-controlled header (RFC 9347 §6.1.1): sub-type 1 | reserved 1 | block offset 2, octets of the payload
# that still belong to the data block begun in an earlier one. What follows are data blocks to the end.
_HEADER = struct.Struct("!BxH")
HEADER_OCTETS = _HEADER.size
# With congestion information (RFC 9347 §6.1.2) the header goes on: loss event rate 4 | RTT, echo delay, transmit delay
# 8 | TVal 4 | TEcho 4. We send none and pass over the peer's.
_CONTROLLED_OCTETS = 24
_HEADERS = {0: HEADER_OCTETS, 1: _CONTROLLED_OCTETS}

# A data block is an IP packet or, from its zero octet on, padding to the end (RFC 9347 §6.1.3). How many octets of a
# packet show how long it is: the IPv4 total length ends with the fourth, the IPv6 payload length with the sixth.
_LENGTH_ENDS = {4: 4, 6: 6}
_IPV6_HEADER = 40

# --- ours ---

# A fragment of less than this does not show its packet's length in every family, and the receiver has to guess at the
# block offset of the next payload; the end of the payload is padded instead. RFC 9347 §2.2.3.1 allows it.
SMALLEST_FRAGMENT = 8
# Seconds that what has come waits for what is missing before it. Paths reorder by milliseconds; where the rate is slow
# or the sender stops, no payload comes to move the window on.
LONGEST_GAP = 0.1
# Octets of payloads that wait, for one SA: two of the largest, or 90 of the usual ones. An authentic peer has no more
# of our memory than that, and one packet.
MOST_EARLY = 131_072


class Aggregator:
    """The sending half for one SA: packets in, payloads of exactly ``octets`` out (RFC 9347 §2.2).

    Args:
        octets: of a payload, its header included; at least header and smallest fragment. May be changed at any time.
        room: octets of packets that may wait.
    """

    __slots__ = ("_gone", "_rest", "_room", "_waiting", "octets", "waiting_octets")

    def __init__(self, octets: int, room: int) -> None:
        self.octets = octets
        self._room = room
        self._waiting: deque[bytes] = deque()
        self._gone = 0, 0
        self._rest = 0  # octets of the first waiting packet that are still to go; 0 when it is whole
        self.waiting_octets = 0

    def __len__(self) -> int:
        """Packets that wait, the one that has begun among them."""
        return len(self._waiting)

    def put(self, packet: bytes) -> bool:
        """Take ``packet`` if there is room; the caller counts it if there is not. An empty queue takes any packet."""
        if self._waiting and self.waiting_octets + len(packet) > self._room:
            return False
        self._waiting.append(packet)
        self.waiting_octets += len(packet)
        return True

    def take_all(self) -> list[bytes]:
        """The packets that wait, whole, for the SA that comes after: no packet is split between two (§2.2.3)."""
        packets = list(self._waiting)
        self._waiting.clear()
        self._rest = self.waiting_octets = 0
        return packets

    def take_gone(self) -> tuple[int, int]:
        """Packets that have gone into payloads to their last octet since the last call, and their octets."""
        gone, self._gone = self._gone, (0, 0)
        return gone

    def next_payload(self) -> bytes:
        """A payload of what waits, padded; padding alone where nothing does (§2.2.2, §2.2.3)."""
        blocks = [_HEADER.pack(0, self._rest)]
        room = self.octets - HEADER_OCTETS
        while self._waiting and room >= min(SMALLEST_FRAGMENT, self._unsent()):
            block = self._take(room)
            blocks.append(block)
            room -= len(block)
        return b"".join(blocks) + bytes(room)

    def _unsent(self) -> int:
        return self._rest or len(self._waiting[0])

    def _take(self, room: int) -> bytes:
        packet, unsent = self._waiting[0], self._unsent()
        begin = len(packet) - unsent
        block = packet[begin : begin + room]
        self._rest = unsent - len(block)
        if not self._rest:
            self._waiting.popleft()
            self.waiting_octets -= len(packet)
            self._gone = self._gone[0] + 1, self._gone[1] + len(packet)
        return block


class Reassembler:
    """The receiving half for one SA: authentic payloads in, packets out in the order they were sent (RFC 9347 §2.5).

    A payload that comes early waits for those before it: until one comes that is more than ``window`` ahead of them,
    or for :data:`LONGEST_GAP`. Then what is missing is given up, and with it the packet that goes through it.

    Args:
        window: payloads (§2.2.3); 0 waits for none, and delivers what comes as it comes.

    Attributes:
        lost: payloads that were given up, whether they came later or not at all.
        gap_ends: when :meth:`give_up` has something to do; infinity while nothing waits.
    """

    __slots__ = ("_early", "_early_octets", "_next", "_partial", "_total", "_window", "gap_ends", "lost")

    def __init__(self, window: int) -> None:
        self._window = window
        self._next = 0  # the number that is expected; 0 before the first
        self._early: dict[int, bytes] = {}
        self._early_octets = 0
        self._partial = bytearray()  # of a packet whose end is to come
        self._total: int | None = None  # its octets, once they are known
        self.lost = 0
        self.gap_ends = inf

    def __len__(self) -> int:
        """Octets that it holds."""
        return self._early_octets + len(self._partial)

    def receive(self, sequence: int, payload: bytes, now: float) -> list[bytes | DropReason]:
        """What can be delivered now that ``payload`` is here: packets, and a reason for each that never will be.

        Args:
            sequence: of the ESP packet, all 64 bits of it.
            payload: as it was sealed, without ESP's padding.
            now: seconds.
        """
        if not self._next:  # whoever takes over an SA begins in the middle of it
            self._next = 1 if sequence <= self._window + 1 else sequence
        if sequence < self._next:
            return [DropReason.FRAGMENT_LATE]
        if sequence in self._early:
            return [DropReason.REPLAYED]  # where the SA has no replay window
        before = self._next
        self._early[sequence] = payload
        self._early_octets += len(payload)
        out: list[bytes | DropReason] = []
        self._deliver(out)
        while self._early and (end := max(self._early) - self._window) > self._next:
            self._skip(min(end, *self._early), out)
        while self._early_octets > MOST_EARLY:
            self._skip(min(self._early), out)
        self._watch(now, moved=self._next != before)
        return out

    def give_up(self, now: float) -> list[bytes | DropReason]:
        """What can be delivered now that a missing payload has been waited for long enough (§2.2.3)."""
        out: list[bytes | DropReason] = []
        if now >= self.gap_ends:
            self._skip(min(self._early), out)
            self._watch(now, moved=True)
        return out

    def take_all(self) -> list[bytes | DropReason]:
        """As ``give_up``, of everything, whatever is missing: nothing more comes."""
        out: list[bytes | DropReason] = []
        while self._early:
            self._skip(min(self._early), out)
        self.gap_ends = inf
        return out + self._abandon()

    def _watch(self, now: float, *, moved: bool) -> None:
        if not self._early:
            self.gap_ends = inf
        elif moved or self.gap_ends == inf:
            self.gap_ends = now + LONGEST_GAP

    def _deliver(self, out: list[bytes | DropReason]) -> None:
        while (payload := self._early.pop(self._next, None)) is not None:
            self._early_octets -= len(payload)
            self._next += 1
            out += self._read(payload)

    def _skip(self, sequence: int, out: list[bytes | DropReason]) -> None:
        """Give up what is missing before ``sequence``."""
        self.lost += sequence - self._next
        self._next = sequence
        out += self._abandon()
        self._deliver(out)

    def _abandon(self) -> list[bytes | DropReason]:
        lost = bool(self._partial)
        self._partial, self._total = bytearray(), None
        return [DropReason.FRAGMENT_MISSING] if lost else []

    def _read(self, payload: bytes) -> Iterator[bytes | DropReason]:
        """The packets that end in ``payload``, the next in sequence (RFC 9347 §2.2.1, §6.1)."""
        header = _HEADERS.get(payload[0]) if payload else None
        if header is None or len(payload) < header:
            yield DropReason.MALFORMED
            return
        offset: int = _HEADER.unpack_from(payload)[1]
        blocks = payload[header:]
        if not offset and (not blocks or not blocks[0] >> 4):
            return  # nothing but padding, which may stand between two fragments (§2.2.3)
        if self._partial:
            self._partial += blocks[:offset]
            yield from self._finish(offset, len(blocks))
        if offset < len(blocks):
            yield from self._read_blocks(blocks[offset:])

    def _finish(self, offset: int, room: int) -> Iterator[bytes | DropReason]:
        """Go on with the packet that has begun; ``offset`` says how much of it was to come, ``room`` how much could."""
        before = len(self._partial) - min(offset, room)
        if self._total is None:
            self._total = _total_length(self._partial)
        if self._total is not None and self._total - before != offset:
            yield from self._abandon()
        elif offset <= room:
            complete, packet = self._total is not None, bytes(self._partial)
            self._partial, self._total = bytearray(), None
            yield packet if complete else DropReason.FRAGMENT_MISSING

    def _read_blocks(self, blocks: bytes) -> Iterator[bytes | DropReason]:
        position = 0
        while position < len(blocks):
            version = blocks[position] >> 4
            if version == 0:
                return  # padding to the end (§6.1.3.3)
            if version not in _LENGTH_ENDS:
                yield DropReason.MALFORMED
                return
            total = _total_length(blocks[position : position + 6])
            if total is None or position + total > len(blocks):
                self._partial, self._total = bytearray(blocks[position:]), total
                return
            if total < 20:
                yield DropReason.MALFORMED  # it would not end
                return
            yield blocks[position : position + total]
            position += total


def _total_length(packet: bytes | bytearray) -> int | None:
    """Octets of the packet that starts like this; None while it does not show it."""
    version = packet[0] >> 4
    if len(packet) < _LENGTH_ENDS[version]:
        return None
    length = int.from_bytes(packet[2:4] if version == 4 else packet[4:6])
    return length if version == 4 else _IPV6_HEADER + length
