"""The calls of MIT libkrb5 that KINK needs and gssapi does not have.

gssapi gives the acceptor's subkey and never the ticket's session key, sends no AP-REP to an AP-REQ without its own
checksum, and knows neither key usage numbers nor the PRF (docs/kerberos.md).

Who frees what: every pointer that is returned here carries its own destructor (``ffi.gc``), which also keeps the
context alive that it was made in. A context must not be used by two threads at once; pointers made in one context may
be used with another.
"""

from __future__ import annotations

import errno
import functools
import itertools
import os
from typing import TYPE_CHECKING, Final

from kinkvpn.errors import KinkvpnError
from kinkvpn.kerberos.library import NULL, ffi, load

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from kinkvpn.kerberos.library import CData, Library

# com_err table of RFC 4120's error codes: libkrb5's own numbers minus this are protocol codes where they are below 128.
ERROR_TABLE_BASE: Final = -1765328384
PROTOCOL_CODES: Final = 128

AP_OPTS_MUTUAL_REQUIRED: Final = 0x20000000
AP_OPTS_USE_SESSION_KEY: Final = 0x40000000
GC_USER_USER: Final = 1
GC_CACHED: Final = 2
GC_NO_STORE: Final = 8
NT_SRV_HST: Final = 3
TKT_FLG_RENEWABLE: Final = 0x00800000
KT_END: Final = ERROR_TABLE_BASE + 182
CC_END: Final = ERROR_TABLE_BASE + 142

MEMORY_KEYTAB_NUMBERS: Final = itertools.count()
DATA: Final = ffi.typeof("krb5_data *")  # looked up once, not by its name in each of the dozen borrowings of a CREATE


class ConfigUnusable(KinkvpnError):
    """The krb5.conf that was asked for is not there, or is no krb5.conf."""


class Krb5Error(KinkvpnError):
    """What libkrb5 answered.

    Args:
        code: its com_err code: mostly of Kerberos' own table, but garbage gives ASN.1 codes and files give errno.
        text: libkrb5's words, one line.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code

    @property
    def protocol_code(self) -> int | None:
        """RFC 4120 §7.5.9 code, or None where libkrb5's code has none."""
        code = self.code - ERROR_TABLE_BASE
        return code if 0 <= code < PROTOCOL_CODES else None


def use_config(path: Path) -> None:
    """Makes ``path`` the krb5.conf of this process, for gssapi too, which has no other way to be told than KRB5_CONFIG.

    To be called at the start, before anything of Kerberos and before any thread.

    Raises:
        ConfigUnusable: it cannot be read, or does not parse.
        LibraryUnusable: no MIT libkrb5.
    """
    try:
        with path.open("rb"):
            os.environ["KRB5_CONFIG"] = str(path)
    except OSError as error:
        raise ConfigUnusable(f"krb5.conf {path} cannot be read: {error.strerror}") from error
    try:
        Context()
    except Krb5Error as error:
        raise ConfigUnusable(f"krb5.conf {path}: {error}") from error


def borrow(octets: bytes) -> CData:
    """A ``krb5_data *`` over ``octets`` without a copy; it is good for as long as ``octets`` itself lives."""
    return ffi.new(DATA, (0, len(octets), ffi.from_buffer(octets)))


def text(pointer: CData) -> str:
    """A C string. Octets that are not UTF-8 become escapes: names come from the network."""
    octets = ffi.string(pointer)
    assert isinstance(octets, bytes)
    return octets.decode("utf-8", "backslashreplace")


def posix_seconds(timestamp: int) -> int:
    """A krb5_timestamp, which is unsigned since 1.17 so that it lasts until 2106."""
    return timestamp & 0xFFFFFFFF


