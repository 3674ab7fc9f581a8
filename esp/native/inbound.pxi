# Inbound SAs.

cimport cython
from libc.math cimport INFINITY
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc

cdef extern from "engine.h" nogil:
    struct inbound:
        uint64_t id, alarm_packets, alarm_octets, hard_packets, hard_octets, packets, octets
        uint32_t spi
        int foreign, esn, dscp_inward
        double hard_at
        silence *silence
        box box
        const policy *policy
        const remote *remote
        cipher *cipher
        window *window
        uint64_t drops[DROPS]
        unsigned attention

    void inbound_free(inbound *)
    int inbound_over(const inbound *)


cdef void _release_inbound(void *what) noexcept nogil:
    inbound_free(<inbound *>what)


@cython.no_gc_clear
cdef class Inbound:
    """An inbound SA as a lane runs it; ``foreign`` ones are the reference engine's, and only known of."""

    cdef inbound *at
    cdef Core core
    cdef readonly object remote, alarms
    cdef public object silence
    cdef readonly bint foreign
    cdef Policy place
    cdef uint64_t reported[DROPS]

    def __cinit__(self, Core core, uint64_t number, uint32_t spi, *, bint foreign=False):
        self.core = core
        self.foreign = foreign
        self.at = <inbound *>calloc(1, sizeof(inbound))
        if self.at is NULL:
            raise MemoryError
        self.at.id = number
        self.at.spi = spi
        self.at.foreign = foreign
        self.at.hard_packets = self.at.hard_octets = self.at.alarm_packets = self.at.alarm_octets = NEVER
        self.alarms = INFINITY, INFINITY
        self.at.hard_at = 1e300
        self.at.silence = core.unwatched.at
        core.unwatched.at.users += 1

    def __dealloc__(self):
        if self.at is not NULL:
            self.core.remotes.pop(self.at.id, None)
            engine_retire(self.core.engine, self.at, _release_inbound)

    def key(self, suite, bytes keymat, bint esn, int library):
        """Before it is installed: what opens its packets."""
        cdef cipher_suite about = suite_in_c(suite)
        if len(keymat) != about.encryption + about.salt + about.integrity_key:
            raise ValueError("octets of KEYMAT")
        self.at.esn = esn
        self.at.cipher = cipher_new(library, &about, keymat, esn, False, <const uint8_t *>(b"\0" * 32))
        if self.at.cipher is NULL:
            raise MemoryError

    def serve(self, Policy place):
        """Before it is installed: of which policy it is."""
        self.place = place
        self.at.policy = place.at

    def use(self, Window window):
        """Before it is installed: have this replay window."""
        window_release(self.at.window)
        window.at.users += 1
        self.at.window = window.at

    def admit(self, int version, intervals, bint names_opaque, bint dscp_inward):
        """Before it is installed: which inner packets may pass."""
        _fill(&self.at.box, version, intervals, names_opaque)
        self.at.dscp_inward = dscp_inward

    def move(self, remote):
        """The endpoint that the peer is at."""
        address, port = remote
        cdef remote_pointer fresh = _somewhere(address, port)
        cdef void *before = <void *>self.at.remote
        self.at.remote = fresh
        self.remote = remote
        self.core.remotes[self.at.id] = remote
        if before is not NULL:
            engine_retire(self.core.engine, before, _release_anything)

    def heard_by(self, Silence silence):
        """Note what comes in ``silence``."""
        cdef silence_pointer before = self.at.silence
        silence.at.users += 1
        self.at.silence = silence.at
        self.core.retire_silence(before)

    def clear(self, unsigned attention):
        """Have a lane tell of these again."""
        clear_attention(<void *>&self.at.attention, attention)

    def take_drops(self):
        """What lanes have dropped since the last call, by the reason's position."""
        return _take(<const void *>self.at.drops, self.reported, DROPS)

    @property
    def attention(self):
        """What lanes have told of, or had no room to."""
        return self.at.attention

    @property
    def packets(self):
        return self.at.packets

    @property
    def octets(self):
        return self.at.octets

    @property
    def hard_at(self):
        """When its lifetime ends; long ago where packets or octets have ended it."""
        return -INFINITY if inbound_over(self.at) else self.at.hard_at

    @hard_at.setter
    def hard_at(self, double value):
        self.at.hard_at = value

    def limit(self, hard_packets, hard_octets):
        """Open nothing any more from there on."""
        self.at.hard_packets = _limit(hard_packets)
        self.at.hard_octets = _limit(hard_octets)

    def alarm(self, packets, octets):
        """Tell from there on."""
        self.alarms = packets, octets
        self.at.alarm_packets = _limit(packets)
        self.at.alarm_octets = _limit(octets)
