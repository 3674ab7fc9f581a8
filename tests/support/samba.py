"""A Samba AD domain controller, as a child process: tickets of etypes 17 and 18 that carry a PAC.

Its KDC runs, and where a test asks for it what accounts are administered by: LDAP, and the change of passwords
(RFC 3244). No SMB, no DNS. A PAC grows with the groups that an account is in, and with it every AP-REQ.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Self

from support.listening import wait_listening

from kinkvpn.demo.realm import (
    RealmFailed,
    check_port,
    client_conf,
    client_environment,
    end,
    endpoints,
    last_line,
    tool,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

PYTHON = "/usr/bin/python3"  # Debian's: python3-samba is compiled for it and for no other
SCRIPT = Path(__file__).with_name("samba_domain.py")
KPASSWD_PORT = 464
PROVISION_SECONDS = 120.0  # two on an idle machine
NO_AUTH_DATA_REQUIRED = 0x2000000  # userAccountControl (MS-ADTS §2.2.16)
PRIVATE = ("private", "state", "cache", "lock", "pid", "ncalrpc", "binddns")

SMB_CONF = """\
[global]
    netbios name = DC
    realm = {realm}
    workgroup = {workgroup}
    server role = active directory domain controller
    server services = {services}
    tls enabled = no
    {directories}
    log file = {log}
    log level = 1
    interfaces = {addresses}
    bind interfaces only = yes
    krb5 port = {port}
    kpasswd port = {kpasswd}
    kdc supported enctypes = aes128-cts-hmac-sha1-96 aes256-cts-hmac-sha1-96
[sysvol]
    path = {directory}/sysvol
[netlogon]
    path = {directory}/netlogon
"""


class SambaRealm:
    """A domain of its own; a :class:`kinkvpn.demo.realm.KerberosRealm`.

    Args:
        directory: where everything goes, 32 MB of it; the caller removes it. Sockets are in it: keep its name short.
        port: of the KDC.
        addresses: where it listens.
        prefix: put before the KDC's command line.
        groups: how many groups each service is in: 70 make an AP-REQ that no Ethernet frame holds.
        administrator: that account's password; with one, LDAP is served on port 389, passwords are changed on 464.
    """

    name = "AD.KINKVPN.TEST"

    def __init__(
        self,
        directory: Path,
        port: int,
        *,
        addresses: Sequence[str] = ("127.0.0.1",),
        prefix: Sequence[str] = (),
        groups: int = 0,
        administrator: str = "",
    ) -> None:
        self.directory = directory
        self.krb5_conf = directory / "krb5.conf"
        self._conf, self._log = directory / "smb.conf", directory / "log"
        self._port, self._addresses, self._prefix, self._groups = port, tuple(addresses), tuple(prefix), groups
        self._administrator = administrator
        self._kdc: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What a child process needs to live in this realm and in no other."""
        return client_environment(self.krb5_conf)

    def start(self) -> None:
        """Provisions the domain unless it is there, starts samba, and returns when it listens. Raises RealmFailed."""
        samba = tool("samba")
        if not (self.directory / "private/sam.ldb").exists():
            self._provision()
        check_port(self._port, self._addresses, self._prefix)
        command = [*self._prefix, samba, "-F", "--no-process-group", "-M", "single", "-s", str(self._conf)]
        self._kdc = subprocess.Popen(
            command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_listening(self._kdc, self._port, "samba", self._log)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ends the KDC by its pid."""
        kdc, self._kdc = self._kdc, None
        if kdc is not None:
            end(kdc)

    def add_service(self, principal: str, *, pac: bool = True) -> None:
        """A computer account with this SPN, tickets for which carry a PAC or not."""
        flags = 0 if pac else NO_AUTH_DATA_REQUIRED
        self._script("computer", principal.partition("@")[0], self.name, str(self._groups), str(flags))

    def add_person(self, name: str, password: str, *groups: str) -> None:
        """A user account, member of ``groups``, which are made."""
        self._script("person", name, password, *groups)

    def sid(self, name: str) -> str:
        """Of a group or an account, in text form."""
        return self._script("sid", name).strip()

    def write_keytab(self, principal: str, path: Path) -> None:
        """Its AES keys."""
        self._script("keytab", principal.partition("@")[0], str(path))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _provision(self) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in (*PRIVATE, "sysvol", "netlogon"):
            (self.directory / name).mkdir(mode=0o700)
        options = {"private": "private dir", "state": "state directory", "cache": "cache directory"}
        options |= {
            "lock": "lock directory",
            "pid": "pid directory",
            "ncalrpc": "ncalrpc dir",
            "binddns": "binddns dir",
        }
        self._conf.write_text(
            SMB_CONF.format(
                realm=self.name,
                workgroup=self.name.partition(".")[0],
                directories="\n    ".join(f"{options[name]} = {self.directory / name}" for name in PRIVATE),
                directory=self.directory,
                log=self._log,
                addresses=" ".join(self._addresses),
                port=self._port,
                services="kdc, ldap" if self._administrator else "kdc",
                kpasswd=KPASSWD_PORT if self._administrator else 0,
            )
        )
        self.krb5_conf.write_text(client_conf(self.name, {self.name: endpoints(self._addresses, self._port)}, (18, 17)))
        self._script("provision", self.name, self._administrator)

    def _script(self, *arguments: str) -> str:
        done = subprocess.run(
            [PYTHON, "-I", str(SCRIPT), str(self._conf), *arguments],
            env=self.environment,
            text=True,
            capture_output=True,
            timeout=PROVISION_SECONDS,
            check=False,
        )
        if done.returncode:
            hint = ": apt-get install samba samba-dsdb-modules samba-ad-provision" * ("No module" in done.stderr)
            raise RealmFailed(f"samba {arguments[0]}: {last_line(done.stderr)}{hint}")
        return done.stdout
