"""A throwaway Kerberos realm: MIT krb5kdc as a child process, in a directory of its own.

Nothing of the host's Kerberos is read or written: the children get their own krb5.conf, kdc.conf, database and log
through KRB5_CONFIG and KRB5_KDC_PROFILE, and every KRB5* variable of the caller is left out.
"""

from __future__ import annotations

import os
import secrets
import selectors
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final, Protocol, Self

from kinkvpn.errors import KinkvpnError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

ENCTYPE_NAMES: Final = {
    17: "aes128-cts-hmac-sha1-96",
    18: "aes256-cts-hmac-sha1-96",
    19: "aes128-cts-hmac-sha256-128",
    20: "aes256-cts-hmac-sha384-192",
    # Never by default (RFC 6649, RFC 8429): for showing that peers refuse them.
    16: "des3-cbc-sha1",
    23: "arcfour-hmac",
}
DEFAULT_ENCTYPES: Final = (20, 19, 18, 17)

# krb5kdc was ready in 0.05 s and kdb5_util in 0.1 s when measured; a machine a hundred times slower is broken.
START_SECONDS: Final = 30.0
# Thousands of principals and their keytabs took 2 s when measured.
SESSION_SECONDS: Final = 60.0
STOP_SECONDS: Final = 2.0

KRB5_CONF: Final = """\
[libdefaults]
    default_realm = {realm}
    dns_lookup_kdc = false
    dns_lookup_realm = false
    dns_canonicalize_hostname = false
    rdns = false
    permitted_enctypes = {permitted}
{weak}
[realms]
{realms}
"""

KDC_CONF: Final = """\
[kdcdefaults]
    kdc_listen = {listen}
    kdc_tcp_listen = {listen}
[realms]
    {realm} = {{
        database_name = {directory}/principal
        key_stash_file = {directory}/stash
        acl_file = {directory}/kadm5.acl
        max_life = {max_life}s
        max_renewable_life = 7d
        master_key_type = aes256-cts-hmac-sha1-96
        supported_enctypes = {salted}
    }}
[logging]
    kdc = FILE:{log}
    admin_server = FILE:{directory}/kadmin.log
    default = FILE:{directory}/kadmin.log
"""

# Debian's krb5-conf comments no weak enctype in: krb5 1.20 reads the first switch, 1.21 and later the other two.
WEAK_SWITCHES: Final = "    allow_weak_crypto = true\n    allow_des3 = true\n    allow_rc4 = true\n"


# krb5kdc sets SO_REUSEPORT: a second one on the same port starts happily and the kernel deals the clients out to both.
# Binding without that option finds the first. A child, because the prefix may put the KDC into another namespace.
PORT_PROBE: Final = """\
import socket, sys
port = int(sys.argv[1])
for address in sys.argv[2:]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        with socket.socket(family, kind) as probe:
            # As krb5kdc does, so that connections in TIME-WAIT do not count as somebody who listens.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(kind == socket.SOCK_STREAM))
            try:
                probe.bind((address, port))
                if kind == socket.SOCK_STREAM:
                    probe.listen()
            except OSError as error:
                sys.exit(f"{address} port {port}: {error.strerror}")
"""


class RealmFailed(KinkvpnError):
    """A tool of the realm is missing, or said no; the message is its own last line."""


class KerberosRealm(Protocol):
    """What the laboratory needs of a realm, whoever makes its KDC."""

    name: str
    krb5_conf: Path

    @property
    def environment(self) -> dict[str, str]:
        """What a child process needs to live in this realm and in no other."""
        ...

    def start(self) -> None:
        """Returns when the KDC answers. Raises RealmFailed."""
        ...

    def stop(self) -> None:
        """Ends the KDC and waits for it."""
        ...

    def add_service(self, principal: str) -> None:
        """A principal with random keys. Raises RealmFailed."""
        ...

    def write_keytab(self, principal: str, path: Path) -> None:
        """Its keys, as they are now. Raises RealmFailed."""
        ...


