"""The declarations against the headers of the machine."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

from support.compiler import compiler

from kinkvpn.kerberos.header import CDEF, FUNCTIONS
from kinkvpn.kerberos.libkrb5 import ERROR_TABLE_BASE, GC_CACHED, GC_NO_STORE, GC_USER_USER, KT_END
from kinkvpn.kerberos.library import ffi
from kinkvpn.kerberos.session import KRB5_BAD_ENCTYPE

if TYPE_CHECKING:
    from pathlib import Path

STRUCTURES = {
    name: members.split()
    for name, members in {
        "krb5_data": "magic length data",
        "krb5_keyblock": "magic enctype length contents",
        "krb5_checksum": "magic checksum_type length contents",
        "krb5_enc_data": "magic enctype kvno ciphertext",
        "krb5_principal_data": "magic realm data length type",
        "krb5_ticket_times": "authtime starttime endtime renew_till",
        "krb5_creds": "magic client server keyblock times is_skey ticket_flags addresses ticket second_ticket authdata",
        "krb5_authdata": "magic ad_type length contents",
        "krb5_transited": "magic tr_type tr_contents",
        "krb5_enc_tkt_part": "magic flags session client transited times caddrs authorization_data",
        "krb5_ticket": "magic server enc_part enc_part2",
        "krb5_ap_rep_enc_part": "magic ctime cusec subkey seq_number",
        "krb5_authenticator": "magic client checksum cusec ctime subkey seq_number authorization_data",
        "krb5_error": "magic ctime cusec susec stime error client server text e_data",
        "krb5_keytab_entry": "magic principal timestamp vno key",
    }.items()
}


def compiled_output(source: str, directory: Path) -> list[str]:
    (directory / "probe.c").write_text(source)
    subprocess.run([compiler(), "-Werror", "-o", directory / "probe", directory / "probe.c"], check=True)
    return subprocess.run([directory / "probe"], check=True, capture_output=True, text=True).stdout.split()


def test_every_structure_is_the_header_s(tmp_path: Path) -> None:
    terms = [f"sizeof({name})" for name in STRUCTURES]
    terms += [f"offsetof({name}, {member})" for name, members in STRUCTURES.items() for member in members]
    prints = "".join(f'printf("%zu\\n", {term});' for term in terms)
    source = f"#include <krb5.h>\n#include <stddef.h>\n#include <stdio.h>\nint main(void) {{ {prints} }}\n"
    ours = [ffi.sizeof(name) for name in STRUCTURES]
    ours += [ffi.offsetof(name, member) for name, members in STRUCTURES.items() for member in members]
    theirs = [int(word) for word in compiled_output(source, tmp_path)]
    assert dict(zip(terms, ours, strict=True)) == dict(zip(terms, theirs, strict=True))


def test_every_function_has_the_header_s_prototype(tmp_path: Path) -> None:
    """A second declaration of a function has to be compatible with the first, or the compiler refuses it."""
    functions = re.findall(r"(?:^|; )((?:krb5_\w+|void|long|const char) \*?(?:krb5|profile)_\w+\([^;]*\))", CDEF, re.M)
    assert len(functions) == len(FUNCTIONS)
    declared = "".join(f"{as_in_the_header(function)};\n" for function in functions)
    source = f"#include <krb5.h>\n#include <profile.h>\n{declared}int main(void) {{ return 0; }}\n"
    assert compiled_output(source, tmp_path) == []


def as_in_the_header(function: str) -> str:
    """With the header's const where it has one more than ours, which is no difference to the machine."""
    if "krb5_unparse_name(" in function or "krb5_rd_req(" in function:
        return function.replace("krb5_principal,", "krb5_const_principal,")
    return function


def test_constants_are_the_header_s(tmp_path: Path) -> None:
    names = (
        "ERROR_TABLE_BASE_krb5",
        "KRB5_KT_END",
        "KRB5_GC_NO_STORE",
        "KRB5_GC_USER_USER",
        "KRB5_GC_CACHED",
        "KRB5_BAD_ENCTYPE",
    )
    prints = "".join(f'printf("%ld\\n", (long){name});' for name in names)
    source = f"#include <krb5.h>\n#include <stdio.h>\nint main(void) {{ {prints} }}\n"
    ours = [ERROR_TABLE_BASE, KT_END, GC_NO_STORE, GC_USER_USER, GC_CACHED, KRB5_BAD_ENCTYPE]
    assert [int(word) for word in compiled_output(source, tmp_path)] == ours
