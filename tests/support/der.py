"""AP-REQs made to order: DER by hand, sealed by libkrb5 with the service key of host b's keytab."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from support.vectors import KEYTABS

from kinkvpn.kerberos.libkrb5 import Context, borrow
from kinkvpn.kerberos.library import NULL, ffi

if TYPE_CHECKING:
    from kinkvpn.kerberos.library import CData

SERVER = "b.kink.test"
REALM = "KINK.TEST"


def element(tag: int, *inside: bytes) -> bytes:
    """One DER element."""
    body = b"".join(inside)
    size = len(body)
    length = bytes([size]) if size < 128 else b"\x82" + size.to_bytes(2, "big")
    return bytes([tag]) + length + body


def sequence(fields: dict[int, bytes]) -> bytes:
    """A SEQUENCE of context-tagged fields."""
    return element(0x30, *(element(0xA0 + number, inside) for number, inside in fields.items()))


def integer(value: int) -> bytes:
    return element(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def bits(value: int) -> bytes:
    return element(0x03, b"\0", value.to_bytes(4, "big"))


def name(*parts: str) -> bytes:
    return sequence({0: integer(1), 1: element(0x30, *(element(0x1B, part.encode()) for part in parts))})


def realm() -> bytes:
    return element(0x1B, REALM.encode())


def time(seconds: float) -> bytes:
    return element(0x18, datetime.fromtimestamp(seconds, UTC).strftime("%Y%m%d%H%M%SZ").encode())


def sealed(context: Context, key: CData, usage: int, enctype: int, plaintext: bytes, kvno: int | None = None) -> bytes:
    """EncryptedData (RFC 4120 §5.2.9)."""
    length = ffi.new("size_t *")
    context.check(context.lib.krb5_c_encrypt_length(context.handle, enctype, len(plaintext), length))
    buffer = ffi.new("char[]", length[0])
    out: CData = ffi.new("krb5_enc_data *", (0, enctype, 0, (0, length[0], buffer)))
    context.check(context.lib.krb5_k_encrypt(context.handle, key, usage, NULL, borrow(plaintext), out))
    fields = {0: integer(enctype)} | ({} if kvno is None else {1: integer(kvno)})
    return sequence(fields | {2: element(0x04, bytes(ffi.buffer(buffer, out.ciphertext.length)))})


@dataclass(frozen=True, slots=True)
class Recipe:
    """What to make; defaults are good."""

    client: str = "a.kink.test"
    authenticator_client: str = "a.kink.test"
    session_enctype: int = 18
    session_key: bytes = bytes(range(32))
    options: int = 0x20000000
    at: float = 1_795_426_748.0
    end: float = 1_795_430_000.0
    ticket_part: bytes | None = None


def make_ap_req(recipe: Recipe) -> bytes:
    """An AP-REQ to host b (RFC 4120 §5.3, §5.5.1)."""
    context = Context()
    _, kvno, enctype, key = next(context.keytab_keys(context.keytab(f"FILE:{KEYTABS['b']}")))
    part = element(
        0x63,
        sequence(
            {
                0: bits(0),
                1: sequence({0: integer(recipe.session_enctype), 1: element(0x04, recipe.session_key)}),
                2: realm(),
                3: name("kink", recipe.client),
                4: sequence({0: integer(0), 1: element(0x04)}),
                5: time(recipe.at),
                7: time(recipe.end),
            }
        ),
    )
    ticket = sequence(
        {
            0: integer(5),
            1: realm(),
            2: name("kink", SERVER),
            3: sealed(context, key, 2, enctype, recipe.ticket_part or part, kvno),
        }
    )
    authenticator = element(
        0x62,
        sequence(
            {
                0: integer(5),
                1: realm(),
                2: name("kink", recipe.authenticator_client),
                4: integer(123456),
                5: time(recipe.at),
            }
        ),
    )
    session = context.key_of(recipe.session_enctype, recipe.session_key)
    return element(
        0x6E,
        sequence(
            {
                0: integer(5),
                1: integer(14),
                2: bits(recipe.options),
                3: element(0x61, ticket),
                4: sealed(context, session, 11, recipe.session_enctype, authenticator),
            }
        ),
    )
