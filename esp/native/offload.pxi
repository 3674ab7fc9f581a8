from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint16_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy

import sys


cdef extern from "checksum.h":
    uint64_t checksum_sum(const uint8_t *octets, size_t count) nogil
    uint64_t checksum_copy(uint8_t *into, const uint8_t *source, size_t count) nogil
    uint16_t checksum_fold(uint64_t sum) nogil

cdef extern from "segment.h":
    struct vnet:
        pass

    struct segments:
        unsigned count

    unsigned segments_begin(segments *, const vnet *, uint8_t *packet, size_t octets) nogil
    size_t segments_next_octets(const segments *) nogil
    void segments_take(segments *, uint8_t *into) nogil

cdef extern from "sys/uio.h":
    struct iovec:
        void *iov_base
        size_t iov_len

cdef extern from "coalesce.h":
    struct coalescer:
        pass

    ctypedef void coalescer_write(void *context, const iovec *vectors, int count, unsigned packets) noexcept
    coalescer *coalescer_new(coalescer_write *, void *context, int tcp, int udp) nogil
    void coalescer_free(coalescer *) nogil
    void coalescer_allow(coalescer *, int tcp, int udp) nogil
    void coalescer_add(coalescer *, uint8_t *packet, size_t octets)
    void coalescer_flush(coalescer *)


cdef uint8_t *copied(const uint8_t[::1] octets) except NULL:
    """Memory of its own, and not an octet more, so that a sanitizer sees who reads on."""
    cdef uint8_t *copy = <uint8_t *>malloc(octets.shape[0] or 1)
    if copy is NULL:
        raise MemoryError
    if octets.shape[0]:
        memcpy(copy, &octets[0], octets.shape[0])
    return copy


cdef vnet vnet_of(const uint8_t[::1] octets) except *:
    """A struct virtio_net_hdr as it is read from a TUN."""
    cdef vnet header
    if octets.shape[0] != sizeof(header):
        raise ValueError(f"a vnet header has {sizeof(header)} octets")
    memcpy(&header, &octets[0], sizeof(header))
    return header


def checksum(const uint8_t[::1] octets not None):
    """The sum of ``octets`` in 16-bit words (RFC 1071), folded, and what of them is copied by summing them."""
    cdef size_t count = octets.shape[0]
    cdef uint8_t *source = copied(octets)
    cdef uint8_t *into = <uint8_t *>malloc(count or 1)
    try:
        if into is NULL:
            raise MemoryError
        summed, both = checksum_fold(checksum_sum(source, count)), checksum_fold(checksum_copy(into, source, count))
        if summed != both:
            raise AssertionError(f"a sum of {summed}, copied {both}")
        return int.from_bytes(summed.to_bytes(2, sys.byteorder)), PyBytes_FromStringAndSize(<char *>into, count)
    finally:
        free(source)
        free(into)


def cut(const uint8_t[::1] header not None, const uint8_t[::1] packet not None):
    """The segments of ``packet`` as it was read from a TUN with the vnet header ``header``.

    None for what makes no sense. One that is whole is all there is, its checksum completed where the kernel left that
    to us.
    """
    cdef vnet read = vnet_of(header)
    cdef segments found
    cdef uint8_t *whole = copied(packet)
    cdef bytes segment
    try:
        if not segments_begin(&found, &read, whole, packet.shape[0]):
            return None
        taken = []
        for _ in range(found.count):
            segment = PyBytes_FromStringAndSize(NULL, segments_next_octets(&found))
            segments_take(&found, <uint8_t *><char *>segment)
            taken.append(segment)
        if found.count == 1 and taken[0] != PyBytes_FromStringAndSize(<char *>whole, packet.shape[0]):
            raise AssertionError("a whole packet has not been completed where it was")
        return taken
    finally:
        free(whole)


cdef void collect(void *context, const iovec *vectors, int count, unsigned packets) noexcept:
    cdef list written = (<Coalescer>context).written
    parts = [PyBytes_FromStringAndSize(<char *>vectors[i].iov_base, vectors[i].iov_len) for i in range(count)]
    written.append((parts[0], b"".join(parts[1:]), packets))


cdef class Coalescer:
    """What :c:func:`coalescer_add` makes of packets, collected.

    Attributes:
        written: for each write, in order: vnet header, packet, and how many of those added are in it.
    """

    cdef coalescer *_coalescer
    cdef uint8_t **_held
    cdef size_t _count
    cdef readonly list written

    def __cinit__(self, *, bint tcp=True, bint udp=True):
        self.written = []
        self._coalescer = coalescer_new(collect, <void *>self, tcp, udp)
        if self._coalescer is NULL:
            raise MemoryError

    def __dealloc__(self):
        coalescer_free(self._coalescer)
        self._release()
        free(self._held)

    cdef void _release(self):
        for i in range(self._count):
            free(self._held[i])
        self._count = 0

    def allow(self, *, bint tcp, bint udp):
        """Whether TCP and UDP may be put together from here on."""
        coalescer_allow(self._coalescer, tcp, udp)

    def add(self, const uint8_t[::1] packet not None):
        """One more packet."""
        cdef uint8_t **held = <uint8_t **>realloc(self._held, (self._count + 1) * sizeof(uint8_t *))
        if held is NULL:
            raise MemoryError
        self._held = held
        held[self._count] = copied(packet)
        self._count += 1
        coalescer_add(self._coalescer, held[self._count - 1], packet.shape[0])

    def flush(self):
        """Write all that waits."""
        coalescer_flush(self._coalescer)
        self._release()
