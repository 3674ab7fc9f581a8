# The engine as Python has it: lanes, and which SAs and policies they have.

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from esp.datagram import Outgoing

cdef object _new = tuple.__new__

cdef extern from "engine.h" nogil:
    struct opened:
        uint8_t *packet
        size_t octets
        int drop, advanced, unclamped

    struct lane:
        uint64_t packets_out, octets_out, packets_in, octets_in
        uint64_t drops[DROPS]
        uint64_t unused_ecn[ECN_PAIRS]

    struct engine:
        unsigned lanes
        lane lane[1]

    engine *engine_new(unsigned lanes, uint32_t clamp)
    void engine_free(engine *)
    void engine_set_spd(engine *, spd *)
    int engine_add_inbound(engine *, inbound *)
    void engine_remove_inbound(engine *, inbound *)
    void engine_retire(engine *, void *what, void (*release)(void *))
    size_t engine_reclaim(engine *)

    enum verdict:
        SEAL, OPEN, SLOW, DROPPED

    verdict lane_choose(lane *, const uint8_t *packet, size_t octets, size_t largest, unsigned packets, double now,
                        outbound **, unsigned *share)
    size_t lane_seal(lane *, outbound *, uint8_t *esp, size_t octets, double now, unsigned *attention)
    verdict lane_open(lane *, uint8_t *esp, size_t octets, uint8_t traffic_class, double now, inbound **, opened *,
                      unsigned *attention)

cdef enum:
    LONGEST = 65536


