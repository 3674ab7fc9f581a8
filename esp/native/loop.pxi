# The packet loop of a lane, for Trio to start, to stop and to serve.

from esp.sa import Endpoint

cdef extern from "loop.h" nogil:
    enum:
        MAX_SOCKETS, RINGS, REMOTE_TEXT
    enum:
        RECORD_PACKET, RECORD_DATAGRAM, RECORD_OPENED, RECORD_CONTROL, RECORD_ATTENTION, RECORD_TROUBLE, RECORD_ERRORS

    struct record:
        uint32_t octets
        unsigned short kind
        uint8_t traffic_class, detail
        uint64_t number
        remote source

    struct ring:
        pass

    const record *ring_peek(ring *, const uint8_t **octets)
    void ring_drop(ring *)

    struct port:
        int fd, family, raw

    struct loop_settings:
        int tun, vnet, ethernet
        uint8_t hardware[12]
        port ports[MAX_SOCKETS]
        unsigned port_count, receives
        int runs, coalesce_tcp, coalesce_udp
        double clock_offset
        int wake

    struct loop_counters:
        uint64_t esp_received, control_received, keepalives_received, junk_received, refused
        uint64_t polls, reads, writes, receives, sends
        uint64_t packets_read, packets_written, datagrams_received, datagrams_sent

    struct loop:
        loop_counters counters
        ring rings[RINGS]

    loop *loop_new(lane *, const loop_settings *)
    void loop_free(loop *)
    int loop_run(loop *)
    void loop_stop(loop *)
    void loop_rouse(loop *)
    int loop_look(loop *)
    void loop_count(const loop *, loop_counters *)
    void loop_packet_taken(loop *, const record *)
    void loop_errors_taken(loop *, unsigned port)
    int remote_text(const remote *, char *text)

PACKETS, CONTROL, NEWS = range(RINGS)
PACKET, DATAGRAM, OPENED, CONTROL_DATAGRAM, ATTENTION, TROUBLE, ERRORS = range(7)


@cython.no_gc_clear
cdef class Loop:
    """Runs a lane in the thread that calls :meth:`run`."""

    cdef loop *at
    cdef Core core

    def __cinit__(self, Core core, unsigned lane, *, int tun, bint vnet, bytes hardware, list ports, bint runs, bint coalesce_tcp,
                  bint coalesce_udp, double clock_offset, int wake):
        cdef loop_settings settings
        if lane >= core.engine.lanes or len(ports) > MAX_SOCKETS:
            raise ValueError("lane or ports")
        memset(&settings, 0, sizeof(settings))
        settings.tun = tun
        settings.vnet = vnet
        if hardware:
            if len(hardware) != sizeof(settings.hardware):
                raise ValueError("hardware")
            settings.ethernet = True
            memcpy(settings.hardware, <const uint8_t *>hardware, sizeof(settings.hardware))
        for fd, family, raw, receives in ports:
            settings.ports[settings.port_count].fd = fd
            settings.ports[settings.port_count].family = family
            settings.ports[settings.port_count].raw = raw
            settings.receives |= <unsigned>bool(receives) << settings.port_count
            settings.port_count += 1
        settings.runs = runs
        settings.coalesce_tcp = coalesce_tcp
        settings.coalesce_udp = coalesce_udp
        settings.clock_offset = clock_offset
        settings.wake = wake
        self.core = core
        self.at = loop_new(&core.engine.lane[lane], &settings)
        if self.at is NULL:
            raise MemoryError

    def __dealloc__(self):
        loop_free(self.at)

    def run(self):
        """Carry packets until :meth:`stop`; 0, or the errno with which the TUN went."""
        cdef int code
        with nogil:
            code = loop_run(self.at)
        return code

    def stop(self):
        """End :meth:`run`, from any thread."""
        loop_stop(self.at)

    def rouse(self):
        """Have :meth:`run` take a turn, from any thread; it counts a poll."""
        loop_rouse(self.at)

    def errors_taken(self, unsigned port):
        """The error queue of that port is empty."""
        loop_errors_taken(self.at, port)

    def look(self):
        """Before the rings are looked at: be woken again by what comes after. Whether all SAs have to be looked at, too."""
        return bool(loop_look(self.at))

    def take(self, int number, int most):
        """Up to ``most`` records of a ring, oldest first: kind, detail, number, traffic class, source, octets."""
        cdef ring *from_ = &self.at.rings[number]
        cdef const record *found
        cdef const uint8_t *octets = NULL
        cdef char text[128]
        cdef list taken = []
        while len(taken) < most:
            found = ring_peek(from_, &octets)
            if found is NULL:
                break
            port = remote_text(&found.source, text)
            taken.append((found.kind, found.detail, found.number, found.traffic_class, Endpoint(text.decode(), port),
                          PyBytes_FromStringAndSize(<const char *>octets, found.octets)))
            if number == PACKETS:
                loop_packet_taken(self.at, found)
            ring_drop(from_)
        return taken

    def counters(self):
        """What passed, by name, since the start."""
        cdef loop_counters found
        loop_count(self.at, &found)
        return found
