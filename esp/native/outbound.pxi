# Outbound SAs.

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.math cimport INFINITY
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from esp.errors import SequenceExhausted

cdef extern from "engine.h" nogil:
    struct sealer:
        cipher *cipher
        uint64_t octets, exhausted, expired
        double sent_at

    struct outbound:
        uint64_t id, sequence_max, alarm_sequence, alarm_octets, hard_sequence, hard_octets, sequence
        uint32_t spi, largest, told_above
        double hard_at, tell_at
        silence *silence
        const remote *remote
        cipher_suite suite
        uint8_t outer_class[256]
        unsigned attention, first_lane, sealer_count
        sealer sealers[1]

    outbound *outbound_new(unsigned first_lane, unsigned lanes)
    void outbound_free(outbound *)
    size_t outbound_seal(outbound *, sealer *, uint8_t *esp, size_t octets, double now)
    uint64_t outbound_octets(const outbound *)
    size_t outbound_front(const outbound *)
    size_t outbound_text(const outbound *, size_t octets)
    size_t outbound_esp(const outbound *, size_t octets)
    uint8_t traffic_class_of(const uint8_t *packet)
    int outbound_over(const outbound *)


cdef void _release_outbound(void *what) noexcept nogil:
    outbound_free(<outbound *>what)


@cython.no_gc_clear
cdef class Outbound:
    """An outbound SA as lanes run it: all of them, or the one of that number."""

    cdef outbound *at
    cdef Core core
    cdef readonly object remote, alarms
    cdef public object silence
    cdef uint64_t first, exhausted, expired

    def __cinit__(self, Core core, uint64_t number, uint32_t spi, uint64_t sequence, uint64_t sequence_max, suite,
                  bytes keymat, bint esn, int library, bytes seed, bytes outer_class, lane=None):
        cdef cipher_suite about = suite_in_c(suite)
        self.core = core
        if len(seed) != 32 or len(outer_class) != 256 or len(keymat) != about.encryption + about.salt + about.integrity_key:
            raise ValueError("octets of the seed, the classes or KEYMAT")
        if lane is not None and not 0 <= lane < core.engine.lanes:
            raise ValueError("lane")
        self.at = outbound_new(lane or 0, core.engine.lanes if lane is None else 1)
        if self.at is NULL:
            raise MemoryError
        self.at.id = number
        self.at.spi = spi
        self.at.sequence = self.first = sequence
        self.at.sequence_max = sequence_max
        self.at.suite = about
        self.at.hard_sequence = self.at.hard_octets = self.at.alarm_sequence = self.at.alarm_octets = NEVER
        self.alarms = INFINITY, INFINITY
        self.at.tell_at = -1e300
        self.at.hard_at = 1e300
        self.at.told_above = 0xFFFFFFFF
        memcpy(self.at.outer_class, <const char *>outer_class, 256)
        self.at.silence = core.unwatched.at
        core.unwatched.at.users += 1
        # All of one seed: their IVs are numbers of the one counter, changed in the same way.
        for i in range(self.at.sealer_count):
            self.at.sealers[i].cipher = cipher_new(library, &about, keymat, esn, True, seed)
            if self.at.sealers[i].cipher is NULL:
                raise MemoryError

    def __dealloc__(self):
        if self.at is not NULL:
            self.core.remotes.pop(self.at.id, None)
            engine_retire(self.core.engine, self.at, _release_outbound)

    def move(self, remote):
        """Send to this endpoint from now on."""
        address, port = remote
        cdef remote_pointer fresh = _somewhere(address, port)
        cdef void *before = <void *>self.at.remote
        self.at.remote = fresh
        self.remote = remote
        self.core.remotes[self.at.id] = remote
        if before is not NULL:
            engine_retire(self.core.engine, before, _release_anything)

    def heard_by(self, Silence silence):
        """Note what is sent in ``silence``."""
        cdef silence_pointer before = self.at.silence
        silence.at.users += 1
        self.at.silence = silence.at
        self.core.retire_silence(before)

    def seal(self, bytes packet, double now):
        """The ESP packet, and the outer traffic class.

        Raises:
            SequenceExhausted: there is no number left.
        """
        cdef size_t octets = PyBytes_GET_SIZE(packet)
        cdef const uint8_t *payload = <const uint8_t *>PyBytes_AS_STRING(packet)
        cdef bytes sealed = PyBytes_FromStringAndSize(NULL, outbound_esp(self.at, octets))
        cdef uint8_t *esp = <uint8_t *>PyBytes_AS_STRING(sealed)
        memcpy(esp + outbound_front(self.at), payload, octets)
        if outbound_seal(self.at, &self.at.sealers[0], esp, octets, now) == 0:
            raise SequenceExhausted("the last sequence number of this SA has been used")
        return sealed, self.at.outer_class[traffic_class_of(payload)]

    def clear(self, unsigned attention):
        """Have a lane tell of these again."""
        clear_attention(<void *>&self.at.attention, attention)

    def take_drops(self):
        """What lanes have dropped since the last call, by the reason's position."""
        cdef uint64_t exhausted = 0, expired = 0
        for i in range(1, self.at.sealer_count):
            exhausted += self.at.sealers[i].exhausted
            expired += self.at.sealers[i].expired
        fresh = {DROP_SEQUENCE_EXHAUSTED: exhausted - self.exhausted, DROP_SA_EXPIRED: expired - self.expired}
        self.exhausted, self.expired = exhausted, expired
        return {reason: packets for reason, packets in fresh.items() if packets}

    @property
    def attention(self):
        """What lanes have told of, or had no room to."""
        return self.at.attention

    @property
    def sequence(self):
        return self.at.sequence

    @property
    def packets(self):
        return self.at.sequence - self.first

    @property
    def octets(self):
        return outbound_octets(self.at)

    @property
    def sent_at(self):
        return max([self.at.sealers[i].sent_at for i in range(self.at.sealer_count)])

    @sent_at.setter
    def sent_at(self, double value):
        self.at.sealers[0].sent_at = value

    @property
    def largest(self):
        return self.at.largest

    @largest.setter
    def largest(self, value):
        self.at.largest = max(0, value)

    @property
    def told_above(self):
        return self.at.told_above

    @told_above.setter
    def told_above(self, value):
        self.at.told_above = 0xFFFFFFFF if value > 0xFFFFFFFF else value

    @property
    def tell_at(self):
        return self.at.tell_at

    @tell_at.setter
    def tell_at(self, double value):
        self.at.tell_at = value

    @property
    def hard_at(self):
        """When its lifetime ends; long ago where packets or octets have ended it."""
        return -INFINITY if outbound_over(self.at) else self.at.hard_at

    @hard_at.setter
    def hard_at(self, double value):
        self.at.hard_at = value

    def limit(self, hard_packets, hard_octets):
        """Carry nothing any more from there on."""
        self.at.hard_sequence = _limit(self.first + hard_packets)
        self.at.hard_octets = _limit(hard_octets)

    def alarm(self, packets, octets):
        """Tell from there on."""
        self.alarms = packets, octets
        self.at.alarm_sequence = _limit(self.first + packets)
        self.at.alarm_octets = _limit(octets)
