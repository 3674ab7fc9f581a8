"""The keys of SAs as Wireshark's table of ESP SAs has them, and the file that they are written to on request alone."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Self

from esp.sa import SecurityProtocol
from kinkvpn.errors import KinkvpnError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

    from esp.sa import SaParameters
    from esp.suite import Suite

ANYWHERE = "*"  # Wireshark's, for any address


class KeyLogRefused(KinkvpnError):
    """The file is not one that keys may be written to; the message says why."""


def esp_sa_lines(sa: SaParameters, way: str, source: str = ANYWHERE, destination: str = ANYWHERE) -> Iterator[str]:
    """A comment with the KEYMAT, and a line of the file ``esp_sa`` in a profile of Wireshark's, if it has the suite.

    Args:
        sa: whose keys.
        way: what the comment calls its direction.
        source, destination: addresses in the outer header.
    """
    suite = sa.suite
    yield f"# {sa.policy} {way} {suite.name} spi {sa.spi:#010x} keymat {sa.keymat.hex()}"
    if sa.protocol is SecurityProtocol.AH:
        yield "# AH: there is nothing to decrypt"
        return
    names = suite.cipher_names.wireshark, _integrity_name(suite)
    if names[0] is None:
        yield f"# Wireshark has no {suite.name}"
        return
    key, salt, integrity_key = suite.split(sa.keymat)
    version = "IPv6" if ":" in sa.remote.address else "IPv4"
    fields = (
        version,
        source,
        destination,
        f"{sa.spi:#010x}",
        names[0],
        _hex(key + salt),
        names[1],
        _hex(integrity_key),
    )
    yield ",".join(f'"{field}"' for field in fields)


def _hex(key: bytes) -> str:
    return f"0x{key.hex()}" if key else ""


def _integrity_name(suite: Suite) -> str:
    """What makes Wireshark see the payload at least, where it cannot check the ICV."""
    if suite.integrity_names is None:
        return "NULL"
    return suite.integrity_names.wireshark or f"ANY {suite.icv_octets * 8} bit authentication [no checking]"


class KeyLog:
    """A file that whoever has read reads the traffic too: ours alone, appended to.

    Raises:
        KeyLogRefused: it cannot be made, or what is there is not a file of ours that nobody else may open.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            try:
                self._fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
            except FileExistsError:
                self._fd = os.open(path, flags)
        except OSError as error:
            word = "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror
            raise KeyLogRefused(f"key log {path}: {word}") from error
        complaint = _complaint(os.fstat(self._fd))
        if complaint:
            os.close(self._fd)
            raise KeyLogRefused(f"key log {path}: {complaint}")

    def write(self, sa: SaParameters, way: str) -> None:
        """Add an SA that has been installed.

        Raises:
            OSError: the file takes no more.
        """
        octets = "".join(f"{line}\n" for line in esp_sa_lines(sa, way)).encode()
        os.write(self._fd, octets)  # in one piece: several may append to it

    def fileno(self) -> int:
        """The descriptor."""
        return self._fd

    def close(self) -> None:
        """Write no more."""
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def check_key_log(path: Path) -> None:
    """See that keys may be written to ``path``, without making it.

    Raises:
        KeyLogRefused: as :class:`KeyLog` would, as far as can be told.
    """
    try:
        complaint = _complaint(path.lstat()) if os.path.lexists(path) else _complaint_of_place(path.parent)
    except OSError as error:
        raise KeyLogRefused(f"key log {path}: {error.strerror}") from error
    if complaint:
        raise KeyLogRefused(f"key log {path}: {complaint}")


def _complaint_of_place(directory: Path) -> str:
    return "" if directory.is_dir() else f"there is no directory {directory}"


def _complaint(status: os.stat_result) -> str:
    """What keeps keys out of a file that was there before; empty if nothing."""
    if stat.S_ISLNK(status.st_mode):
        return "it is a symbolic link"
    if not stat.S_ISREG(status.st_mode):
        return "it is no regular file"
    if status.st_uid != os.geteuid():
        return f"it belongs to user {status.st_uid}"
    if stat.S_IMODE(status.st_mode) & 0o077:
        return f"others may open it (mode {stat.S_IMODE(status.st_mode):04o}): chmod 600"
    return "it has another name too" if status.st_nlink > 1 else ""
