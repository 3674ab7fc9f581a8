# Doors to rooms that only lanes and tests enter, for the tests.

from libc.string cimport memset

cdef extern from "engine.h" nogil:
    struct flow:
        uint64_t addresses[4]
        int32_t source_port, destination_port
        short protocol
        uint8_t version, fragment

    enum match:
        pass

    enum: DECISIONS

    struct decision:
        pass

    size_t flow_parse(const uint8_t *packet, size_t octets, flow *)
    match box_match(const box *, const flow *)
    policy *spd_search(const spd *, const flow *)
    policy *spd_lookup(const spd *, decision *, const flow *)
    int remote_equal(const remote *, const remote *)

from libc.stdint cimport int64_t

cdef extern from "<stdlib.h>" nogil:
    void *aligned_alloc(size_t alignment, size_t octets)

cdef extern from "ring.h" nogil:
    int ring_init(ring *, size_t capacity)
    void ring_clear(ring *)
    int ring_put(ring *, const record *, const uint8_t *octets)

cdef extern from "outbox.h" nogil:
    struct outbox:
        pass

    struct outbox_report:
        uint64_t datagrams, refused, calls
        uint32_t errors
        int fell_back

    outbox *outbox_new(const port *, unsigned count, int runs)
    void outbox_free(outbox *)
    uint8_t *outbox_place(outbox *, size_t octets, const remote *, uint8_t traffic_class)
    void outbox_withdraw(outbox *)
    void outbox_flush(outbox *)
    outbox_report outbox_take_report(outbox *)

cdef extern from "stdlib.h" nogil:
    void *aligned_alloc(size_t alignment, size_t octets)

cdef extern from "sched.h" nogil:
    int sched_yield()


cdef tuple _flow_in_python(const flow *found):
    """As esp.inner has it."""
    cdef bytes addresses = (<const char *>found.addresses)[:8 if found.version == 4 else 32]
    cdef int64_t ports = -1 if found.source_port < 0 else <int64_t>found.source_port << 16 | found.destination_port
    return found.protocol, addresses, ports


cdef void _flow_in_c(flow *to, object given):
    protocol, addresses, ports = given
    memset(to, 0, sizeof(flow))
    to.protocol = protocol
    to.version = 4 if len(addresses) == 8 else 6
    memcpy(to.addresses, <const char *><bytes>addresses, len(addresses))
    to.source_port = -1 if ports < 0 else ports >> 16
    to.destination_port = -1 if ports < 0 else ports & 0xFFFF


def parse_flow(bytes packet):
    """Octets of the IP packet, its flow as esp.inner has it, and whether it is a fragment; None where it is none."""
    cdef flow found
    cdef size_t octets = flow_parse(<const uint8_t *>PyBytes_AS_STRING(packet), PyBytes_GET_SIZE(packet), &found)
    return (octets, _flow_in_python(&found), bool(found.fragment)) if octets else None


def match_box(int version, intervals, bint names_opaque, asked):
    """0, 1, 2: as enum match."""
    cdef box made
    cdef flow one
    memset(&made, 0, sizeof(made))
    _fill(&made, version, intervals, names_opaque)
    _flow_in_c(&one, asked)
    return <int>box_match(&made, &one)


cdef class Rules:
    """An SPD of one policy for each rule, and the decisions of a lane."""

    cdef spd *at
    cdef policy *policies
    cdef decision *decisions

    def __cinit__(self, list rules):
        self.at = <spd *>calloc(1, sizeof(spd) + len(rules) * sizeof(rule))
        self.policies = <policy *>calloc(len(rules) + 1, sizeof(policy))
        self.decisions = <decision *>calloc(DECISIONS, sizeof(decision))
        if self.at is NULL or self.policies is NULL or self.decisions is NULL:
            raise MemoryError
        self.set(rules)

    def __dealloc__(self):
        free(self.at)
        free(self.policies)
        free(self.decisions)

    def set(self, list rules):
        """No more than there were at the start, in their place."""
        self.at.generation += 1
        self.at.count = 0
        for version, intervals, names_opaque in rules:
            _fill(&self.at.rules[self.at.count].box, version, intervals, names_opaque)
            self.at.rules[self.at.count].policy = &self.policies[self.at.count]
            self.at.count += 1

    def search(self, asked):
        """The number of the rule that decides; None where none does."""
        cdef flow one
        _flow_in_c(&one, asked)
        return self._number(spd_search(self.at, &one))

    def lookup(self, asked):
        """The same, from what has been decided where it has."""
        cdef flow one
        _flow_in_c(&one, asked)
        return self._number(spd_lookup(self.at, self.decisions, &one))

    cdef object _number(self, policy *found):
        return None if found is NULL else found - self.policies


