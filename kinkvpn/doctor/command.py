"""``kinkvpn doctor``: who is looked at, by which looks, and what is said while one waits."""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from kinkvpn.api.client import Client, peer_path
from kinkvpn.api.control import CommandRefused, ControlUnavailable, NotRunning
from kinkvpn.config import DEFAULT_PATH, ControlSettings, load
from kinkvpn.doctor import clear, host, kdc, keys, peers, people, person, reach, routes, view
from kinkvpn.doctor.examination import Examination, Look, Patient, in_thread
from kinkvpn.doctor.finding import Finding, error, exit_code, note
from kinkvpn.doctor.keys import edit
from kinkvpn.document import DocumentError, Problem, Unexpected
from kinkvpn.errors import KinkvpnError
from kinkvpn.kerberos.library import LibraryUnusable
from kinkvpn.service.obstacles import StartRefused

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, TextIO

    from kinkvpn.config import Configuration, PeerConfiguration

# Ours. Whoever serves ten thousand peers needs one for it.
STATUS_SECONDS = 5.0
ALONE = "so this host alone is looked at, as kinkvpn run, kinkvpn proxy and kinkvpn up GATEWAY need it"
LOOKS = (
    Look("the daemon", in_thread(host.daemon)),
    Look("the engine", in_thread(host.engine)),
    Look("capabilities", in_thread(host.capabilities)),
    Look("namespaces", in_thread(host.namespaces)),
    Look("ports", in_thread(host.ports)),
    Look("raw sockets", in_thread(host.raw)),
    Look("the TUN device", in_thread(host.device)),
    Look("the kill switch", clear.kept_in, seconds=30.0),
    Look("krb5.conf and keys", in_thread(keys.found_here)),
    Look("the KDC", kdc.granting, seconds=70.0, needs=("krb5.conf and keys",)),
    Look("our own key", kdc.own_key, seconds=20.0, needs=("the KDC",)),
    Look("tickets for the peers", peers.tickets, seconds=60.0, needs=("the KDC",)),
    Look("the ways to the peers", reach.look, seconds=60.0),
    Look("routes", in_thread(routes.competing)),
    Look("switches", in_thread(routes.switches)),
    Look("people", in_thread(people.let_in)),
)


class NoSuchPeer(KinkvpnError):
    """The configuration has none of that name."""


def run(config: Path | None, peer: str | None, *, as_json: bool, out: TextIO, verbose: bool = False) -> int:
    """Look, tell, and return the exit code.

    Args:
        config: the file that was named; None for the usual one, which need not be there.
        peer: name of the only one to look at, or a gateway's host name, with a port if need be; None for all.
        as_json: for programs.
        out: where to.
        verbose: with what is as it should be where something else is not.

    Raises:
        DocumentError: the file that was named cannot be read.
        NoSuchPeer: no peer of that name.
    """
    progress = Progress(sys.stderr)
    configuration, findings = read(config)
    gateway = peer if config is None and peer is not None and not named(configuration, peer) else ""
    if gateway and exit_code(findings) == 0:
        progress.begin(f"who {gateway} is")
        configuration, findings = of_person(configuration, gateway)
    patient = Patient(configuration, chosen(configuration, None if gateway else peer), config or DEFAULT_PATH, gateway)
    progress.begin("the daemon")
    ask_daemon(patient)
    findings += trio.run(Examination(patient, progress.begin).run, LOOKS)
    progress.end()
    if as_json:
        print(json.dumps(view.as_json(findings)), file=out)
    else:
        view.show(findings, out, verbose=verbose)
    return exit_code(findings)