class Context:
    """A krb5_context, for one thread at a time, of the krb5.conf that KRB5_CONFIG or the host names.

    Args:
        libdefaults: values that go before those of the file, without a file being written.
        clock_offset: seconds that this context's clock goes ahead of the host's.

    Raises:
        LibraryUnusable, Krb5Error: the configuration does not parse, or cannot be read.
    """

    __slots__ = ("_libdefaults", "handle", "lib")

    def __init__(self, libdefaults: Mapping[str, str] | None = None, clock_offset: float = 0.0) -> None:
        self.lib = load()
        self.handle: CData = NULL
        self._libdefaults = libdefaults
        overlay = memory_file(libdefaults) if libdefaults else None
        try:
            handle = self._open(overlay)
        except BaseException:
            if overlay is not None:
                os.close(overlay)
            raise
        self.handle = ffi.gc(handle, functools.partial(free_context, self.lib, overlay))
        if clock_offset:
            self._shift_clock(clock_offset)

    def _open(self, overlay: int | None) -> CData:
        """The profile library reads the files in their order; the first value wins."""
        ours = [f"/proc/self/fd/{overlay}".encode()] if overlay is not None else []
        names = [ffi.new("char[]", file) for file in ours + self._host_files()]
        profile, handle = ffi.new("profile_t *"), ffi.new("krb5_context *")
        self.check(self.lib.profile_init(ffi.new("const char *[]", [*names, NULL]), profile))
        try:
            self.check(self.lib.krb5_init_context_profile(profile[0], 0, handle))
        finally:
            self.lib.profile_abandon(profile[0])
        return handle[0]

    def _shift_clock(self, offset: float) -> None:
        seconds, microseconds = self.now()
        total = seconds * 1_000_000 + microseconds + round(offset * 1_000_000)
        stamp = ffi.cast("krb5_timestamp", total // 1_000_000)
        self.check(self.lib.krb5_set_real_time(self.handle, stamp, total % 1_000_000))

    def _host_files(self) -> list[bytes]:
        names = ffi.new("char ***")
        self.check(self.lib.krb5_get_default_config_files(names))
        try:
            # A host may do without a krb5.conf; the profile library wants at least one file that is there.
            found = [name for name in c_strings(names[0]) if os.path.exists(name)]
        finally:
            self.lib.krb5_free_config_files(names[0])
        return found or [os.devnull.encode()]

    def check(self, code: int) -> None:
        """Raises Krb5Error unless ``code`` is 0."""
        if code:
            raise Krb5Error(code, self.message(code))

    def message(self, code: int) -> str:
        """libkrb5's words for ``code``, with what it remembers of the last failure in this context."""
        words = self.lib.krb5_get_error_message(self.handle, code)
        try:
            return " ".join(text(words).split())
        finally:
            self.lib.krb5_free_error_message(self.handle, words)

    def own(self, pointer: CData, free: str) -> CData:
        """``pointer`` with libkrb5's ``free`` function as its destructor."""
        function, handle = getattr(self.lib, free), self.handle
        return ffi.gc(pointer, lambda owned: function(handle, owned))

    def protocol_message(self, code: int) -> str:
        """libkrb5's words for an RFC 4120 §7.5.9 code that came over the wire."""
        if not 0 <= code < PROTOCOL_CODES:
            return "no such code"
        return self.message(ERROR_TABLE_BASE + code)

    def take(self, data: CData) -> bytes:
        """The octets of a ``krb5_data *`` that libkrb5 filled, which is emptied."""
        try:
            return bytes(ffi.buffer(data.data, data.length))
        finally:
            self.lib.krb5_free_data_contents(self.handle, data)

    def profile_values(self, *names: str) -> list[str]:
        """All values of a relation in krb5.conf, such as ``("realms", realm, "kdc")``; empty where there is none."""
        profile, values = ffi.new("profile_t *"), ffi.new("char ***")
        path = [ffi.new("char[]", name.encode()) for name in names]
        self.check(self.lib.krb5_get_profile(self.handle, profile))
        try:
            if self.lib.profile_get_values(profile[0], ffi.new("const char *[]", [*path, NULL]), values):
                return []
            found = [os.fsdecode(value) for value in c_strings(values[0])]
            self.lib.profile_free_list(values[0])
            return found
        finally:
            self.lib.profile_abandon(profile[0])

    def permitted_enctypes(self) -> frozenset[int]:
        """What krb5.conf lets this host use, as libkrb5 understands its names, families and defaults."""
        out = ffi.new("krb5_enctype **")
        self.check(self.lib.krb5_get_permitted_enctypes(self.handle, out))
        found: set[int] = set()
        while enctype := out[0][len(found)]:  # it ends with a zero, and names none twice
            found.add(enctype)
        self.lib.krb5_free_enctypes(self.handle, out[0])
        return frozenset(found)

    def now(self) -> tuple[int, int]:
        """Seconds and microseconds by this context's clock, never the same twice in a process."""
        seconds, microseconds = ffi.new("krb5_timestamp *"), ffi.new("krb5_int32 *")
        self.check(self.lib.krb5_us_timeofday(self.handle, seconds, microseconds))
        return posix_seconds(seconds[0]), microseconds[0]

    def shifted(self, offset: float) -> Context:
        """Another context of the same configuration whose clock is ``offset`` seconds ahead of the host's."""
        return Context(self._libdefaults, offset)

    def clock_offset(self) -> float:
        """How far this context's clock is ahead of the host's, in seconds: what a KDC taught it (kdc_timesync)."""
        seconds, microseconds = ffi.new("krb5_timestamp *"), ffi.new("krb5_int32 *")
        self.check(self.lib.krb5_get_time_offsets(self.handle, seconds, microseconds))
        return float(seconds[0]) + float(microseconds[0]) / 1_000_000

    def principal(self, name: str) -> CData:
        """``primary/instance@REALM`` (the default realm where none is named) as a krb5_principal."""
        out = ffi.new("krb5_principal *")
        self.check(self.lib.krb5_parse_name(self.handle, name.encode(), out))
        return self.own(out[0], "krb5_free_principal")

    def unparse(self, principal: CData) -> str:
        """The principal's full name, with the realm and with escapes."""
        out = ffi.new("char **")
        self.check(self.lib.krb5_unparse_name(self.handle, principal, out))
        try:
            return text(out[0])
        finally:
            self.lib.krb5_free_unparsed_name(self.handle, out[0])

    def canonical(self, name: str) -> str:
        """``name`` as :meth:`unparse` would write it. Raises Krb5Error."""
        return self.unparse(self.principal(name))

    def on_host(self, service: str, host: str) -> CData:
        """The krb5_principal of ``service`` on ``host``, a name: in the realm that krb5.conf puts that host in, or in
        none where that is for the KDC to say, to which this kind of name (RFC 4120 §6.2) is a question.

        A name without dots gets a domain, as krb5.conf's qualify_shortname or resolv.conf have it; what else becomes of
        it dns_canonicalize_hostname says.
        """
        out = ffi.new("krb5_principal *")
        names = host.encode(), service.encode()
        self.check(self.lib.krb5_sname_to_principal(self.handle, *names, NT_SRV_HST, out))
        return self.own(out[0], "krb5_free_principal")

    def realm_of(self, host: str) -> str:
        """The realm that krb5.conf's domain_realm, or what else this host goes by, puts ``host`` in; empty where it
        does not say. Nothing is asked of DNS unless krb5.conf wants that.
        """
        out = ffi.new("char ***")
        self.check(self.lib.krb5_get_host_realm(self.handle, host.encode(), out))
        try:
            return "".join(name.decode("utf-8", "replace") for name in c_strings(out[0])[:1])
        finally:
            self.lib.krb5_free_host_realm(self.handle, out[0])

    def keytab(self, name: str) -> CData:
        """A keytab by its name, such as ``FILE:/etc/krb5.keytab``, which need not exist yet."""
        out = ffi.new("krb5_keytab *")
        self.check(self.lib.krb5_kt_resolve(self.handle, name.encode(), out))
        return self.own(out[0], "krb5_kt_close")

    def memory_keytab(self, keytab: CData) -> CData:
        """A copy of ``keytab`` that no other has, in memory. Raises Krb5Error where it cannot be read."""
        copy = self.keytab(f"MEMORY:kinkvpn-{next(MEMORY_KEYTAB_NUMBERS)}")
        for entry in self._raw_entries(keytab):
            self.check(self.lib.krb5_kt_add_entry(self.handle, copy, entry))
        return copy

    def keytab_entries(self, keytab: CData) -> Iterator[tuple[str, int, int]]:
        """Each entry's principal, kvno and enctype. Raises Krb5Error."""
        for entry in self._raw_entries(keytab):
            yield self.unparse(entry.principal), entry.vno, entry.key.enctype

    def keytab_keys(self, keytab: CData) -> Iterator[tuple[str, int, int, CData]]:
        """Each entry's principal, kvno, enctype and key (krb5_key). Raises Krb5Error."""
        for entry in self._raw_entries(keytab):
            key = self.key(ffi.addressof(entry, "key"))
            yield self.unparse(entry.principal), entry.vno, entry.key.enctype, key

    def keytab_key(self, keytab: CData, ticket: CData) -> CData:
        """The key (``krb5_keyblock *``) of ``keytab`` that opens ``ticket``. Raises Krb5Error."""
        entry: CData = ffi.new("krb5_keytab_entry *")
        sealed, free, handle = ticket.enc_part, self.lib.krb5_free_keytab_entry_contents, self.handle
        self.check(self.lib.krb5_kt_get_entry(handle, keytab, ticket.server, sealed.kvno, sealed.enctype, entry))
        # The entry goes with its key: a pointer into a structure does not keep that.
        return ffi.gc(ffi.addressof(entry, "key"), lambda _key: free(handle, entry))

    def _raw_entries(self, keytab: CData) -> Iterator[CData]:
        """Each entry, good until the next one is asked for."""
        cursor = ffi.new("krb5_kt_cursor *")
        self.check(self.lib.krb5_kt_start_seq_get(self.handle, keytab, cursor))
        try:
            entry: CData = ffi.new("krb5_keytab_entry *")
            while not (code := self.lib.krb5_kt_next_entry(self.handle, keytab, entry, cursor)):
                try:
                    yield entry
                finally:
                    self.lib.krb5_free_keytab_entry_contents(self.handle, entry)
        finally:
            self.lib.krb5_kt_end_seq_get(self.handle, keytab, cursor)
        if code != KT_END:
            self.check(code)

    def decrypt(self, key: CData, usage: int, enctype: int, ciphertext: bytes) -> bytes:
        """The plaintext of an EncryptedData under a krb5_key. Raises Krb5Error."""
        buffer = ffi.new("char[]", len(ciphertext))
        sealed = ffi.new("krb5_enc_data *", (0, enctype, 0, borrow(ciphertext)[0]))
        out: CData = ffi.new("krb5_data *", (0, len(ciphertext), buffer))
        self.check(self.lib.krb5_k_decrypt(self.handle, key, usage, NULL, sealed, out))
        return bytes(ffi.buffer(buffer, out.length))

    def default_ccache(self) -> str:
        """The name of the credential cache of whoever runs this, as KRB5CCNAME and krb5.conf have it."""
        return text(self.lib.krb5_cc_default_name(self.handle))

    def ccache(self, name: str) -> CData:
        """A credential cache by its name: a type, a colon and what that type makes of the rest (``FILE:``, a path)."""
        out = ffi.new("krb5_ccache *")
        self.check(self.lib.krb5_cc_resolve(self.handle, name.encode(), out))
        return self.own(out[0], "krb5_cc_close")

    def destroy_ccache(self, name: str) -> None:
        """Removes the cache and what it holds."""
        out = ffi.new("krb5_ccache *")
        self.check(self.lib.krb5_cc_resolve(self.handle, name.encode(), out))
        self.check(self.lib.krb5_cc_destroy(self.handle, out[0]))

    def ccache_keys(self, ccache: CData) -> Iterator[tuple[str, str, int, CData]]:
        """Each credential's client, server, enctype and session key (krb5_key), however old. Raises Krb5Error."""
        for credential in self._raw_credentials(ccache):
            if credential.keyblock.length:  # what a cache notes of itself is a credential too, without any
                key = self.key(ffi.addressof(credential, "keyblock"))
                names = self.unparse(credential.client), self.unparse(credential.server)
                yield *names, credential.keyblock.enctype, key

    def _raw_credentials(self, ccache: CData) -> Iterator[CData]:
        """Each credential, good until the next one is asked for."""
        cursor = ffi.new("krb5_cc_cursor *")
        self.check(self.lib.krb5_cc_start_seq_get(self.handle, ccache, cursor))
        try:
            credential: CData = ffi.new("krb5_creds *")
            while not (code := self.lib.krb5_cc_next_cred(self.handle, ccache, cursor, credential)):
                try:
                    yield credential
                finally:
                    self.lib.krb5_free_cred_contents(self.handle, credential)
        finally:
            self.lib.krb5_cc_end_seq_get(self.handle, ccache, cursor)
        if code != CC_END:
            self.check(code)

    def ccache_principal(self, ccache: CData) -> CData:
        """Whose credentials the cache holds. Raises Krb5Error where it is missing or empty."""
        out = ffi.new("krb5_principal *")
        self.check(self.lib.krb5_cc_get_principal(self.handle, ccache, out))
        return self.own(out[0], "krb5_free_principal")

    def credentials(self, ccache: CData, client: CData, server: CData, tgt: bytes | None = None) -> CData:
        """A service ticket (``krb5_creds *``) out of the cache or from the KDC. Blocks, for 27 s if the KDC is silent.

        It is not stored in the cache: MIT would hand the same one out until it expires, and a renewal has to pass that;
        of user-to-user tickets it never finds the one that it stored, and the cache would grow with each.

        Args:
            ccache: with our ticket-granting ticket.
            client: us.
            server: the peer.
            tgt: the peer's ticket-granting ticket, DER, for a user-to-user ticket (RFC 4120 §2.9.2, ENC-TKT-IN-SKEY).
        """
        wanted: CData = ffi.new("krb5_creds *", {"client": client, "server": server})
        flags, out = GC_NO_STORE, ffi.new("krb5_creds **")
        if tgt is not None:
            second = ffi.from_buffer("char[]", tgt)  # lives as long as ``tgt``
            wanted.second_ticket, flags = (0, len(tgt), second), GC_NO_STORE | GC_USER_USER
        self.check(self.lib.krb5_get_credentials(self.handle, flags, ccache, wanted, out))
        return self.own(out[0], "krb5_free_creds")

    def issued_to(self, credentials: CData) -> str:
        """Whose key the ticket of a ``krb5_creds *`` is sealed with, as the KDC has it; libkrb5 notes there what was
        asked for. The KDC has said the same under the session key, which libkrb5 has compared.
        """
        out = ffi.new("krb5_ticket **")
        self.check(self.lib.krb5_decode_ticket(ffi.addressof(credentials, "ticket"), out))
        ticket = self.own(out[0], "krb5_free_ticket")  # until it has been read
        return self.unparse(ticket.server)

    def granting_ticket(self, ccache: CData) -> CData:
        """The cache's ticket-granting ticket (``krb5_creds *``). Asks nobody; raises Krb5Error without a live one."""
        client = self.ccache_principal(ccache)
        realm = self.unparse(client).rpartition("@")[2]
        server = self.principal(f"krbtgt/{realm}@{realm}")  # lives as long as the name does, not the structure
        wanted = ffi.new("krb5_creds *", {"client": client, "server": server})
        out = ffi.new("krb5_creds **")
        self.check(self.lib.krb5_get_credentials(self.handle, GC_CACHED | GC_NO_STORE, ccache, wanted, out))
        return self.own(out[0], "krb5_free_creds")

    def renew(self, ccache: CData, into: CData) -> None:
        """Has the KDC renew the ticket-granting ticket of one cache, and puts it into another. Blocks."""
        client, renewed = self.ccache_principal(ccache), ffi.new("krb5_creds *")
        self.check(self.lib.krb5_get_renewed_creds(self.handle, renewed, client, ccache, NULL))
        try:
            self.check(self.lib.krb5_cc_initialize(self.handle, into, client))
            self.check(self.lib.krb5_cc_store_cred(self.handle, into, renewed))
        finally:
            self.lib.krb5_free_cred_contents(self.handle, renewed)

    def auth_context(self, *, replay_checked: bool = True) -> CData:
        """A krb5_auth_context for one AP exchange. Without ``replay_checked`` the time alone is looked at."""
        out = ffi.new("krb5_auth_context *")
        self.check(self.lib.krb5_auth_con_init(self.handle, out))
        owned = self.own(out[0], "krb5_auth_con_free")
        if not replay_checked:
            self.check(self.lib.krb5_auth_con_setflags(self.handle, owned, 0))
        return owned

    def make_request(self, auth_context: CData, credentials: CData, *, use_session_key: bool = False) -> bytes:
        """An AP-REQ, mutual authentication required, with neither checksum, subkey nor sequence number.

        ``use_session_key`` says that the ticket is a user-to-user one (RFC 4120 §5.5.1).
        """
        out, exchange = ffi.new("krb5_data *"), ffi.new("krb5_auth_context *", auth_context)
        options = AP_OPTS_MUTUAL_REQUIRED | (AP_OPTS_USE_SESSION_KEY if use_session_key else 0)
        self.check(self.lib.krb5_mk_req_extended(self.handle, exchange, options, NULL, credentials, out))
        return self.take(out)

    def use_key(self, auth_context: CData, keyblock: CData) -> None:
        """Have ``read_request`` decrypt the ticket with this key (a copy is kept), and with no other."""
        self.check(self.lib.krb5_auth_con_setuseruserkey(self.handle, auth_context, keyblock))

    def read_request(self, auth_context: CData, ap_req: bytes, keytab: CData) -> CData:
        """Verifies an AP-REQ with any key of the keytab and returns its ``krb5_ticket *``.

        After :meth:`use_key` with that key, and ``keytab`` is NULL; the use-session-key bit is the caller's to look at.
        """
        exchange, out = ffi.new("krb5_auth_context *", auth_context), ffi.new("krb5_ticket **")
        options = ffi.new("krb5_flags *")
        self.check(self.lib.krb5_rd_req(self.handle, exchange, borrow(ap_req), NULL, keytab, options, out))
        return self.own(out[0], "krb5_free_ticket")

    def authenticator_time(self, auth_context: CData) -> tuple[int, int]:
        """ctime and cusec of the AP-REQ that was verified."""
        out = ffi.new("krb5_authenticator **")
        self.check(self.lib.krb5_auth_con_getauthenticator(self.handle, auth_context, out))
        authenticator = self.own(out[0], "krb5_free_authenticator")
        return authenticator.ctime, authenticator.cusec

    def authorization_data(self, ticket: CData, kind: int) -> list[bytes]:
        """What is of this kind in a ticket that was opened, inside AD-IF-RELEVANT too (RFC 4120 §5.2.6)."""
        out = ffi.new("krb5_authdata ***")
        inside = ticket.enc_part2.authorization_data
        self.check(self.lib.krb5_find_authdata(self.handle, inside, NULL, kind, out))
        if out[0] == NULL:
            return []
        try:
            return [bytes(ffi.buffer(each.contents, each.length)) for each in pointers(out[0])]
        finally:
            self.lib.krb5_free_authdata(self.handle, out[0])

    def pac_buffer(self, pac: bytes, kind: int, ticket: CData, keyblock: CData) -> bytes:
        """One buffer of a PAC, once that is ``ticket``'s and signed with the key ``keyblock``; empty if it has none.

        Raises Krb5Error.
        """
        out, held = ffi.new("krb5_pac *"), ffi.new("krb5_data *")
        self.check(self.lib.krb5_pac_parse(self.handle, ffi.from_buffer(pac), len(pac), out))
        parsed, part = self.own(out[0], "krb5_pac_free"), ticket.enc_part2
        self.check(self.lib.krb5_pac_verify(self.handle, parsed, part.times.authtime, part.client, keyblock, NULL))
        code = self.lib.krb5_pac_get_buffer(self.handle, parsed, kind, held)
        if code == errno.ENOENT:
            return b""
        self.check(code)
        return self.take(held)

    def make_reply(self, auth_context: CData) -> bytes:
        """The AP-REP to the AP-REQ that was verified with ``auth_context``."""
        out = ffi.new("krb5_data *")
        self.check(self.lib.krb5_mk_rep(self.handle, auth_context, out))
        return self.take(out)

    def read_reply(self, auth_context: CData, ap_rep: bytes) -> None:
        """Raises Krb5Error unless ``ap_rep`` answers the authenticator made with ``auth_context``."""
        out = ffi.new("krb5_ap_rep_enc_part **")
        self.check(self.lib.krb5_rd_rep(self.handle, auth_context, borrow(ap_rep), out))
        self.lib.krb5_free_ap_rep_enc_part(self.handle, out[0])

    def session_key(self, auth_context: CData) -> CData:
        """The ticket's session key as a krb5_key, whatever subkeys there are (RFC 4430 §7)."""
        out = ffi.new("krb5_key *")
        self.check(self.lib.krb5_auth_con_getkey_k(self.handle, auth_context, out))
        return self.own(out[0], "krb5_k_free_key")

    def key(self, keyblock: CData) -> CData:
        """A krb5_key, which keeps the keys derived from it, out of a ``krb5_keyblock *``."""
        out = ffi.new("krb5_key *")
        self.check(self.lib.krb5_k_create_key(self.handle, keyblock, out))
        return self.own(out[0], "krb5_k_free_key")

    def key_of(self, enctype: int, octets: bytes) -> CData:
        """A krb5_key out of the enctype's key octets."""
        contents = ffi.from_buffer("krb5_octet[]", octets)
        return self.key(ffi.new("krb5_keyblock *", (0, enctype, len(octets), contents)))

    def make_error(self, code: int, server: CData, client_time: tuple[int, int] | None) -> bytes:
        """A KRB-ERROR, DER, with our time, and the client's (seconds, microseconds) where it is known.

        It has no e-text: what libkrb5 says of files and keys is for our own log.
        """
        seconds, microseconds = self.now()
        error: CData = ffi.new("krb5_error *", {"error": code, "server": server})
        error.stime, error.susec = ffi.cast("krb5_timestamp", seconds), microseconds
        if client_time is not None:
            error.ctime, error.cusec = client_time
        out = ffi.new("krb5_data *")
        self.check(self.lib.krb5_mk_error(self.handle, error, out))
        return self.take(out)

    def read_error(self, krb_error: bytes) -> CData:
        """A KRB-ERROR as ``krb5_error *``. Raises Krb5Error."""
        out = ffi.new("krb5_error **")
        self.check(self.lib.krb5_rd_error(self.handle, borrow(krb_error), out))
        return self.own(out[0], "krb5_free_error")


def pointers(array: CData) -> Iterator[CData]:
    """Those of a NULL-terminated array."""
    for index in itertools.count():
        if array[index] == NULL:
            return
        yield array[index]


def c_strings(array: CData) -> list[bytes]:
    """A NULL-terminated ``char **``."""
    found = [ffi.string(each) for each in pointers(array)]
    return [name for name in found if isinstance(name, bytes)]


def memory_file(libdefaults: Mapping[str, str]) -> int:
    """A krb5.conf in memory with one section, as a descriptor that names it under /proc/self/fd."""
    descriptor = os.memfd_create("krb5.conf")
    lines = [f"    {name} = {value}\n" for name, value in libdefaults.items()]
    os.write(descriptor, "".join(["[libdefaults]\n", *lines]).encode())
    return descriptor


def free_context(library: Library, overlay: int | None, handle: CData) -> None:
    """The profile library looks at its files again now and then, so they close last."""
    library.krb5_free_context(handle)
    if overlay is not None:
        os.close(overlay)
