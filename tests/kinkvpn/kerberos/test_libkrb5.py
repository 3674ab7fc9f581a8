"""The binding: that it describes the library that is there, says so when it is not, and frees what it takes."""

from __future__ import annotations

import ctypes
import gc
import os
from pathlib import Path

import pytest
from support.kdc import ALICE, BOB, Lab
from support.vectors import KEYTABS, load_vector

from kinkvpn.decode import asn1
from kinkvpn.kerberos.libkrb5 import (
    ERROR_TABLE_BASE,
    KT_END,
    ConfigUnusable,
    Context,
    Krb5Error,
    borrow,
    posix_seconds,
    use_config,
)
from kinkvpn.kerberos.library import ffi
from kinkvpn.kerberos.session import SessionKey
from kinkvpn.proto.ports import ApRequestRefused
from kinkvpn.wire import kink

REPOSITORY = Path(__file__).parents[3]


def test_a_given_krb5_conf_is_the_process_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KRB5_CONFIG", "/dev/null")
    config = tmp_path / "krb5.conf"
    config.write_text("[libdefaults]\n default_realm = GIVEN.TEST\n")
    use_config(config)
    assert Context().canonical("kink/a") == "kink/a@GIVEN.TEST"
    assert os.environ["KRB5_CONFIG"] == str(config)


