# The replay window of an inbound SA, or of several in turn (RFC 4303 section 3.4.3).

from libc.stdint cimport uint32_t, uint64_t

cdef extern from "engine.h" nogil:
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