class Realm:
    """One MIT realm with its KDC, from :meth:`start` to :meth:`stop`; also a context manager.

    Args:
        directory: where everything of the realm goes, created with mode 0700. The caller removes it.
        port: UDP and TCP port of the KDC.
        addresses: IPv4 or IPv6 addresses it listens on, and where ``krb5_conf`` says that it is.
        name: the realm.
        enctypes: RFC 3961 numbers of the keys that principals get, the most wanted first.
        max_life: longest ticket in seconds.
        prefix: put before the KDC's command line, such as ``("nsenter", "--net=/run/netns/x")``.
    """

    def __init__(
        self,
        directory: Path,
        port: int,
        *,
        addresses: Sequence[str] = ("127.0.0.1",),
        name: str = "KINKVPN.TEST",
        enctypes: Sequence[int] = DEFAULT_ENCTYPES,
        max_life: int = 36000,
        prefix: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.directory = directory
        self.port = port
        self.addresses = tuple(addresses)
        self.krb5_conf = directory / "krb5.conf"
        self._log = directory / "kdc.log"
        self._enctypes = tuple(enctypes)
        self._max_life = max_life
        self.prefix = tuple(prefix)
        self._kdc: subprocess.Popen[bytes] | None = None
        self._trusted: list[Realm] = []

    @property
    def pid(self) -> int | None:
        """Of the running KDC."""
        return self._kdc.pid if self._kdc else None

    @property
    def environment(self) -> dict[str, str]:
        """What a child process needs to live in this realm and in no other."""
        return client_environment(self.krb5_conf) | {"KRB5_KDC_PROFILE": str(self.directory / "kdc.conf")}

    def start(self) -> None:
        """Makes the database unless it is there, starts krb5kdc, and returns when it answers.

        Raises:
            RealmFailed: a tool is missing, the port is taken, the address is not ours.
        """
        if not self.krb5_conf.exists():
            self._create()
        check_port(self.port, self.addresses, self.prefix)
        self._log.write_text("")  # so that a failure below is not explained by an older one
        self._kdc = subprocess.Popen(  # noqa: S603 - a list of arguments, no shell
            [*self.prefix, tool("krb5kdc"), "-n", "-r", self.name],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self.environment,
        )
        try:
            self._wait_listening(self._kdc)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ends the KDC, by its own pid, and waits for it. The database stays: :meth:`start` goes on with it."""
        kdc, self._kdc = self._kdc, None
        if kdc is not None:
            end(kdc)

    def trust(self, other: Realm) -> None:
        """Trust both ways: each database gets krbtgt/B@A and krbtgt/A@B with keys that the other has too.

        From then on both krb5.conf name both KDCs. Both realms have been started, and ``other`` is on other ports.
        """
        for issuer, target in ((self.name, other.name), (other.name, self.name)):
            password = secrets.token_urlsafe(32)
            for realm in (self, other):  # name and password make the key, so it is the same in both
                realm._run(
                    "kadmin.local",
                    *("-r", realm.name, "addprinc", f"krbtgt/{target}@{issuer}"),
                    stdin=f"{password}\n{password}\n",
                )
        for realm, trusted in ((self, other), (other, self)):
            realm._trusted.append(trusted)
            realm.krb5_conf.write_text(realm._client_conf())

    def add_service(self, principal: str, *options: str) -> None:
        """Adds a principal with random keys; ``options`` go to kadmin's addprinc, such as ``-allow_svr``."""
        self.kadmin("addprinc", "-randkey", *options, principal)

    def write_keytab(self, principal: str, path: Path) -> None:
        """Adds the principal's present keys to the keytab at ``path``, made with mode 0600 where it is not there."""
        self.kadmin("ktadd", "-k", str(path), "-norandkey", principal)

    def kadmin(self, *command: str) -> str:
        """Runs one kadmin.local command (``kadmin(1)``) and returns what it printed. Raises RealmFailed."""
        return self._run("kadmin.local", "-r", self.name, *command)

    def kadmin_session(self, commands: Iterable[str]) -> None:
        """Runs many kadmin.local commands in one session, a millisecond each. Raises RealmFailed."""
        script = "".join(f"{command}\n" for command in commands)
        self._run("kadmin.local", "-r", self.name, stdin=script, timeout=SESSION_SECONDS)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _create(self) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.directory / "kdc.conf").write_text(self._kdc_conf())
        (self.directory / "kadm5.acl").touch()
        self.krb5_conf.write_text(self._client_conf())
        # The master password goes in twice through stdin, where no process list shows it, and is then forgotten:
        # the stash file holds the key.
        password = secrets.token_urlsafe(32)
        try:
            self._run("kdb5_util", "-r", self.name, "create", "-s", stdin=f"{password}\n{password}\n")
        except RealmFailed:
            self.krb5_conf.unlink()
            raise

    def _endpoints(self) -> list[str]:
        return endpoints(self.addresses, self.port)

    def _client_conf(self) -> str:
        kdcs = {realm.name: realm._endpoints() for realm in (self, *self._trusted)}
        return client_conf(self.name, kdcs, self._enctypes)

    def _kdc_conf(self) -> str:
        return KDC_CONF.format(
            realm=self.name,
            directory=self.directory,
            log=self._log,
            listen=" ".join(self._endpoints()),
            max_life=self._max_life,
            salted=" ".join(f"{ENCTYPE_NAMES[enctype]}:normal" for enctype in self._enctypes),
        )

    def _wait_listening(self, kdc: subprocess.Popen[bytes]) -> None:
        """Until krb5kdc says ``starting...``, which it does once its sockets listen."""
        assert kdc.stdout is not None
        said = b""
        deadline = time.monotonic() + START_SECONDS
        with selectors.DefaultSelector() as selector:
            selector.register(kdc.stdout, selectors.EVENT_READ)
            while b"starting..." not in said:
                if not selector.select(deadline - time.monotonic()):
                    raise RealmFailed(f"krb5kdc did not start within {START_SECONDS:.0f} s")
                octets = os.read(kdc.stdout.fileno(), 4096)
                if not octets:
                    raise RealmFailed(f"krb5kdc ended: {last_line(self._log.read_text()) or last_line(said.decode())}")
                said += octets

    def _run(self, name: str, *arguments: str, stdin: str = "", timeout: float = START_SECONDS) -> str:
        done = subprocess.run(  # noqa: S603 - a list of arguments, no shell
            [tool(name), *arguments],
            input=stdin,
            text=True,
            capture_output=True,
            env=self.environment,
            timeout=timeout,
            check=False,
        )
        # kadmin.local exits 0 after most of its errors, but only errors and one notice go to stderr.
        complaints = [line for line in done.stderr.splitlines() if line and not line.startswith("No policy specified")]
        if done.returncode or (name == "kadmin.local" and complaints):
            raise RealmFailed(f"{name}: {complaints[-1] if complaints else f'exit code {done.returncode}'}")
        return done.stdout


