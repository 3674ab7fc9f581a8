"""FreeIPA's own programs of Debian on a host, and a stand-in for its server (freeipa_server.py), as a child process.

freeipa-client brings eighty packages and would take the place of others, so the Makefile unpacks them below .venv; a
host that is enrolled has them over its /usr.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from kinkvpn.demo.realm import RealmFailed, end

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kinkvpn.demo.realm import Realm

UNPACKED = Path(sys.prefix) / "freeipa"
SERVER = Path(__file__).with_name("freeipa_server.py")
SECONDS = 60.0

# What ipa-client-install writes, as much as these programs read.
CONFIGURATION = """\
[global]
server = {host}
realm = {realm}
domain = example.com
basedn = dc=example,dc=com
jsonrpc_uri = https://{host}/ipa/json
xmlrpc_uri = https://{host}/ipa/xml
"""
CERTIFICATE = (
    *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"),
    *("-keyout", "key.pem", "-out", "certificate.pem"),
)


class FreeIpa:
    """The server of a realm.

    Args:
        directory: for its files, which is made.
        realm: whose KDC runs.
        host: its name.
        address: of that host.
        prefix: put before its command line, runs it there.
        administrator: password of ``admin``, who is made.
    """

    def __init__(
        self, directory: Path, realm: Realm, host: str, address: str, prefix: Sequence[str], administrator: str
    ) -> None:
        self.directory, self._realm, self._host, self._administrator = directory, realm, host, administrator
        self._command = [*prefix, sys.executable, "-P", str(SERVER), address, str(directory)]
        self._process: subprocess.Popen[str] | None = None

    @property
    def configuration(self) -> str:
        """Of its clients, /etc/ipa/default.conf."""
        return CONFIGURATION.format(host=self._host, realm=self._realm.name)

    @property
    def certificate(self) -> str:
        """/etc/ipa/ca.crt."""
        return (self.directory / "certificate.pem").read_text()

    def start(self) -> None:
        """Returns when it answers. Raises RealmFailed."""
        if not UNPACKED.is_dir():
            raise RealmFailed(f"no FreeIPA client in {UNPACKED}: make {sys.prefix}/test.installed")
        self.directory.mkdir()
        subject = ("-subj", f"/CN={self._host}", "-addext", f"subjectAltName=DNS:{self._host}")
        subprocess.run(
            [*CERTIFICATE, *subject], cwd=self.directory, check=True, stderr=subprocess.DEVNULL, timeout=SECONDS
        )
        self._realm.kadmin("addprinc", "-pw", self._administrator, "admin")
        for service in ("HTTP", "ldap"):
            self._realm.add_service(f"{service}/{self._host}")
            self._realm.write_keytab(f"{service}/{self._host}", self.directory / "keytab")
        keytab = {"KRB5_KTNAME": str(self.directory / "keytab")}
        self._process = subprocess.Popen(
            self._command, env=self._realm.environment | keytab, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            self.stop()
            raise RealmFailed("the stand-in for FreeIPA's server ended")

    def stop(self) -> None:
        """Ends it by its pid."""
        process, self._process = self._process, None
        if process is not None:
            end(process)