@pytest.mark.parametrize(
    ("content", "said"), [(None, "cannot be read: No such file"), ("[libdefaults\n", "krb5.conf: .*rofile")]
)
def test_a_krb5_conf_that_is_none_is_refused(
    content: str | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KRB5_CONFIG", "/dev/null")
    config = tmp_path / "krb5.conf"
    if content is not None:
        config.write_text(content)
    with pytest.raises(ConfigUnusable, match=said):
        use_config(config)


def test_a_host_without_krb5_conf_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KRB5_CONFIG", "/nowhere/krb5.conf")
    assert Context({"default_realm": "X.TEST"}).canonical("a") == "a@X.TEST"


def test_our_defaults_go_before_the_file_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "krb5.conf"
    config.write_text("[libdefaults]\n default_realm = FILE.TEST\n[realms]\n R = {\n kdc = one\n kdc = two\n }\n")
    monkeypatch.setenv("KRB5_CONFIG", str(config))
    context = Context({"default_realm": "OURS.TEST"})
    assert context.canonical("a") == "a@OURS.TEST"
    assert context.profile_values("realms", "R", "kdc") == ["one", "two"]
    assert context.profile_values("realms", "S", "kdc") == []


def test_a_shifted_clock_moves_its_own_context_only() -> None:
    context = Context()
    shifted = context.shifted(-310.25)
    assert shifted.clock_offset() == pytest.approx(-310.25, abs=0.001)
    assert context.clock_offset() == 0.0
    difference = seconds(shifted) - seconds(context)
    assert difference == pytest.approx(-310.25, abs=0.1)


def seconds(context: Context) -> float:
    whole, microseconds = context.now()
    return whole + microseconds / 1_000_000


def test_two_instants_are_never_the_same() -> None:
    context = Context()
    instants = [context.now() for _ in range(1000)]
    assert len(set(instants)) == 1000


def test_times_last_beyond_2038() -> None:
    assert posix_seconds(-2) == 2**32 - 2


def test_error_codes_of_the_protocol_are_told_from_the_library_s_own() -> None:
    assert Krb5Error(ERROR_TABLE_BASE + 37, "").protocol_code == 37
    assert Krb5Error(KT_END, "").protocol_code is None
    assert Krb5Error(1859794438, "").protocol_code is None
    assert Krb5Error(2, "").protocol_code is None


def test_a_hostile_name_stays_one_line_of_text() -> None:
    realm, component = b"R.TEST", b"\xff\n/"
    components = ffi.new("krb5_data[]", [borrow(component)[0]])
    principal = ffi.new("krb5_principal_data *", {"realm": borrow(realm)[0], "data": components, "length": 1})
    assert Context().unparse(principal) == "\\xff\\n\\/@R.TEST"


MALLOC_FIELDS = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"


class MallocInfo(ctypes.Structure):
    """``struct mallinfo2`` of mallinfo(3), glibc 2.33."""

    _fields_ = tuple((name, ctypes.c_size_t) for name in MALLOC_FIELDS.split())


def allocated() -> int:
    """Octets that malloc has given out and not got back: to the octet, where resident memory is a guess."""
    gc.collect()
    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = MallocInfo
    found = mallinfo2()
    return int(found.uordblks + found.hblkhd)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_contexts_leave_neither_memory_nor_descriptors() -> None:
    def make(count: int) -> None:
        for _ in range(count):
            Context({"clockskew": "1"}).principal("kink/a@R")

    make(200)
    before, opened = allocated(), descriptors()
    make(2000)
    assert descriptors() == opened
    # The smallest thing in it, a principal's name, is 32 octets: 2,000 are 64 kB.
    assert allocated() - before < 40_000


@pytest.mark.kdc
@pytest.mark.parametrize("user_to_user", [False, True])
def test_hundreds_of_exchanges_leave_no_memory(lab: Lab, user_to_user: bool) -> None:
    lab.keytab(BOB)
    acceptor, tgt = lab.acceptor(BOB), lab.ticket(BOB, "krbtgt/KINKVPN.TEST@KINKVPN.TEST").as_tgt()
    acceptor.hold_tgt(tgt)
    acceptor.hold_tgt(lab.ticket(BOB, "krbtgt/KINKVPN.TEST@KINKVPN.TEST").as_tgt())  # which is tried first, in vain
    ticket = lab.ticket(ALICE, BOB, tgt=tgt.ticket if user_to_user else None)
    context = Context()
    older = SessionKey(context, context.key_of(18, bytes(32)))  # the literal PRF takes the key out of libkrb5

    def exchange(count: int) -> bytes:
        reply = b""
        for _ in range(count):
            request = ticket.make_request()
            accepted = acceptor.accept(request.ap_req)
            reply = accepted.make_reply()
            request.verify_reply(reply)
            sealed = accepted.key.encrypt(bytes(400))
            ticket.key.decrypt(sealed)
            ticket.key.verify(sealed, accepted.key.checksum(sealed))
            ticket.key.prf(sealed)
            older.prf_rfc3962_literal(sealed)
        return reply

    def refusals(count: int) -> None:
        for _ in range(count):
            with pytest.raises(ApRequestRefused) as caught:
                acceptor.accept(ticket.make_request(400.0).ap_req)
            acceptor.read_error(caught.value.krb_error)

    exchange(200)
    refusals(100)
    before = allocated()
    exchange(700)
    refusals(700)
    # malloc's smallest piece is 32 octets, so that the smallest leak of all would be 22 kB.
    assert allocated() - before < 10_000


@pytest.mark.kdc
@pytest.mark.parametrize("user_to_user", [False, True])
def test_a_service_ticket_is_not_stored(lab: Lab, user_to_user: bool) -> None:
    """MIT would hand a stored one out again until it expires, and of user-to-user tickets it would store every one."""
    lab.keytab(BOB)
    tgt = lab.ticket(BOB, "krbtgt/KINKVPN.TEST@KINKVPN.TEST").as_tgt().ticket if user_to_user else None
    acquired = lab.credentials(ALICE).acquire()
    context = Context()
    ccache = context.ccache(acquired.ccache)
    client, server = context.ccache_principal(ccache), context.principal(BOB)
    first, second = (context.credentials(ccache, client, server, tgt) for _ in range(2))
    assert key_octets(first) != key_octets(second)


def key_octets(credentials: object) -> bytes:
    keyblock = credentials.keyblock
    return bytes(ffi.buffer(keyblock.contents, keyblock.length))


@pytest.mark.kdc
def test_a_keytab_is_listed_without_its_keys(lab: Lab) -> None:
    context = Context()
    entries = list(context.keytab_entries(context.keytab(f"FILE:{lab.keytab(BOB)}")))
    assert entries == [(BOB, 1, enctype) for enctype in (20, 19, 18, 17)]


def test_a_keytab_s_keys_open_what_was_sealed_with_them() -> None:
    """The ticket of a captured CREATE, whose session key an independent decoder found."""
    context = Context()
    create = load_vector("create-2way-tunnel-aes256")[0]
    (payload,) = [one for one in kink.parse_message(create.datagram).payloads if isinstance(one, kink.ApReq)]
    sealed = asn1.read_ap_req(payload.ap_req).ticket.sealed
    keys = list(context.keytab_keys(context.keytab(f"FILE:{KEYTABS['b']}")))
    assert [key[:3] for key in keys] == list(context.keytab_entries(context.keytab(f"FILE:{KEYTABS['b']}")))
    (key,) = [key for _, kvno, enctype, key in keys if (kvno, enctype) == (sealed.kvno, sealed.enctype)]
    assert create.session_key is not None
    assert create.session_key.octets in context.decrypt(key, 2, sealed.enctype, sealed.ciphertext)
    with pytest.raises(Krb5Error):
        context.decrypt(key, 3, sealed.enctype, sealed.ciphertext)
    with pytest.raises(Krb5Error):
        context.decrypt(key, 2, sealed.enctype, b"")


def test_protocol_codes_in_libkrb5_s_words() -> None:
    assert Context().protocol_message(37) == "Clock skew too great"
    assert Context().protocol_message(128) == Context().protocol_message(-1) == "no such code"
