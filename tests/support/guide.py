"""The command blocks of a page, and hosts to run them on: what a reader would type, typed.

A block of commands or a file has a comment in front of it that no reader sees:

    <!-- run: west -->              the block, by sh -e on that host; it has to exit with 0
    <!-- run: west+east -->         on each of these
    <!-- run: west & -->            in the background; the next block runs once `kinkvpn status` answers there
    <!-- run: west typing WORD -->  with that to read, where a person would be asked
    <!-- file: west /etc/x.toml --> the block is that file there
    <!-- install: west -->          on that host, in a clone of this repository, with the network and the home of who
                                    runs the tests, for apt, pip and git; from then on the host has what it installs,
                                    and no other kinkvpn
    <!-- boot: west -->             on that host with a systemd, which boots for it
    <!-- enrolled: north -->        as run, with FreeIPA's programs and a stand-in for its server: freeipa_server.py
    <!-- image: west -->            as run, by tests/interop/test_image.py, which has podman there
    <!-- skip: reason -->           nothing; the reason is for who reads the source

Hosts are network and mount namespaces with an /etc, a /run and a home of their own, on one router; one where something
is installed has a /usr, a /var and an /opt of its own too. ``scp FILE HOST:PATH`` there is a copy between them; nothing
else stands in for anything.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Self

from support.freeipa import UNPACKED, FreeIpa
from support.machine import CLONE, MachineFailed
from support.machine import Machine as Booted
from support.samba import SambaRealm

from kinkvpn.demo.namespace import Namespace, die_with_us, join
from kinkvpn.demo.realm import Realm

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from types import TracebackType

BLOCK = re.compile(r"^(?:<!-- (\w+): (.*?) -->\n)?^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
KINDS = {"run", "file", "install", "boot", "enrolled"}
EXEMPT = {"text", ""}  # what is printed, and drawings
ROUTER = "10.255.0.1"
SECONDS = 120.0
INSTALL_SECONDS = 900.0  # one and a half minutes on an idle machine, most of it compiling
REALM = "EXAMPLE.COM"
# For documentation (RFC 5737).
PLACES = {
    "kdc": "198.51.100.88",
    "west": "192.0.2.1",
    "east": "203.0.113.2",
    "gateway": "203.0.113.9",
    "laptop": "198.51.100.7",
    "dc": "198.51.100.9",
    "admin": "198.51.100.10",
    "north": "192.0.2.11",
    "ipa": "198.51.100.11",
}
DOMAIN = {"dc", "admin"}  # the domain's controller, and a host that knows it
ADMINISTRATOR = "Correct-Horse-7"

PREPARE = """\
set -e
cp -a /etc "$0/etc"
mkdir -p "$0/run" "$0/root"
hostname "${0##*/}"
rm -rf "$0/etc/hosts" "$0/etc/krb5.conf" "$0/etc/kinkvpn"
cp "$0/../hosts" "$0/etc/hosts"
cp "$0/../krb5.conf" "$0/etc/krb5.conf" 2>/dev/null || true
cp --remove-destination /etc/resolv.conf "$0/etc/resolv.conf" 2>/dev/null || true # a link into what is not there
for each in etc run; do mount --bind "$0/$each" "/$each"; done
echo
exec cat
"""
# Over what the machine has: whatever is written is in memory, and gone with the host. Nothing that is installed there
# is started.
PRIVATE = """\
mkdir "$0"
mount -t tmpfs -o mode=755 none "$0"
for each in usr var opt; do
    mkdir "$0/$each" "$0/$each.work"
    mount -t overlay -o "lowerdir=/$each,upperdir=$0/$each,workdir=$0/$each.work" overlay "/$each"
done
rm -f /usr/local/bin/kinkvpn
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
"""
INSTALLED_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
GIT = ("git", "-c", "safe.directory=*", "-c", "user.name=nobody", "-c", "user.email=nobody@example.com")
SCP = """\
#!/bin/sh
# scp FILE HOST:PATH, between the hosts of a laboratory.
set -e
install -m 600 "$1" "{directory}/${{2%%:*}}${{2#*:}}"
"""


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block: where it is, and what is to be done with it."""

    line: int
    language: str
    text: str
    kind: str
    argument: str


