from libc.stdint cimport uint8_t, uint64_t

from esp.suite import Cipher as _SuiteCipher
from esp.suite import Integrity as _SuiteIntegrity

cdef extern from "cipher.h":
    enum:
        CIPHER_LIBRARIES, INTEGRITY_NONE

    struct cipher_suite:
        int cipher, integrity
        unsigned encryption, salt, integrity_key, iv, icv, block

    struct cipher:
        void (*seal)(cipher *, uint8_t *packet, size_t text, uint64_t sequence) noexcept nogil
        int (*open)(cipher *, uint8_t *packet, size_t text, uint64_t sequence) noexcept nogil

    int cipher_offered(int library, const cipher_suite *suite) noexcept nogil
    int cipher_preferred(const cipher_suite *suite) noexcept nogil
    const char *cipher_library_name(int library) noexcept nogil
    cipher *cipher_new(int library, const cipher_suite *suite, const uint8_t *keymat, int esn, int sealing,
                       const uint8_t *seed) noexcept nogil
    void cipher_free(cipher *) noexcept nogil


# In the order of enum cipher_library.
OPENSSL, IPSEC_MB = LIBRARIES = tuple(range(CIPHER_LIBRARIES))

cdef dict _CIPHERS = {cipher: number for number, cipher in enumerate(_SuiteCipher)}
cdef dict _INTEGRITIES = {integrity: number for number, integrity in enumerate(_SuiteIntegrity)}


cdef cipher_suite suite_in_c(suite) except *:
    """An :class:`esp.suite.Suite` as the rooms in C have it."""
    return cipher_suite(
        _CIPHERS[suite.cipher],
        INTEGRITY_NONE if suite.integrity is None else _INTEGRITIES[suite.integrity],
        suite.encryption_octets,
        suite.salt_octets,
        suite.integrity_octets,
        suite.iv_octets,
        suite.icv_octets,
        suite.block_octets,
    )


def library_name(int library):
    """The name and version of ``library`` as it runs; None where it is not there."""
    cdef const char *name = cipher_library_name(library)
    return None if name is NULL else name.decode()


def offered(suite, int library):
    """Whether ``library`` is there, serves this processor, and has ``suite``."""
    cdef cipher_suite native = suite_in_c(suite)
    return bool(cipher_offered(library, &native))


def preferred(suite):
    """The library that is the faster one for ``suite``, of those that offer it."""
    cdef cipher_suite native = suite_in_c(suite)
    return cipher_preferred(&native)


cdef class Cipher:
    """One direction of a suite, keyed for one SA (RFC 4303 §3.3.2, §3.4.4): :mod:`esp.crypto`, in place.

    One thread at a time.

    Args:
        suite: an :class:`esp.suite.Suite`.
        keymat: exactly ``suite.keymat_octets``.
        esn: sequence numbers are extended.
        sealing: whether it is for :meth:`seal` or for :meth:`open`.
        library: one of ``LIBRARIES``.
        seed: 32 unpredictable octets. The first eight are the mask that :func:`esp.crypto.make_sealer` speaks of.

    Raises:
        ValueError: an argument is not as long as it has to be, or ``library`` does not offer the suite.
    """

    cdef cipher *_cipher
    cdef cipher_suite _suite
    cdef bint _sealing

    def __cinit__(self, suite, const uint8_t[::1] keymat not None, *, bint esn, bint sealing, int library,
                  const uint8_t[::1] seed not None):
        if len(keymat) != suite.keymat_octets or len(seed) != 32:
            raise ValueError(f"{suite.name} takes {suite.keymat_octets} octets of KEYMAT and 32 of seed")
        self._suite = suite_in_c(suite)
        self._sealing = sealing
        # A suite of no keys has no first octet; nothing is read of it.
        self._cipher = cipher_new(library, &self._suite, &keymat[0] if len(keymat) else NULL, esn, sealing, &seed[0])
        if self._cipher is NULL:
            raise ValueError(f"{library_name(library)} does not offer {suite.name}")

    def __dealloc__(self):
        cipher_free(self._cipher)

    cdef int _check(self, size_t packet, size_t text, bint sealing) except -1:
        if sealing != self._sealing:
            raise ValueError("a cipher seals or opens, as it was made to")
        if packet != 8 + self._suite.iv + text + self._suite.icv or text % self._suite.block:
            raise ValueError("a packet is header, IV, whole blocks of text, and ICV")
        return 0

    def seal(self, uint8_t[::1] packet not None, size_t text, uint64_t sequence):
        """Write IV and ICV into ``packet``, and encrypt its text, all in place.

        Args:
            packet: SPI and low half of the sequence number, room for the IV, the text, room for the ICV.
            text: octets of payload and trailer, a multiple of the suite's ``block_octets``.
            sequence: all 64 bits; never the same twice.
        """
        self._check(packet.shape[0], text, True)
        cdef uint8_t *start = &packet[0]
        with nogil:
            self._cipher.seal(self._cipher, start, text, sequence)

    def open(self, uint8_t[::1] packet not None, size_t text, uint64_t sequence):
        """Whether the ICV of ``packet`` is right, and the text then stands decrypted where it was.

        If it is not, what is behind the header means nothing. Arguments as those of :meth:`seal`; ``sequence`` as the
        receiver has inferred it.
        """
        self._check(packet.shape[0], text, False)
        cdef uint8_t *start = &packet[0]
        cdef int right
        with nogil:
            right = self._cipher.open(self._cipher, start, text, sequence)
        return bool(right)
