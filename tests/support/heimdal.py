"""A Heimdal KDC, as a child process.

Debian's heimdal-kdc and krb5-kdc do not go on one machine together, so the Makefile unpacks the former below .venv;
its programs find their libraries there and nobody else does.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Self

from support.listening import wait_listening

from kinkvpn.demo.realm import (
    DEFAULT_ENCTYPES,
    ENCTYPE_NAMES,
    START_SECONDS,
    RealmFailed,
    check_port,
    client_conf,
    client_environment,
    end,
    endpoints,
    last_line,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

UNPACKED = Path(sys.prefix) / "heimdal"

# Without default_keys Heimdal 7 makes keys for des3 and rc4, and none for AES-SHA2.
KDC_CONF = """\
[libdefaults]
    default_realm = {realm}
    dns_lookup_kdc = false
[kdc]
    ports = {port}
    addresses = {addresses}
    database = {{
        dbname = sqlite:{directory}/database
        realm = {realm}
        mkey_file = {directory}/master
        log_file = {directory}/iprop
        acl_file = {directory}/acl
    }}
[kadmin]
    default_keys = {salted}
[logging]
    kdc = 0-/FILE:{log}
    default = 0-/FILE:{log}
"""


class HeimdalRealm:
    """One Heimdal realm; a :class:`kinkvpn.demo.realm.KerberosRealm`.

    Args:
        directory: where everything goes; the caller removes it.
        port: of the KDC.
        addresses: where it listens.
        prefix: put before the KDC's command line.
        enctypes: of the keys that principals get, the most wanted first.
    """

    name = "HEIMDAL.KINKVPN.TEST"

    def __init__(
        self,
        directory: Path,
        port: int,
        *,
        addresses: Sequence[str] = ("127.0.0.1",),
        prefix: Sequence[str] = (),
        enctypes: Sequence[int] = DEFAULT_ENCTYPES,
    ) -> None:
        self.directory = directory
        self.krb5_conf = directory / "krb5.conf"
        self._conf, self._log = directory / "kdc.conf", directory / "kdc.log"
        self._port, self._addresses = port, tuple(addresses)
        self._prefix, self._enctypes = tuple(prefix), tuple(enctypes)
        self._kdc: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What a child process needs to live in this realm and in no other."""
        return client_environment(self.krb5_conf)

    def start(self) -> None:
        """Makes the database unless it is there, starts the KDC, and returns when it listens. Raises RealmFailed."""
        if not self.krb5_conf.exists():
            self._create()
        check_port(self._port, self._addresses, self._prefix)
        command = [*self._prefix, program("lib/heimdal-servers/kdc"), f"--config-file={self._conf}"]
        self._kdc = subprocess.Popen(
            command,
            env=self._own_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_listening(self._kdc, self._port, "Heimdal's kdc", self._log)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ends the KDC by its pid; it ends its workers."""
        kdc, self._kdc = self._kdc, None
        if kdc is not None:
            end(kdc)

    def add_service(self, principal: str) -> None:
        """A principal with random keys."""
        self._kadmin("add", "--random-key", "--use-defaults", principal)

    def write_keytab(self, principal: str, path: Path) -> None:
        """Adds the principal's present keys to the keytab."""
        self._kadmin("ext_keytab", "-k", str(path), principal)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _create(self) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._conf.write_text(
            KDC_CONF.format(
                realm=self.name,
                port=self._port,
                addresses=" ".join(self._addresses),
                directory=self.directory,
                log=self._log,
                salted=" ".join(f"{ENCTYPE_NAMES[enctype]}:pw-salt" for enctype in self._enctypes),
            )
        )
        self._kadmin("init", "--realm-max-ticket-life=1d", "--realm-max-renewable-life=1w", self.name)
        kdcs = {self.name: endpoints(self._addresses, self._port)}
        self.krb5_conf.write_text(client_conf(self.name, kdcs, self._enctypes))

    def _own_environment(self) -> dict[str, str]:
        return client_environment(self._conf) | {"LD_LIBRARY_PATH": ":".join(map(str, UNPACKED.glob("usr/lib/*-gnu*")))}

    def _kadmin(self, *arguments: str) -> None:
        done = subprocess.run(
            [program("bin/kadmin.heimdal"), "-l", "-c", str(self._conf), *arguments],
            env=self._own_environment(),
            text=True,
            capture_output=True,
            timeout=START_SECONDS,
            check=False,
        )
        if done.returncode or done.stderr.strip():
            raise RealmFailed(f"kadmin.heimdal {arguments[0]}: {last_line(done.stderr) or done.returncode}")


def program(name: str) -> str:
    """One of Heimdal's. Raises RealmFailed."""
    path = UNPACKED / "usr" / name
    if not path.exists():
        raise RealmFailed(f"{path} is not there: `make .venv/test.installed` unpacks Heimdal")
    return str(path)
