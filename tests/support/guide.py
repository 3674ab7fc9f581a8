"""The command blocks of a page, and hosts to run them on: what a reader would type, typed.

A block of commands or a file has a comment in front of it that no reader sees:

    <!-- run: west -->              the block, by sh -e on that host; it has to exit with 0
    <!-- run: west+east -->         on each of these
    <!-- run: west & -->            in the background; the next block runs once `kinkvpn status` answers there
    <!-- run: west typing WORD -->  with that to read, where a person would be asked
    <!-- file: west /etc/x.toml --> the block is that file there
    <!-- skip: reason -->           neither; the reason is for who reads the source

Hosts are network and mount namespaces with an /etc, a /run and a home of their own, on one router. ``scp FILE
HOST:PATH`` there is a copy between them; nothing else stands in for anything.
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
from typing import TYPE_CHECKING, Self

from support.samba import SambaRealm

from kinkvpn.demo.namespace import Namespace, die_with_us, join
from kinkvpn.demo.realm import Realm

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

BLOCK = re.compile(r"^(?:<!-- (\w+): (.*?) -->\n)?^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EXEMPT = {"text", ""}  # what is printed, and drawings
ROUTER = "10.255.0.1"
SECONDS = 120.0
REALM = "EXAMPLE.COM"
# For documentation (RFC 5737).
PLACES = {
    "kdc": "198.51.100.88",
    "west": "192.0.2.1",
    "east": "203.0.113.2",
    "gateway": "203.0.113.9",
    "laptop": "198.51.100.7",
    "dc": "198.51.100.9",
}

PREPARE = """\
set -e
cp -a /etc "$0/etc"
mkdir -p "$0/run" "$0/root"
rm -rf "$0/etc/hosts" "$0/etc/krb5.conf" "$0/etc/kinkvpn"
cp "$0/../hosts" "$0/etc/hosts"
cp "$0/../krb5.conf" "$0/etc/krb5.conf" 2>/dev/null || true
for each in etc run; do mount --bind "$0/$each" "/$each"; done
echo
exec cat
"""
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
        self.environment = environment | {"HOME": f"{self.directory}/root"}
        self.directory.mkdir()
        self._background: list[subprocess.Popen[bytes]] = []
        self._holder = subprocess.Popen(
            [*self.network.prefix, "unshare", "--mount", "sh", "-c", PREPARE, str(self.directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.read(1) == b"\n", f"host {name} did not come up"

    @property
    def prefix(self) -> list[str]:
        """Put before a command that is to run there."""
        places = (f"--net=/proc/{self.network.pid}/ns/net", f"--mount=/proc/{self._holder.pid}/ns/mnt")
        return [*die_with_us(), "nsenter", *places, f"--wd={self.directory}/root", "--"]

    def run(self, commands: str, typed: str = "") -> str:
        """By ``sh -e``, with ``typed`` to read; what they print. Raises AssertionError unless they exit with 0."""
        done = subprocess.run(
            [*self.prefix, "sh", "-e", "-c", commands],
            input=typed,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.environment,
            timeout=SECONDS,
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
        self._background.append(process)
        deadline = time.monotonic() + SECONDS
        while subprocess.run([*self.prefix, "kinkvpn", "status"], env=self.environment, capture_output=True).returncode:
            assert process.poll() is None, f"on {self.name}, {commands} ended:\n{log.read_text()}"
            assert time.monotonic() < deadline, f"on {self.name}, {commands} does not answer:\n{log.read_text()}"
            time.sleep(0.1)

    def write(self, path: str, text: str) -> None:
        """A file there, with the directories that it is in."""
        target = self.directory / path.replace("~", "root").lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch(0o600)
        target.write_text(text)

    def close(self) -> None:
        """Everything on it ends."""
        for process in self._background:
            process.kill()
            process.wait()
        self._holder.kill()
        self._holder.communicate()
        self.network.close()


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
        hosts = "".join(f"{address} {name}.example.com {name}\n" for name, address in PLACES.items())
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
        self._realm(environment, router)
        if "dc" in self._names:
            self._domain(environment, router)
        for name in sorted(self._names - {"kdc", "dc"}):
            self._machine(name, environment, router)

    def _realm(self, environment: dict[str, str], router: Namespace) -> None:
        """The KDC's host; kadmin.local finds its database by the environment, a reader's by its usual place."""
        kdc = self._machine("kdc", environment, router)
        prefix = kdc.network.prefix
        realm = Realm(self.directory / "realm", 88, addresses=(PLACES["kdc"],), name=REALM, prefix=prefix)
        self._undo.callback(realm.stop)
        realm.start()
        kdc.environment |= {name: value for name, value in realm.environment.items() if name.startswith("KRB5")}
        shutil.copy(realm.krb5_conf, self.directory / "krb5.conf")

    def _domain(self, environment: dict[str, str], router: Namespace) -> None:
        """A domain controller with its configuration where Samba looks for it."""
        controller = self._machine("dc", environment, router)
        domain = Domain(self.directory / "ad", 88, addresses=(PLACES["dc"],), prefix=controller.network.prefix)
        self._undo.callback(domain.stop)
        domain.start()
        controller.write("/etc/samba/smb.conf", (domain.directory / "smb.conf").read_text())
        controller.write("/etc/krb5.conf", domain.krb5_conf.read_text())

    def _machine(self, name: str, environment: dict[str, str], router: Namespace) -> Machine:
        machine = self.machines[name] = Machine(name, self.directory, dict(environment))
        self._undo.callback(machine.close)
        join(machine.network, "eth0", router, name)
        machine.network.ip(
            f"address add {PLACES[name]} peer {ROUTER} dev eth0", f"route add default via {ROUTER} dev eth0"
        )
        router.ip(f"address add {ROUTER} peer {PLACES[name]} dev {name}")
        return machine


def follow(page: Path, directory: Path) -> list[str]:
    """Does what ``page`` says, block by block, on new hosts; what each block has printed.

    Raises:
        AssertionError: a block did not do what it is there for; with its line, its text and its output.
    """
    todo = [each for each in blocks(page) if each.kind in ("run", "file")]
    said: list[str] = []
    with Laboratory(directory, {name for each in todo for name in hosts(each)}) as laboratory:
        for block in todo:
            try:
                said.append(_do(laboratory, block))
            except AssertionError as failure:
                raise AssertionError(f"{page.name}:{block.line}: {failure}") from None
    return said


def hosts(block: Block) -> list[str]:
    """Where it is to be done."""
    return block.argument.split()[0].split("+")


def _do(laboratory: Laboratory, block: Block) -> str:
    return "".join(_do_on(laboratory.machines[name], block) for name in hosts(block))


def _do_on(machine: Machine, block: Block) -> str:
    _, *rest = block.argument.split()
    if block.kind == "file":
        machine.write(rest[0], block.text)
    elif rest == ["&"]:
        machine.start(block.text.strip())
    else:
        return machine.run(block.text, f"{rest[1]}\n" if rest[:1] == ["typing"] else "")
    return ""
