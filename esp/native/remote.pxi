# Where a peer is, as lanes send to it.

from libc.stdlib cimport calloc

cdef extern from "engine.h" nogil:
    struct remote:
        pass

cdef extern from "remote.h" nogil:
    remote *remote_new(const char *address, int port)

cdef extern from *:
    """
    typedef const struct remote *remote_pointer;
    """
    ctypedef const remote *remote_pointer


cdef remote_pointer _remote(str address, int port) except NULL:
    """An address and a port as lanes have them."""
    cdef bytes text = address.encode()
    cdef remote *made = remote_new(text, port)
    if made is NULL:
        raise ValueError(f"no address and port: {address} {port}")
    return made


cdef remote_pointer _somewhere(str address, int port) except NULL:
    """Likewise, but where nobody knows where a peer is, a place that no socket reaches and nothing comes from."""
    cdef bytes text = address.encode()
    cdef remote *made = remote_new(text, port)
    if made is NULL:
        made = <remote *>calloc(1, sizeof(remote))  # of no family
    if made is NULL:
        raise MemoryError
    return made
