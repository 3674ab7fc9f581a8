# What both kinds of SA have: limits, what lanes tell of them, what they count, and an end that lanes are waited for with.

from libc.stdint cimport uint64_t
from libc.stdlib cimport free

cdef extern from "engine.h" nogil:
    enum: DROPS, ECN_PAIRS, ESP_HEADER, MAX_LANES, SA_FRONT, SA_BACK
    enum: ATTENTION_EXHAUSTED, ATTENTION_MOVED
    enum: DROP_SEQUENCE_EXHAUSTED, DROP_SA_EXPIRED

cdef extern from *:
    """
    static uint64_t read_counter(const void *counters, int number) {
        return atomic_load_explicit((const _Atomic uint64_t *)counters + number, memory_order_relaxed);
    }
    static void clear_attention(void *attention, unsigned what) {
        atomic_fetch_and_explicit((_Atomic unsigned *)attention, ~what, memory_order_relaxed);
    }
    """
    void clear_attention(void *, unsigned) nogil
    uint64_t read_counter(const void *, int) nogil


ALARM = 1
SILENCE = 2
LARGE = 4
EXHAUSTED = 8
MOVED = 16
CLAMP = 32  # the packet that was opened last is a SYN, and no lane knows what goes through the other way

cdef uint64_t NEVER = 0xFFFFFFFFFFFFFFFF


cdef uint64_t _limit(object value):
    """A limit of Python's, where infinity is none."""
    return NEVER if value >= NEVER else <uint64_t>int(value)


cdef dict _take(const void *counters, uint64_t *reported, int number):
    cdef dict found = {}
    cdef uint64_t now
    for i in range(number):
        now = read_counter(counters, i)
        if now != reported[i]:
            found[i] = now - reported[i]
            reported[i] = now
    return found


cdef void _release_anything(void *what) noexcept nogil:
    free(what)