def blocks(page: Path) -> Iterator[Block]:
    """Every one of ``page``, in order."""
    text = page.read_text()
    for found in BLOCK.finditer(text):
        kind, argument, language, body = found.groups()
        line = text.count("\n", 0, found.start()) + 1
        yield Block(line, language, body, kind or "", argument or "")


def unmarked(page: Path) -> list[int]:
    """Lines of blocks that are neither run nor excused."""
    return [each.line for each in blocks(page) if not each.kind and each.language not in EXEMPT]


class Machine:
    """A host.

    Args:
        name: of it.
        directory: of the laboratory; what is below ``name`` in it becomes the host's.
        environment: of its commands.
    """

    def __init__(self, name: str, directory: Path, environment: dict[str, str]) -> None:
        self.name, self.directory = name, directory / name
        self.network = Namespace(name)
        self.environment = environment | {"HOME": f"{self.directory}/root", "KRB5CCNAME": f"{self.directory}/tickets"}
        self.directory.mkdir()
        self._clone: Path | None = None
        self._undo = ExitStack()
        self._holder = subprocess.Popen(
            [*self.network.prefix, "unshare", "--mount", "--uts", "sh", "-c", PREPARE, str(self.directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.read(1) == b"\n", f"host {name} did not come up"

    @property
    def prefix(self) -> list[str]:
        """Put before a command that is to run there."""
        network = f"--net=/proc/{self.network.pid}/ns/net"
        names = f"--uts=/proc/{self._holder.pid}/ns/uts"
        return [*die_with_us(), "nsenter", network, names, self._files, f"--wd={self.directory}/root", "--"]

    @property
    def _files(self) -> str:
        return f"--mount=/proc/{self._holder.pid}/ns/mnt"

    def run(self, commands: str, typed: str = "") -> str:
        """By ``sh -e``, with ``typed`` to read; what they print. Raises AssertionError unless they exit with 0."""
        return self._shell(self.prefix, commands, self.environment, SECONDS, typed)

    def install(self, commands: str) -> str:
        """As :meth:`run`, in a clone, with the world's network and the home that this process has."""
        if self._clone is None:
            subprocess.run(
                ["nsenter", self._files, "sh", "-e", "-c", PRIVATE, f"{self.directory}/own"],
                check=True,
                timeout=SECONDS,
            )
            self._clone = clone(self.directory)
            self.environment |= {"PATH": f"{self.directory.parent}/bin:{INSTALLED_PATH}"}
        prefix = [*die_with_us(), "nsenter", self._files, f"--wd={self._clone}", "--"]
        environment = self.environment | {"HOME": os.environ["HOME"], "DEBIAN_FRONTEND": "noninteractive"}
        return self._shell(prefix, commands, environment, INSTALL_SECONDS)

    def boot(self, commands: str) -> str:
        """As :meth:`run`, once the host has booted, with what is installed and configured on it."""
        booted = self._undo.enter_context(
            Booted(self.directory / "booted", self.prefix, {"/usr": "/usr", "/opt": "/opt"})
        )
        etc = booted.root / "etc"
        shutil.copytree(self.directory / "etc/kinkvpn", etc / "kinkvpn", dirs_exist_ok=True)
        for name in ("hosts", "krb5.conf"):
            shutil.copy(self.directory / "etc" / name, etc)
        booted.run("systemd-tmpfiles", "--create", "kinkvpn.conf")
        try:
            return booted.run("sh", "-e", "-c", commands)
        except MachineFailed as failure:
            raise AssertionError(f"on {self.name}: {failure}\n{booted.journal('kinkvpn')}") from None

    def _shell(
        self, prefix: list[str], commands: str, environment: dict[str, str], seconds: float, typed: str = ""
    ) -> str:
        done = subprocess.run(
            [*prefix, "sh", "-e", "-c", commands],
            input=typed,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            timeout=seconds,
            check=False,
        )
        assert done.returncode == 0, f"on {self.name}, exit code {done.returncode}:\n{commands}\n{done.stdout}"
        return done.stdout

    def start(self, commands: str) -> None:
        """In the background; returns once a daemon answers."""
        log = self.directory / "log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [*self.prefix, "sh", "-e", "-c", f"exec {commands}"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self.environment,
            )
        self._undo.callback(end, process)
        deadline = time.monotonic() + SECONDS
        while subprocess.run([*self.prefix, "kinkvpn", "status"], env=self.environment, capture_output=True).returncode:
            assert process.poll() is None, f"on {self.name}, {commands} ended:\n{log.read_text()}"
            assert time.monotonic() < deadline, f"on {self.name}, {commands} does not answer:\n{log.read_text()}"
            time.sleep(0.1)

    def enrol(self, server: FreeIpa) -> None:
        """What `ipa-client-install` leaves behind, and the programs."""
        self.run(f"mount -t overlay -o lowerdir={UNPACKED}/usr:/usr overlay /usr")
        self.write("/etc/ipa/default.conf", server.configuration)
        self.write("/etc/ipa/ca.crt", server.certificate)

    def write(self, path: str, text: str) -> None:
        """A file there, with the directories that it is in."""
        target = self.directory / path.replace("~", "root").lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch(0o600)
        target.write_text(text)

    def close(self) -> None:
        """Everything on it ends."""
        self._undo.close()
        self._holder.kill()
        self._holder.communicate()
        self.network.close()


def end(process: subprocess.Popen[bytes]) -> None:
    """At once."""
    process.kill()
    process.wait()


def clone(directory: Path) -> Path:
    """One of this repository as it is here, whose upstream has a next version by now."""
    upstream, here = directory / "upstream", directory / "kinkvpn"
    listed = subprocess.run([*GIT, "ls-files", "-z"], cwd=CLONE, check=True, stdout=subprocess.PIPE, text=True)
    for name in filter(None, listed.stdout.split("\0")):
        (upstream / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(CLONE / name, upstream / name, follow_symlinks=False)
    for command in (
        ("init", "--quiet", "--initial-branch=main"),
        ("add", "--all", "--force"),
        ("commit", "--quiet", "--message=this"),
        ("clone", "--quiet", ".", str(here)),
        ("commit", "--quiet", "--allow-empty", "--message=next"),
    ):
        subprocess.run([*GIT, *command], cwd=upstream, check=True, timeout=SECONDS)
    return here


def obstacle() -> str:
    """Why nothing can be installed on a host where the tests run, in the kernel's words; empty where it can."""
    with TemporaryDirectory(prefix="kinkvpn-guide-") as directory:
        trial = ["unshare", "--mount", "sh", "-e", "-c", PRIVATE, f"{directory}/own"]
        done = subprocess.run(trial, capture_output=True, text=True, check=False, timeout=SECONDS)
    return done.stderr.strip()


class Domain(SambaRealm):
    """An Active Directory domain beside the realm."""

    name = "AD.EXAMPLE.COM"


class Laboratory:
    """The hosts that a page names, and a KDC of EXAMPLE.COM.

    Args:
        directory: for all of it.
        names: of the hosts.
    """

    def __init__(self, directory: Path, names: set[str]) -> None:
        self.directory, self._names = directory, names | {"kdc"}
        self.machines: dict[str, Machine] = {}
        self._freeipa: FreeIpa | None = None
        self._enrolled: set[str] = set()
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as failed:
            failed.callback(self._undo.close)
            self._build()
            failed.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()

    def _build(self) -> None:
        hosts = f"{PLACES['dc']} dc.ad.example.com\n"  # first: the name that its address has
        hosts += "".join(f"{address} {name}.example.com {name}\n" for name, address in PLACES.items())
        (self.directory / "hosts").write_text(f"127.0.0.1 localhost\n::1 localhost\n{hosts}")
        tools = self.directory / "bin"
        tools.mkdir()
        self.directory.chmod(0o755)
        (tools / "scp").write_text(SCP.format(directory=self.directory))
        (tools / "scp").chmod(0o755)
        router = self._undo.enter_context(Namespace("router"))
        router.run(["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"])
        path = os.pathsep.join([str(tools), str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin:/sbin"])
        clean = {name: value for name, value in os.environ.items() if not name.startswith("KRB5")}
        environment = clean | {"PATH": path, "LC_ALL": "C", "COLUMNS": "80"}
        self._start_realm(environment, router)
        if self._names & DOMAIN:
            self._domain(environment, router)
        for name in sorted(self._names - {"kdc"} - DOMAIN):
            self._machine(name, environment, router)

    def _start_realm(self, environment: dict[str, str], router: Namespace) -> None:
        """The KDC's host; kadmin.local finds its database by the environment, a reader's by its usual place."""
        kdc = self._machine("kdc", environment, router)
        prefix = kdc.network.prefix
        realm = self._realm = Realm(self.directory / "realm", 88, addresses=(PLACES["kdc"],), name=REALM, prefix=prefix)
        self._undo.callback(realm.stop)
        realm.start()
        kdc.environment |= {name: value for name, value in realm.environment.items() if name.startswith("KRB5")}
        shutil.copy(realm.krb5_conf, self.directory / "krb5.conf")

    def _domain(self, environment: dict[str, str], router: Namespace) -> None:
        """A domain controller with its configuration where Samba looks for it, and a host of the domain."""
        controller = self._machine("dc", environment, router)
        prefix = controller.network.prefix
        domain = Domain(
            self.directory / "ad", 88, addresses=(PLACES["dc"],), prefix=prefix, administrator=ADMINISTRATOR
        )
        self._undo.callback(domain.stop)
        domain.start()
        controller.write("/etc/samba/smb.conf", (domain.directory / "smb.conf").read_text())
        controller.run("samba_spnupdate")  # as samba does where it serves DNS
        for machine in (controller, self._machine("admin", environment, router)):
            machine.write("/etc/krb5.conf", domain.krb5_conf.read_text())
            machine.write("/etc/resolv.conf", "nameserver 127.0.0.1\n")  # who says no at once

    def enrol(self, name: str) -> None:
        """A host in FreeIPA, whose server is started with the first."""
        if self._freeipa is None:
            prefix = self.machines["ipa"].prefix
            self._freeipa = FreeIpa(
                self.directory / "freeipa", self._realm, "ipa.example.com", PLACES["ipa"], prefix, ADMINISTRATOR
            )
            self._undo.callback(self._freeipa.stop)
            self._freeipa.start()
        if name not in self._enrolled:
            self.machines[name].enrol(self._freeipa)
            self._enrolled.add(name)

    def _machine(self, name: str, environment: dict[str, str], router: Namespace) -> Machine:
        machine = self.machines[name] = Machine(name, self.directory, dict(environment))
        self._undo.callback(machine.close)
        join(machine.network, "eth0", router, name)
        machine.network.ip(
            f"address add {PLACES[name]} peer {ROUTER} dev eth0", f"route add default via {ROUTER} dev eth0"
        )
        router.ip(f"address add {ROUTER} peer {PLACES[name]} dev {name}")
        return machine


def follow(page: Path, directory: Path, leave_out: Collection[str] = ()) -> list[str]:
    """Does what ``page`` says, block by block, on new hosts; what each block has printed.

    Args:
        page: of the documentation.
        directory: for the hosts.
        leave_out: kinds of block that cannot be done here.

    Raises:
        AssertionError: a block did not do what it is there for; with its line, its text and its output.
    """
    todo = [each for each in blocks(page) if each.kind in KINDS.difference(leave_out)]
    said: list[str] = []
    names = {name for each in todo for name in hosts(each)}
    if any(block.kind == "enrolled" for block in todo):
        names.add("ipa")
    with Laboratory(directory, names) as laboratory:
        for block in todo:
            try:
                said.append(do(laboratory, block))
            except AssertionError as failure:
                raise AssertionError(f"{page.name}:{block.line}: {failure}") from None
    return said


def hosts(block: Block) -> list[str]:
    """Where it is to be done."""
    return block.argument.split()[0].split("+")


def do(laboratory: Laboratory, block: Block) -> str:
    """What it is there for, on each of its hosts; what it has printed."""
    if block.kind == "enrolled":
        for name in hosts(block):
            laboratory.enrol(name)
    return "".join(_do_on(laboratory.machines[name], block) for name in hosts(block))


def _do_on(machine: Machine, block: Block) -> str:
    _, *rest = block.argument.split()
    if block.kind == "file":
        machine.write(rest[0], block.text)
    elif block.kind == "install":
        return machine.install(block.text)
    elif block.kind == "boot":
        return machine.boot(block.text)
    elif rest == ["&"]:
        machine.start(block.text.strip())
    else:
        return machine.run(block.text, f"{rest[1]}\n" if rest[:1] == ["typing"] else "")
    return ""
