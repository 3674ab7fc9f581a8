# SAs, policies and lanes as Python installs them and looks at them.

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.math cimport INFINITY
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from esp.datagram import Outgoing
from esp.errors import SequenceExhausted

cdef object _new = tuple.__new__

cdef extern from "engine.h" nogil:
    enum: DROPS, ECN_PAIRS, ESP_HEADER, MAX_LANES, SA_FRONT, SA_BACK
    enum: ATTENTION_EXHAUSTED, ATTENTION_MOVED
    enum: DROP_SEQUENCE_EXHAUSTED, DROP_SA_EXPIRED

    struct remote:
        pass

    struct policy:
        int action
        outbound *carriers[MAX_LANES]

    struct silence:
        double since, heard_at
        int watched
        unsigned users

    silence *silence_new(int watched)
    void silence_release(silence *)

    struct box:
        uint64_t source[2][2]
        uint64_t destination[2][2]
        int32_t protocol[2]
        int32_t source_port[2]
        int32_t destination_port[2]
        int version, names_opaque

    struct window:
        uint32_t size
        unsigned users

    uint64_t window_top(const window *)
    window *window_new(uint32_t size)
    void window_release(window *)
    int window_check(const window *, uint64_t number)
    uint64_t window_extended(const window *, uint32_t low)
    int window_seen(const window *, uint64_t number)
    void window_mark(window *, uint64_t number)

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

    outbound *outbound_new(unsigned first_lane, unsigned lanes)
    void outbound_free(outbound *)
    void inbound_free(inbound *)
    size_t outbound_seal(outbound *, sealer *, uint8_t *esp, size_t octets, double now)
    uint64_t outbound_octets(const outbound *)
    size_t outbound_front(const outbound *)
    size_t outbound_text(const outbound *, size_t octets)
    size_t outbound_esp(const outbound *, size_t octets)
    uint8_t traffic_class_of(const uint8_t *packet)
    int outbound_over(const outbound *)
    int inbound_over(const inbound *)

    struct opened:
        uint8_t *packet
        size_t octets
        int drop, advanced, unclamped

    struct rule:
        box box
        policy *policy

    struct spd:
        size_t count
        int by_ports
        uint64_t generation
        rule rules[1]

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

cdef extern from "mss.h" nogil:
    int is_syn(const uint8_t *packet, size_t octets)
    void mss_clamp(uint8_t *packet, size_t octets, size_t mtu)

cdef extern from "remote.h" nogil:
    remote *remote_new(const char *address, int port)

cdef extern from *:
    """
    typedef const struct remote *remote_pointer;
    typedef struct silence *silence_pointer;
    static uint64_t read_counter(const void *counters, int number) {
        return atomic_load_explicit((const _Atomic uint64_t *)counters + number, memory_order_relaxed);
    }
    static void clear_attention(void *attention, unsigned what) {
        atomic_fetch_and_explicit((_Atomic unsigned *)attention, ~what, memory_order_relaxed);
    }
    """
    ctypedef const remote *remote_pointer
    ctypedef silence *silence_pointer
    void clear_attention(void *, unsigned) nogil
    uint64_t read_counter(const void *, int) nogil


ALARM = 1
SILENCE = 2
LARGE = 4
EXHAUSTED = 8
MOVED = 16
CLAMP = 32  # the packet that was opened last is a SYN, and no lane knows what goes through the other way

cdef enum:
    LONGEST = 65536

cdef uint64_t NEVER = 0xFFFFFFFFFFFFFFFF


cdef uint64_t _limit(object value):
    """A limit of Python's, where infinity is none."""
    return NEVER if value >= NEVER else <uint64_t>int(value)


cdef void _interval(uint64_t to[2][2], object interval):
    first, last = interval
    to[0][0] = first >> 64
    to[0][1] = first & NEVER
    to[1][0] = last >> 64
    to[1][1] = last & NEVER


cdef int _fill(box *to, int version, object intervals, bint names_opaque) except -1:
    source, destination, protocol, source_port, destination_port = intervals
    _interval(to.source, source)
    _interval(to.destination, destination)
    to.protocol[0], to.protocol[1] = protocol
    to.source_port[0], to.source_port[1] = source_port
    to.destination_port[0], to.destination_port[1] = destination_port
    to.version = version
    to.names_opaque = names_opaque
    return 0


