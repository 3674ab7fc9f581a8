# cython: language_level=3
"""lwIP, for Python: see stack.h."""

from libc.errno cimport errno
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy, memset

import os

cdef extern from "stack.h" nogil:
    enum:
        STACK_CONNECT, STACK_LISTEN, STACK_UDP

    struct stack_endpoint:
        uint8_t version
        uint8_t address[16]
        uint8_t port[2]

    struct stack_settings:
        int device, vnet
        unsigned mtu, flows, patience
        uint64_t windows
        unsigned addresses
        stack_endpoint own[4]

    struct stack_counters:
        uint64_t received, sent, refused, flows, closing, given_up

    struct stack:
        pass

    stack *stack_new(const stack_settings *)
    void stack_free(stack *)
    int stack_run(stack *)
    void stack_stop(stack *)
    void stack_set_mtu(stack *, unsigned)
    int stack_ask(stack *, int, const stack_endpoint *, int)
    void stack_count(const stack *, stack_counters *)

CONNECT, LISTEN, UDP = STACK_CONNECT, STACK_LISTEN, STACK_UDP


cdef int fill(stack_endpoint *into, bytes packed) except -1:
    if len(packed) != sizeof(stack_endpoint):
        raise ValueError("no endpoint")
    memcpy(into, <const char *>packed, sizeof(stack_endpoint))
    return 0


cdef class Stack:
    """The one stack of this process, which works while :meth:`run` runs."""

    cdef stack *at

    def __cinit__(
        self, int device, *, bint vnet, unsigned mtu, unsigned flows, unsigned patience, uint64_t windows, list addresses
    ):
        cdef stack_settings settings
        memset(&settings, 0, sizeof(settings))
        if len(addresses) > 4:
            raise ValueError("more addresses than there is room for")
        settings.device, settings.vnet, settings.mtu = device, vnet, mtu
        settings.flows, settings.patience, settings.windows = flows, patience, windows
        for number, address in enumerate(addresses):
            fill(&settings.own[number], address)
        settings.addresses = len(addresses)
        self.at = stack_new(&settings)
        if self.at is NULL:
            raise OSError(errno, os.strerror(errno))

    def __dealloc__(self):
        self.close()

    def close(self):
        """End all connections; another stack may begin. Not while :meth:`run` runs; closing twice is fine."""
        if self.at is not NULL:
            stack_free(self.at)
            self.at = NULL

    def run(self):
        """Carry until :meth:`stop`; 0, or the errno with which the device went."""
        cdef int code
        with nogil:
            code = stack_run(self.at)
        return code

    def stop(self):
        """End :meth:`run`, from any thread."""
        if self.at is not NULL:
            stack_stop(self.at)

    def set_mtu(self, unsigned mtu):
        """What new connections are told of."""
        if self.at is not NULL:
            stack_set_mtu(self.at, mtu)

    def ask(self, int what, bytes endpoint, int fd):
        """Hand ``fd`` over, for what is wanted; whether it was taken."""
        cdef stack_endpoint packed
        fill(&packed, endpoint)
        return self.at is not NULL and stack_ask(self.at, what, &packed, fd) == 0

    def counters(self):
        """By name, since the start."""
        cdef stack_counters found
        memset(&found, 0, sizeof(found))
        if self.at is not NULL:
            stack_count(self.at, &found)
        return found