def client_environment(krb5_conf: Path) -> dict[str, str]:
    """The caller's environment with this krb5.conf and nothing else of the host's Kerberos."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KRB5")}
    return kept | {
        "KRB5_CONFIG": str(krb5_conf),
        "KRB5RCACHEDIR": str(krb5_conf.parent),  # else the host's own replay cache, where it stays for ever
        "LC_ALL": "C",
    }


def client_conf(realm: str, kdcs: Mapping[str, Sequence[str]], enctypes: Sequence[int]) -> str:
    """A krb5.conf.

    Args:
        realm: the default one.
        kdcs: of every realm, where its KDCs are.
        enctypes: RFC 3961 numbers, the most wanted first.
    """
    return KRB5_CONF.format(
        realm=realm,
        permitted=" ".join(ENCTYPE_NAMES[enctype] for enctype in enctypes),
        weak="" if set(enctypes) <= set(DEFAULT_ENCTYPES) else WEAK_SWITCHES,
        realms="\n".join(
            "\n".join([f"    {name} = {{", *(f"        kdc = {endpoint}" for endpoint in there), "    }"])
            for name, there in kdcs.items()
        ),
    )


def endpoints(addresses: Sequence[str], port: int) -> list[str]:
    """As krb5.conf writes them."""
    return [f"[{address}]:{port}" if ":" in address else f"{address}:{port}" for address in addresses]


def check_port(port: int, addresses: Sequence[str], prefix: Sequence[str] = ()) -> None:
    """Raises RealmFailed if somebody has the port already."""
    command = [*prefix, sys.executable, "-I", "-c", PORT_PROBE, str(port), *addresses]
    done = subprocess.run(command, text=True, capture_output=True, check=False)  # noqa: S603 - no shell
    if done.returncode:
        raise RealmFailed(f"the KDC cannot listen: {last_line(done.stderr)}")


def end(kdc: subprocess.Popen[bytes]) -> None:
    """Ends a KDC by its own pid, and waits for it."""
    kdc.terminate()
    try:
        kdc.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        kdc.kill()
        kdc.wait()
    if kdc.stdout is not None:
        kdc.stdout.close()


def tool(name: str) -> str:
    """Path of an administration tool, which an ordinary user's PATH leaves out. Raises RealmFailed."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/sbin")
    if path is None:
        raise RealmFailed(f"{name} not found: apt-get install krb5-kdc krb5-admin-server")
    return path


def last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""
