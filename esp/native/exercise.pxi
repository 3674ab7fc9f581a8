# Lanes at work without loops, TUN and sockets: what many threads do to SAs they share, for tests and the bench.

cdef extern from "engine.h" nogil:
    void lane_enter(lane *)
    void lane_leave(lane *)

cdef extern from *:
    """
    #include <stdlib.h>
    #include <string.h>
    #define HEAD 16
    static int by_sequence(const void *one, const void *other) { return memcmp(one, other, 8); }
    static int by_iv(const void *one, const void *other) {
        int by_spi = memcmp(one, other, 4);
        return by_spi ? by_spi : memcmp((const char *)one + 8, (const char *)other + 8, 8);
    }
    static size_t equal_neighbours(char *heads, size_t count, int (*compare)(const void *, const void *)) {
        size_t equal = 0;
        qsort(heads, count, HEAD, compare);
        for (size_t i = 1; i < count; i++)
            equal += compare(heads + (i - 1) * HEAD, heads + i * HEAD) == 0;
        return equal;
    }
    """
    enum: HEAD
    int by_sequence(const void *, const void *) nogil
    int by_iv(const void *, const void *) nogil
    size_t equal_neighbours(char *, size_t, int (*)(const void *, const void *) nogil) nogil

cdef enum:
    TURN = 64  # packets before a lane is outside for a moment, as after a batch


def seal_many(Core core, unsigned lane, bytes packet not None, double now, uint8_t[::1] heads not None):
    """Have a lane seal ``packet`` as often as there is room for in ``heads``, without the GIL.

    Args:
        core: whose.
        lane: which, and no other thread's meanwhile.
        packet: of the inside.
        now: seconds.
        heads: of each ESP packet the first 16 octets: SPI, low half of the sequence number, and the IV of a suite that has one of
            eight octets.

    Returns:
        How many were sealed; fewer where the SA came to an end, or there is none.
    """
    if lane >= core.engine.lanes:
        raise ValueError("lane")
    cdef _Lane here = _Lane(core, lane)
    cdef const uint8_t *octets = <const uint8_t *>PyBytes_AS_STRING(packet)
    cdef size_t size = PyBytes_GET_SIZE(packet), room = heads.shape[0] // HEAD, count = 0
    cdef uint8_t *esp = here.octets
    cdef uint8_t *head = &heads[0] if room else NULL
    cdef outbound *sa = NULL
    cdef unsigned attention = 0, share = 0
    if size + SA_FRONT + SA_BACK > LONGEST:
        raise ValueError("a packet that long")
    with nogil:
        lane_enter(here.at)
        while count < room:
            if count % TURN == 0:
                lane_leave(here.at)
                lane_enter(here.at)
            if lane_choose(here.at, octets, size, size, 1, now, &sa, &share) != SEAL:
                break
            memcpy(esp + outbound_front(sa), octets, size)
            if lane_seal(here.at, sa, esp, size, now, &attention) == 0:
                break
            memcpy(head + count * HEAD, esp, HEAD)
            count += 1
        lane_leave(here.at)
    return count


def open_many(Core core, unsigned lane, const uint8_t[::1] datagrams not None, size_t each, double now):
    """Have a lane open ESP packets of ``each`` octets that lie one behind the other, without the GIL.

    Returns:
        How many were opened, dropped, and left to Python.
    """
    if lane >= core.engine.lanes or not 0 < each <= LONGEST:
        raise ValueError("lane or length")
    cdef _Lane here = _Lane(core, lane)
    cdef size_t count = datagrams.shape[0] // each, number
    cdef const uint8_t *first = &datagrams[0] if count else NULL
    cdef inbound *sa = NULL
    cdef opened result
    cdef unsigned attention = 0
    cdef size_t found[4]
    memset(found, 0, sizeof(found))
    with nogil:
        lane_enter(here.at)
        for number in range(count):
            if number % TURN == 0:
                lane_leave(here.at)
                lane_enter(here.at)
            memcpy(here.octets, first + number * each, each)
            found[<int>lane_open(here.at, here.octets, each, 0, now, &sa, &result, &attention)] += 1
        lane_leave(here.at)
    return found[<int>OPEN], found[<int>DROPPED], found[<int>SLOW]


cdef class _Lane:
    """One, and memory for what it is at."""

    cdef lane *at
    cdef Core core
    cdef uint8_t *octets

    def __cinit__(self, Core core, unsigned number):
        self.core = core
        self.at = &core.engine.lane[number]
        self.octets = <uint8_t *>malloc(LONGEST)
        if self.octets is NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.octets)


def repeats(uint8_t[::1] heads not None):
    """How many sequence numbers, and how many IVs, in ``heads`` of :func:`seal_many` stand there again with the same SPI.

    They are sorted where they are.
    """
    cdef size_t count = heads.shape[0] // HEAD, sequences, ivs
    cdef char *at
    if count == 0:
        return 0, 0
    at = <char *>&heads[0]
    with nogil:
        sequences = equal_neighbours(at, count, by_sequence)
        ivs = equal_neighbours(at, count, by_iv)
    return sequences, ivs
