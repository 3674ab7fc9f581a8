# Which traffic is whose: boxes of it, and the place for what carries each.

cimport cython
from libc.stdint cimport int32_t, uint64_t
from libc.stdlib cimport calloc

cdef extern from "engine.h" nogil:
    struct policy:
        int action
        outbound *carriers[MAX_LANES]

    struct box:
        uint64_t source[2][2]
        uint64_t destination[2][2]
        int32_t protocol[2]
        int32_t source_port[2]
        int32_t destination_port[2]
        int version, names_opaque

    struct rule:
        box box
        policy *policy

    struct spd:
        size_t count
        int by_ports
        uint64_t generation
        rule rules[1]


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
