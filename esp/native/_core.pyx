# cython: language_level=3, embedsignature=True
"""The compiled engine: what of it Python can touch. The rooms are the C files; this is their door."""

include "cipher.pxi"
include "engine.pxi"
include "offload.pxi"
include "loop.pxi"
include "exercise.pxi"
include "testing.pxi"
