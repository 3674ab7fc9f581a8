"""strongSwan beside us: two charons, IKEv2 with a shared key, x25519 and AES-GCM, driven through vici.

Every option here is for its speed: OpenSSL alone for ciphers, no log, no DoS protection, no routes to look after. ESP
is its own userspace one (kernel-libipsec), since not every kernel has IPsec; no packet is sent through it.
"""

from __future__ import annotations

import os
import shutil
import socket
import time
from contextlib import ExitStack
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from bench.crowd import PHASE_SECONDS, Done
from bench.laboratory import end
from bench.processes import cpu_seconds
from kinkvpn.demo.lab import POLL_SECONDS, START_SECONDS
from kinkvpn.demo.namespace import LabFailed, Namespace, join

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

PACKAGES: Final = ("charon-systemd", "libcharon-extra-plugins", "libstrongswan-standard-plugins")
DAEMON: Final = "charon-systemd"
# Where Debian puts it: an ordinary user's PATH leaves that out.
SYSTEM_PATH: Final = "/usr/sbin:/usr/local/sbin"

STRONGSWAN_CONF: Final = """\
charon-systemd {{
    load = random nonce openssl kdf kernel-libipsec kernel-netlink socket-default vici
    install_virtual_ip = no
    process_route = no
    interfaces_use = wire
    reuse_ikesa = no        # a CHILD_SA brings its own IKE_SA: a whole negotiation
    dos_protection = no
    ikesa_table_size = 1024
    ikesa_table_segments = 16
    threads = 16
    journal {{ default = -1 }}
    plugins {{
        vici {{ socket = unix://{directory}/vici }}
        kernel-netlink {{
            roam_events = no
            process_rules = no
        }}
    }}
}}
"""


def missing() -> list[str]:
    """What has to be installed before strongSwan can be measured; empty if nothing."""
    lacking = []
    if daemon() is None:
        lacking.append(f"apt-get install {' '.join(PACKAGES)}")
    try:
        import vici  # noqa: F401
    except ImportError:
        lacking.append("pip install vici")
    return lacking


def daemon() -> str | None:
    """Path of charon, if it is installed."""
    return shutil.which(DAEMON) or shutil.which(DAEMON, path=SYSTEM_PATH)


class Session(Protocol):
    """The part of ``vici.Session`` that is used here."""

    def version(self) -> Mapping[str, Any]: ...
    def stats(self) -> Mapping[str, Any]: ...
    def load_shared(self, shared: Mapping[str, object], /) -> object: ...
    def load_conn(self, connection: Mapping[str, object], /) -> object: ...
    def initiate(self, what: Mapping[str, str], /) -> Iterator[object]: ...
    def rekey(self, what: Mapping[str, str], /) -> object: ...
    def terminate(self, what: Mapping[str, str], /) -> Iterator[object]: ...
    def list_sas(self) -> Iterator[Mapping[str, Any]]: ...
    def listen(self, events: Sequence[str], /, timeout: float) -> Generator[tuple[str | None, object]]: ...


class Charon:
    """One of the two, started; end it with :meth:`close`."""

    def __init__(self, name: str, namespace: Namespace, directory: Path) -> None:
        self.name, self._directory = name, directory
        directory.mkdir()
        configuration = directory / "strongswan.conf"
        configuration.write_text(STRONGSWAN_CONF.format(directory=directory))
        path = daemon()
        assert path is not None
        with (directory / "log").open("w") as log:
            self.process = namespace.spawn(
                [path], stdout=log, stderr=log, environment={**os.environ, "STRONGSWAN_CONF": str(configuration)}
            )

    def session(self) -> Session:
        """A new vici session. Raises LabFailed if charon has ended, or does not begin to listen."""
        import vici

        deadline = time.monotonic() + START_SECONDS
        while True:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(str(self._directory / "vici"))
                session: Session = vici.Session(connection)
                return session
            except OSError:
                connection.close()
            if self.process.poll() is not None or time.monotonic() > deadline:
                log = (self._directory / "log").read_text(errors="replace").splitlines()
                raise LabFailed("charon did not start", host=self.name, log=log[-12:])
            time.sleep(POLL_SECONDS)

    def close(self) -> None:
        end(self.process)