def read(config: Path | None) -> tuple[Configuration | None, list[Finding]]:
    """The configuration, if there is one, and what is wrong with it."""
    path = config or DEFAULT_PATH
    try:
        return load(path), []
    except DocumentError as wrong:
        if not _there(path):
            if config is not None:
                raise
            line, mend = f"there is no {path}", "" if os.geteuid() else "kinkvpn init"
            return None, [note("configuration-missing", line, ALONE, mend)]
        if os.access(path, os.R_OK):
            return None, [_invalid(problem) for problem in wrong.located()]
        line = f"uid {os.geteuid()} may not read {path}"
        hidden = error("configuration-hidden", line, ALONE, Patient(None, file=path).in_full())
        return None, [hidden.as_note() if config is None else hidden]


def _there(path: Path) -> bool:
    """Also where we may not see it."""
    try:
        path.stat()
    except OSError as error:
        return isinstance(error, PermissionError)
    return True


def _invalid(problem: Problem) -> Finding:
    text = str(DocumentError(problem.source, [problem]))
    return error("configuration-invalid", text, command=edit(Path(problem.source), problem.line))


def named(configuration: Configuration | None, peer: str) -> bool:
    """Whether the configuration has one of that name."""
    return configuration is not None and any(each.name == peer for each in configuration.peers)


def of_person(configuration: Configuration | None, gateway: str) -> tuple[Configuration | None, list[Finding]]:
    """What somebody with tickets has instead. Raises NoSuchPeer: that is the name of neither a peer nor a host."""
    if configuration is not None and "." not in gateway:
        raise no_such_peer(configuration, gateway)
    try:
        return person.configuration_of(gateway), []
    except Unexpected as expected:
        raise NoSuchPeer(f"gateway {gateway!r}: expected {expected}") from None
    except (StartRefused, LibraryUnusable) as refused:
        return None, [error("tickets-missing", str(refused), "they say who you are", "kinit")]


def no_such_peer(configuration: Configuration | None, peer: str) -> NoSuchPeer:
    """With those that there are."""
    there = configuration.peers if configuration else ()
    return NoSuchPeer(f"no peer {peer!r}; there are {', '.join(each.name for each in there) or 'none'}")


def chosen(configuration: Configuration | None, peer: str | None) -> tuple[PeerConfiguration, ...]:
    """The peers that are asked about."""
    there = configuration.peers if configuration else ()
    if peer is None:
        return there
    found = tuple(each for each in there if each.name == peer)
    if configuration is not None and not found:
        raise no_such_peer(configuration, peer)
    return found


def ask_daemon(patient: Patient) -> None:
    """What a running daemon says of itself, where one runs and we may ask."""
    control = patient.configuration.control if patient.configuration else ControlSettings()
    try:
        client = Client(control.socket, timeout=STATUS_SECONDS)
    except NotRunning:
        return
    except ControlUnavailable:
        patient.daemon_hidden = True
        return
    try:
        with client as daemon:
            patient.status = daemon.status()
        patient.probe = partial(probed, control.socket)
        patient.events = partial(kept, control.socket)
    except (ControlUnavailable, CommandRefused) as failure:
        patient.daemon_fails = f"a daemon runs, pid {client.pid}: {failure}"
        patient.daemon_pid = client.pid


def probed(socket: Path, peer: str) -> float:
    """Seconds that a STATUS of the daemon's took. Raises KinkvpnError: no answer, and why."""
    with Client(socket) as daemon:
        return float(daemon.post(f"{peer_path(peer)}/probe")["seconds"])


def kept(socket: Path) -> list[Mapping[str, Any]]:
    """The daemon's newest events. Raises KinkvpnError."""
    with Client(socket) as daemon:
        return [event.data for event in daemon.events(follow=False) if event.type == "message"]


class Progress:
    """What is looked at now, on a line of its own that goes again; nothing where nobody sits at a terminal."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._shown = out.isatty()

    def begin(self, subject: str) -> None:
        """The next subject."""
        if self._shown:
            self._out.write(f"\r\x1b[K{subject} ...")
            self._out.flush()

    def end(self) -> None:
        """All have been looked at."""
        if self._shown:
            self._out.write("\r\x1b[K")
            self._out.flush()
