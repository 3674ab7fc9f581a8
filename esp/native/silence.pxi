# Whether a peer answers, as lanes note it.

cdef extern from "engine.h" nogil:
    struct silence:
        double since, heard_at
        int watched
        unsigned users

    silence *silence_new(int watched)
    void silence_release(silence *)

cdef extern from *:
    """
    typedef struct silence *silence_pointer;
    """
    ctypedef silence *silence_pointer


cdef void _release_silence(void *what) noexcept nogil:
    silence_release(<silence *>what)


cdef class Silence:
    """Whether a peer answers, for lanes to note: see :class:`esp.silence.Silence`."""

    cdef silence *at

    def __cinit__(self, bint watched):
        self.at = silence_new(watched)
        if self.at is NULL:
            raise MemoryError

    def __dealloc__(self):
        silence_release(self.at)

    @property
    def since(self):
        return self.at.since

    @since.setter
    def since(self, double value):
        self.at.since = value

    @property
    def heard_at(self):
        return self.at.heard_at

    @heard_at.setter
    def heard_at(self, double value):
        self.at.heard_at = value

    @property
    def watched(self):
        return bool(self.at.watched)

    @watched.setter
    def watched(self, bint value):
        self.at.watched = value