class StrongSwan:
    """Initiator and responder in namespaces of their own; a context manager.

    Raises:
        LabFailed: one of them does not start.
    """

    def __init__(self, directory: Path) -> None:
        self._undo = ExitStack()
        try:
            namespaces = [self._undo.enter_context(Namespace(name)) for name in ("initiator", "responder")]
            join(namespaces[0], "wire", namespaces[1], "wire")
            charons = []
            for side, namespace in enumerate(namespaces):
                # libipsec looks for an address of the local subnet, and for the way out, for each CHILD_SA.
                namespace.ip(
                    f"address add 192.0.2.{side + 1}/30 dev wire",
                    f"address add 10.{side + 1}.0.1/24 dev lo",
                    f"route add default via 192.0.2.{2 - side}",
                )
                charon = Charon(namespace.name, namespace, directory / namespace.name)
                self._undo.callback(charon.close)
                charons.append(charon)
            self._initiator, self._responder = charons
            self._commands, self._events, self._far = (
                each.session() for each in (self._initiator, self._initiator, self._responder)
            )
            configure(self._commands, 0)
            configure(self._far, 1)
        except BaseException:
            self._undo.close()
            raise

    @property
    def responder_pid(self) -> int:
        return self._responder.process.pid

    def create(self, count: int, in_flight: int) -> Done:
        """``count`` IKE_SAs with a CHILD_SA each; latencies are left out."""
        return self._drive(("ike-updown",), [self._initiate] * count, in_flight)

    def rekey(self, in_flight: int) -> Done:
        """Every CHILD_SA there is, without PFS; latencies are left out."""
        ids = [child["uniqueid"].decode() for child in self._children()]
        steps = [partial(self._commands.rekey, {"child-id": number}) for number in ids]
        return self._drive(("child-rekey",), steps, in_flight)

    def create_idle(self, count: int, pause: float) -> Done:
        """One after the other; the latency is that of the command, from question to answer."""
        latencies = []
        cpu_began = cpu_seconds(self._initiator.process.pid)
        for _ in range(count):
            began = time.perf_counter()
            self._initiate(wait=True)
            latencies.append(time.perf_counter() - began)
            time.sleep(pause)
        used = cpu_seconds(self._initiator.process.pid) - cpu_began
        return Done(count, sum(latencies), used, tuple(latencies))

    def round_trip(self, count: int) -> list[float]:
        """Seconds that a vici command takes that does nothing: what of a latency is not IKE."""
        latencies = []
        for _ in range(count):
            began = time.perf_counter()
            self._commands.version()
            latencies.append(time.perf_counter() - began)
        return latencies

    def clear(self) -> None:
        """End every IKE_SA on both sides."""
        _finish(self._commands.terminate({"ike": "bench", "force": "yes", "timeout": "-1"}))
        deadline = time.monotonic() + PHASE_SECONDS
        while any(int(side.stats()["ikesas"]["total"]) for side in (self._commands, self._far)):
            if time.monotonic() > deadline:
                raise LabFailed("strongSwan does not get rid of its SAs", host="responder")
            time.sleep(POLL_SECONDS)

    def _initiate(self, *, wait: bool = False) -> None:
        timeout = "5000" if wait else "-1"
        _finish(self._commands.initiate({"ike": "bench", "child": "bench", "timeout": timeout, "loglevel": "-1"}))

    def _children(self) -> list[Any]:
        return [child for sas in self._commands.list_sas() for sa in sas.values() for child in sa["child-sas"].values()]

    def _drive(self, events: tuple[str, ...], steps: Sequence[Callable[[], object]], in_flight: int) -> Done:
        """Take the steps, ``in_flight`` at a time; an event of the initiator's charon is the end of one."""
        heard = self._events.listen(events, timeout=0.05)
        next(heard)  # it registers now
        pid = self._initiator.process.pid
        began, cpu_began, ended, waiting = time.perf_counter(), cpu_seconds(pid), 0, iter(steps)
        for step in islice(waiting, in_flight):
            step()
        while ended < len(steps):
            name, _ = next(heard)
            if name is not None:
                ended += 1
                for step in waiting:
                    step()
                    break
            elif time.perf_counter() - began > PHASE_SECONDS:
                raise LabFailed(f"strongSwan ended {ended} of {len(steps)} negotiations", host="initiator")
        done = Done(len(steps), time.perf_counter() - began, cpu_seconds(pid) - cpu_began)
        heard.close()
        return done

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()


def _finish(stream: Iterator[object]) -> None:
    """vici streams the log of a command; its end is the answer."""
    for _ in stream:
        pass


def establish(session: Session) -> None:
    """The connection with its CHILD_SA. Raises LabFailed, with what charon said."""
    from vici.exception import CommandException

    try:
        _finish(session.initiate({"ike": "bench", "child": "bench", "timeout": "20000"}))
    except CommandException as refused:
        raise LabFailed(f"no SA: {refused}", host="initiator") from refused


def configure(
    session: Session,
    side: int,
    *,
    addresses: Sequence[str] = ("192.0.2.1", "192.0.2.2"),
    inside: Sequence[Sequence[str]] = (("10.1.0.0/24",), ("10.2.0.0/24",)),
    suite: str = "aes256gcm16",
) -> None:
    """The connection, as the initiator (0) or the responder (1) has it.

    Args:
        addresses: outside, of both sides.
        inside: what is behind each side.
        suite: of ESP, as strongSwan names it.
    """
    far = 1 - side
    session.load_shared({"type": "IKE", "data": "the shared key of a benchmark"})
    child = {"esp_proposals": [suite], "local_ts": [*inside[side]], "remote_ts": [*inside[far]]}
    connection = {
        "version": "2",
        "local_addrs": [addresses[side]],
        "remote_addrs": [addresses[far]],
        "proposals": ["aes256gcm16-prfsha256-x25519"],
        "encap": "yes",
        "unique": "never",
        "mobike": "no",
        "local": {"auth": "psk", "id": f"side{side}"},
        "remote": {"auth": "psk", "id": f"side{far}"},
        "children": {"bench": child},
    }
    session.load_conn({"bench": connection})
