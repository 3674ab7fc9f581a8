"""What the compiled engine shows to Python."""

from typing import Final

from _typeshed import ReadableBuffer, WriteableBuffer

from esp.suite import Suite

OPENSSL: Final[int]
IPSEC_MB: Final[int]
LIBRARIES: Final[tuple[int, ...]]

def library_name(library: int) -> str | None: ...
def offered(suite: Suite, library: int) -> bool: ...
def preferred(suite: Suite) -> int: ...

class Cipher:
    def __init__(
        self, suite: Suite, keymat: ReadableBuffer, *, esn: bool, sealing: bool, library: int, seed: ReadableBuffer
    ) -> None: ...
    def seal(self, packet: WriteableBuffer, text: int, sequence: int) -> None: ...
    def open(self, packet: WriteableBuffer, text: int, sequence: int) -> bool: ...