@cython.no_gc_clear  # SAs tell it that they go, and may go after it
cdef class Core:
    """What lanes share, and the first of them, which runs in the caller's thread while no loop runs."""

    cdef engine *engine
    cdef Silence unwatched
    cdef dict remotes  # endpoints by the SA's number
    cdef uint8_t *scratch
    cdef uint64_t reported_drops[MAX_LANES][DROPS]
    cdef uint64_t reported_ecn[MAX_LANES][ECN_PAIRS]
    cdef uint64_t reported_traffic[MAX_LANES][4]

    def __cinit__(self, unsigned lanes=1, *, uint32_t clamp=0):
        self.unwatched = Silence(True)
        self.remotes = {}
        self.engine = engine_new(lanes, clamp)
        self.scratch = <uint8_t *>malloc(2 * LONGEST)
        if self.engine is NULL or self.scratch is NULL:
            raise MemoryError

    def __dealloc__(self):
        engine_free(self.engine)
        free(self.scratch)

    @property
    def count(self):
        """How many lanes there are."""
        return self.engine.lanes

    cdef void retire_silence(self, silence *before):
        engine_retire(self.engine, before, _release_silence)

    def set_policies(self, list rules, bint by_ports):
        """Have these decide, the first that matches: policy, IP version, intervals, whether it asks for OPAQUE."""
        cdef spd *fresh = <spd *>calloc(1, sizeof(spd) + len(rules) * sizeof(rule))
        cdef Policy place
        if fresh is NULL:
            raise MemoryError
        fresh.by_ports = by_ports
        for place, version, intervals, names_opaque in rules:
            _fill(&fresh.rules[fresh.count].box, version, intervals, names_opaque)
            fresh.rules[fresh.count].policy = place.at
            fresh.count += 1
        engine_set_spd(self.engine, fresh)

    def add_inbound(self, Inbound sa):
        """Open its packets from now on, in place of the SA with its SPI, if there is one."""
        if engine_add_inbound(self.engine, sa.at) < 0:
            raise MemoryError

    def remove_inbound(self, Inbound sa):
        """Open them no more."""
        engine_remove_inbound(self.engine, sa.at)

    def reclaim(self):
        """Free what lanes have left; how many things they may still be at."""
        return engine_reclaim(self.engine)

    def protect(self, list packets, Py_ssize_t start, double now, list sealed):
        """Seal ``packets`` from that of number ``start`` on, and append to ``sealed``, up to one that needs Python.

        Returns:
            None when all are done. Number of the next packet, 0, 0: that one is not for a lane. Number, attention, SA: those before it are
            done, and this is to be looked at before it is.
        """
        cdef lane *here = &self.engine.lane[0]
        cdef Py_ssize_t number
        cdef bytes packet, esp
        cdef const uint8_t *octets
        cdef uint8_t *at
        cdef size_t size, total
        cdef outbound *sa = NULL
        cdef unsigned attention = 0, share = 0
        cdef verdict found
        cdef object outgoing = Outgoing
        for number in range(start, len(packets)):
            packet = packets[number]
            octets = <const uint8_t *>PyBytes_AS_STRING(packet)
            size = PyBytes_GET_SIZE(packet)
            found = lane_choose(here, octets, size, size, 1, now, &sa, &share)
            if found == SLOW:
                return number, 0, 0
            if found == DROPPED:
                continue
            total = outbound_esp(sa, size)
            esp = PyBytes_FromStringAndSize(NULL, total)
            at = <uint8_t *>PyBytes_AS_STRING(esp)
            memcpy(at + outbound_front(sa), octets, size)
            if lane_seal(here, sa, at, size, now, &attention):
                sealed.append(_new(outgoing, (esp, self.remotes[sa.id], sa.outer_class[traffic_class_of(octets)], None, 0, 50)))
            if attention:
                return number + 1, attention, sa.id
        return None

    def unprotect(self, list datagrams, Py_ssize_t start, double now, list packets):
        """Open ``datagrams`` from that of number ``start`` on, and append to ``packets``; otherwise as :meth:`protect`.

        With ``CLAMP`` in the attention, it is the last of ``packets`` that is to be looked at too.
        """
        cdef lane *here = &self.engine.lane[0]
        cdef Py_ssize_t number
        cdef bytes datagram
        cdef size_t size
        cdef inbound *sa = NULL
        cdef opened result
        cdef unsigned attention = 0
        cdef verdict found
        cdef object source, remote
        for number in range(start, len(datagrams)):
            datagram, source, traffic_class = datagrams[number]
            size = PyBytes_GET_SIZE(datagram)
            if size > LONGEST:
                return number, 0, 0
            memcpy(self.scratch, PyBytes_AS_STRING(datagram), size)
            found = lane_open(here, self.scratch, size, traffic_class, now, &sa, &result, &attention)
            if found == SLOW:
                return number, 0, 0
            # One that was dropped may have been authentic, and the newest.
            if sa is not NULL and result.advanced:
                remote = self.remotes[sa.id]
                if source is not remote and source != remote:
                    attention |= ATTENTION_MOVED
            if found == OPEN:
                packets.append(PyBytes_FromStringAndSize(<char *>result.packet, result.octets))
                if result.unclamped:
                    attention |= CLAMP
            if attention:
                return number + 1, attention, sa.id
            sa = NULL
        return None

    def take_drops(self):
        """What lanes have dropped since the last call, by the reason's position."""
        cdef dict found = {}
        for i in range(self.engine.lanes):
            for reason, packets in _take(<const void *>self.engine.lane[i].drops, self.reported_drops[i], DROPS).items():
                found[reason] = found.get(reason, 0) + packets
        return found

    def take_unused_ecn(self):
        """Likewise of combinations of ECN fields, by inner << 2 | outer."""
        cdef dict found = {}
        for i in range(self.engine.lanes):
            for pair, packets in _take(<const void *>self.engine.lane[i].unused_ecn, self.reported_ecn[i], ECN_PAIRS).items():
                found[pair] = found.get(pair, 0) + packets
        return found

    def passed(self):
        """Packets that each lane has sealed, and opened, since the start."""
        return [(self.engine.lane[i].packets_out, self.engine.lane[i].packets_in) for i in range(self.engine.lanes)]

    def take_traffic(self):
        """Packets and octets that lanes have sealed, and opened, since the last call."""
        cdef uint64_t totals[4]
        cdef lane *each
        sums = [0, 0, 0, 0]
        for i in range(self.engine.lanes):
            each = &self.engine.lane[i]
            totals[0] = each.packets_out
            totals[1] = each.octets_out
            totals[2] = each.packets_in
            totals[3] = each.octets_in
            for kind in range(4):
                sums[kind] += totals[kind] - self.reported_traffic[i][kind]
                self.reported_traffic[i][kind] = totals[kind]
        return tuple(sums)