cdef inline uint32_t _length_of(uint64_t number) noexcept nogil:
    return <uint32_t>(number * <uint64_t>2654435761) % 4096


cdef class Ring:
    """A ring of this many octets."""

    cdef ring *at  # by itself: no object of Python's lies at a multiple of 64

    def __cinit__(self, size_t capacity):
        self.at = <ring *>aligned_alloc(64, sizeof(ring))
        if self.at is NULL or ring_init(self.at, capacity):
            raise MemoryError

    def __dealloc__(self):
        if self.at is not NULL:
            ring_clear(self.at)
        free(self.at)

    def put(self, unsigned short kind, uint64_t number, bytes octets):
        """Whether there was room."""
        cdef record made
        memset(&made, 0, sizeof(made))
        made.kind = kind
        made.number = number
        made.octets = <uint32_t>len(octets)
        return bool(ring_put(self.at, &made, <const uint8_t *>PyBytes_AS_STRING(octets)))

    def take(self):
        """The oldest record: kind, number, octets; None where there is none."""
        cdef const uint8_t *octets = NULL
        cdef const record *found = ring_peek(self.at, &octets)
        if found is NULL:
            return None
        cdef tuple taken = (found.kind, found.number, PyBytes_FromStringAndSize(<const char *>octets, found.octets))
        ring_drop(self.at)
        return taken

    def pour(self, uint64_t records):
        """As another thread than :meth:`drain`: so many, of all lengths, waiting for room."""
        cdef uint8_t octets[4096]
        cdef record made
        cdef uint64_t number
        memset(&made, 0, sizeof(made))
        with nogil:
            for number in range(records):
                made.number = number
                made.octets = _length_of(number)
                memset(octets, <int>(number % 251), made.octets)
                while not ring_put(self.at, &made, octets):
                    sched_yield()

    def drain(self, uint64_t records):
        """How many of those that were poured came whole and in order."""
        cdef const uint8_t *octets = NULL
        cdef const record *found
        cdef uint64_t number, right = 0
        cdef uint32_t i
        with nogil:
            for number in range(records):
                found = ring_peek(self.at, &octets)
                while found is NULL:
                    sched_yield()
                    found = ring_peek(self.at, &octets)
                if found.number == number and found.octets == _length_of(number):
                    right += 1
                    for i in range(found.octets):
                        if octets[i] != number % 251:
                            right -= 1
                            break
                ring_drop(self.at)
        return right


cdef class Outbox:
    """Sends what is placed in it; the sockets stay the caller's."""

    cdef outbox *at
    cdef list places  # the remotes live as long as it does

    def __cinit__(self, list ports, bint runs):
        cdef port made[MAX_SOCKETS]
        cdef unsigned count = 0
        self.places = []
        if len(ports) > MAX_SOCKETS:
            raise ValueError("ports")
        for fd, family, raw in ports:
            made[count].fd = fd
            made[count].family = family
            made[count].raw = raw
            count += 1
        self.at = outbox_new(made, count, runs)
        if self.at is NULL:
            raise MemoryError

    def __dealloc__(self):
        outbox_free(self.at)

    def place(self, bytes octets, Place to, uint8_t traffic_class=0):
        """Whether some port reaches that place."""
        cdef uint8_t *found = outbox_place(self.at, len(octets), to.at, traffic_class)
        self.places.append(to)
        if found is not NULL:
            memcpy(found, PyBytes_AS_STRING(octets), len(octets))
        return found is not NULL

    def withdraw(self):
        outbox_withdraw(self.at)

    def flush(self):
        """What was reported: datagrams, refused, calls, errors by port, why runs are over."""
        outbox_flush(self.at)
        cdef outbox_report report = outbox_take_report(self.at)
        return report.datagrams, report.refused, report.calls, report.errors, report.fell_back


cdef class Place:
    """A remote."""

    cdef const remote *at

    def __cinit__(self, str address, int port):
        self.at = _remote(address, port)

    def __dealloc__(self):
        free(<void *>self.at)

    def __eq__(self, Place other):
        return bool(remote_equal(self.at, other.at))

    def endpoint(self):
        cdef char text[128]
        port = remote_text(self.at, text)
        return Endpoint(text.decode(), port)
