"""The library that is there is described as it is, and one that is not, or is another, is refused in a line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.compiler import compiler

from kinkvpn.kerberos.library import LibraryUnusable, load

REPOSITORY = Path(__file__).parents[3]


def test_a_missing_library_is_one_clear_line() -> None:
    with pytest.raises(LibraryUnusable, match=r"^libkrb5-not-there\.so\.9 .*apt-get install libkrb5-3") as caught:
        load("libkrb5-not-there.so.9")
    assert "\n" not in str(caught.value)


def test_another_implementation_s_library_is_refused(tmp_path: Path) -> None:
    """Heimdal has krb5_init_context and krb5_mk_req_extended too, over structures of another shape."""
    source, library = tmp_path / "heimdal.c", tmp_path / "libkrb5.so"
    source.write_text("int krb5_init_context(void **c) { return 1; }\nint krb5_mk_req_extended(void) { return 1; }\n")
    subprocess.run([compiler(), "-shared", "-o", library, source], check=True)
    with pytest.raises(LibraryUnusable, match="is not MIT Kerberos"):
        load(str(library))


DESTRUCTOR_IN_THE_PARSER = """
import gc, sys
from kinkvpn.kerberos.libkrb5 import Context
from kinkvpn.kerberos.library import ffi

class Ring:
    pass

def collect(frame, event, argument):
    if "pycparser" in frame.f_code.co_filename:
        sys.setprofile(None)
        print("collected", gc.collect() > 0)

gc.disable()
ring = Ring()
ring.itself, ring.context = ring, Context()
del ring
sys.setprofile(collect)
ffi.typeof("struct never_named_before { int a; } *")
print("lives")
"""


def test_a_destructor_may_run_while_cffi_parses_a_type() -> None:
    """cffi parses under a lock, and would look up a destructor's function under the same one."""
    command = [sys.executable, "-c", DESTRUCTOR_IN_THE_PARSER]
    done = subprocess.run(command, timeout=60, capture_output=True, text=True, cwd=REPOSITORY)
    assert (done.stdout, done.returncode) == ("collected True\nlives\n", 0), done.stderr