cdef void _release_outbound(void *what) noexcept nogil:
    outbound_free(<outbound *>what)


cdef void _release_inbound(void *what) noexcept nogil:
    inbound_free(<inbound *>what)


cdef void _release_anything(void *what) noexcept nogil:
    free(what)


def clamp(bytes packet, size_t mtu):
    """As :func:`esp.mss.clamp`, of any well-formed packet."""
    cdef bytes changed = PyBytes_FromStringAndSize(PyBytes_AS_STRING(packet), PyBytes_GET_SIZE(packet))
    cdef uint8_t *at = <uint8_t *>PyBytes_AS_STRING(changed)
    if is_syn(at, len(packet)):
        mss_clamp(at, len(packet), mtu)
    return changed


cdef class Silence:
    """Whether a peer answers, for lanes to note: see :class:`esp.silence.Silence`."""

    cdef silence *at

    def __cinit__(self, bint watched):
        self.at = silence_new(watched)
        if self.at is NULL:
            raise MemoryError

    def __dealloc__(self):
        silence_release(self.at)

    @property
    def since(self):
        return self.at.since

    @since.setter
    def since(self, double value):
        self.at.since = value

    @property
    def heard_at(self):
        return self.at.heard_at

    @heard_at.setter
    def heard_at(self, double value):
        self.at.heard_at = value

    @property
    def watched(self):
        return bool(self.at.watched)

    @watched.setter
    def watched(self, bint value):
        self.at.watched = value


cdef class Window:
    """A replay window that may pass from one SA to its successor: see :class:`esp.seqnum.ReplayWindow`."""

    cdef window *at

    def __cinit__(self, uint32_t size):
        self.at = window_new(size)
        if self.at is NULL:
            raise MemoryError

    def __dealloc__(self):
        window_release(self.at)

    @property
    def top(self):
        return window_top(self.at)

    @property
    def size(self):
        return self.at.size

    def extended(self, uint32_t low):
        """The number that a packet has whose header shows ``low``."""
        return window_extended(self.at, low)

    def check(self, uint64_t number):
        """The position of a drop reason, or -1."""
        return window_check(self.at, number)

    def mark(self, uint64_t number):
        window_mark(self.at, number)

    def seen(self, uint64_t number):
        return bool(window_seen(self.at, number))


@cython.no_gc_clear
cdef class Policy:
    """A place for a policy's carrier."""

    cdef policy *at
    cdef Core core
    cdef list carriers  # what lanes find here lives as long as they do

    def __cinit__(self, Core core, int action):
        self.core = core
        self.carriers = [None] * core.engine.lanes
        self.at = <policy *>calloc(1, sizeof(policy))
        if self.at is NULL:
            raise MemoryError
        self.at.action = action

    def __dealloc__(self):
        if self.at is not NULL:
            engine_retire(self.core.engine, self.at, _release_anything)

    def carry(self, unsigned lane, Outbound sa):
        """Have ``sa`` carry its traffic of that lane; None where the reference engine does, or nobody."""
        if lane >= self.core.engine.lanes or (
            sa is not None and not sa.at.first_lane <= lane < sa.at.first_lane + sa.at.sealer_count - 1
        ):
            raise ValueError("lane")
        self.at.carriers[lane] = NULL if sa is None else sa.at
        self.carriers[lane] = sa  # after that: who was there may go with it


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


cdef remote_pointer _somewhere(str address, int port) except NULL:
    """Likewise; where nobody knows where a peer is, a place that no socket reaches and nothing comes from."""
    cdef bytes text = address.encode()
    cdef remote *made = remote_new(text, port)
    if made is NULL:
        made = <remote *>calloc(1, sizeof(remote))  # of no family
    if made is NULL:
        raise MemoryError
    return made


cdef remote_pointer _remote(str address, int port) except NULL:
    cdef bytes text = address.encode()
    cdef remote *made = remote_new(text, port)
    if made is NULL:
        raise ValueError(f"no address and port: {address} {port}")
    return made


cdef dict _take(const void *counters, uint64_t *reported, int number):
    cdef dict found = {}
    cdef uint64_t now
    for i in range(number):
        now = read_counter(counters, i)
        if now != reported[i]:
            found[i] = now - reported[i]
            reported[i] = now
    return found


cdef void _release_silence(void *what) noexcept nogil:
    silence_release(<silence *>what)


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
