# MSS clamping, for the reference engine too.

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t

cdef extern from "mss.h" nogil:
    int is_syn(const uint8_t *packet, size_t octets)
    void mss_clamp(uint8_t *packet, size_t octets, size_t mtu)


def clamp(bytes packet, size_t mtu):
    """As :func:`esp.mss.clamp`, of any well-formed packet."""
    cdef bytes changed = PyBytes_FromStringAndSize(PyBytes_AS_STRING(packet), PyBytes_GET_SIZE(packet))
    cdef uint8_t *at = <uint8_t *>PyBytes_AS_STRING(changed)
    if is_syn(at, len(packet)):
        mss_clamp(at, len(packet), mtu)
    return changed
