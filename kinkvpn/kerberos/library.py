"""MIT libkrb5, found and loaded, or refused: through cffi's ABI mode, so that nothing is compiled.

The declarations are in :mod:`kinkvpn.kerberos.header`.
"""

from __future__ import annotations

import functools
from typing import Any, Final, TypeAlias

import cffi

from kinkvpn.errors import KinkvpnError
from kinkvpn.kerberos.header import CDEF, FUNCTIONS

# cffi's pointers and libraries have no attributes that a type checker could know.
CData: TypeAlias = Any
Library: TypeAlias = Any

SONAME: Final = "libkrb5.so.3"

ffi: Final = cffi.FFI()
ffi.cdef(CDEF)
NULL: Final = ffi.NULL


class LibraryUnusable(KinkvpnError):
    """There is no MIT libkrb5 on this host, or what goes by its name is something else."""


# What an exchange allocates; parsing a type's name takes cffi a millisecond, and it remembers.
FREQUENT_TYPES: Final = (
    "char[]",
    "krb5_ap_rep_enc_part **",
    "krb5_auth_context *",
    "krb5_authenticator **",
    "krb5_checksum *",
    "krb5_data *",
    "krb5_data[2]",
    "krb5_enc_data *",
    "krb5_flags *",
    "krb5_int32 *",
    "krb5_key *",
    "krb5_keyblock *",
    "krb5_keyblock **",
    "krb5_octet[]",
    "krb5_ticket **",
    "krb5_timestamp *",
    "size_t *",
)


@functools.cache
def load(name: str = SONAME) -> Library:
    """MIT libkrb5, loaded once. libk5crypto's calls are found through it. Raises LibraryUnusable."""
    try:
        library: Library = ffi.dlopen(name)
    except OSError as error:
        raise LibraryUnusable(f"{name} (MIT Kerberos) cannot be loaded: apt-get install libkrb5-3 ({error})") from error
    # All of them now, for three reasons. Heimdal has many of the names over other structures, where a call corrupts
    # memory: but not all of them. cffi looks a function up when it is first named, under a lock that it also holds
    # while it parses a type; a destructor that the garbage collector runs just then would wait for its own thread.
    # And left to first use, the first CREATE pays 20 ms for it.
    missing = [function for function in FUNCTIONS if not has_function(library, function)]
    if missing:
        raise LibraryUnusable(f"{name} is not MIT Kerberos, it lacks {missing[0]}: apt-get install libkrb5-3")
    for kind in FREQUENT_TYPES:
        ffi.typeof(kind)
    return library


def has_function(library: Library, name: str) -> bool:
    """Binds the function, if the library has it."""
    try:
        getattr(library, name)
    except AttributeError:
        return False
    return True
