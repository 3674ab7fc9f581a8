"""Which engine runs, and why that one: the compiled one where it is built, unless told otherwise."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING

from cryptography.hazmat.backends.openssl import backend

from esp.dataplane import Dataplane
from esp.engine import Engine
from esp.native import libraries, why_missing
from esp.offload import Offload, Offloads
from kinkvpn.config import MAXIMUM_QUEUES, CipherLibrary, EngineChoice, EngineSettings
from kinkvpn.service.obstacles import StartRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from esp.fit import Inside
    from esp.link import Link
    from esp.sa import Endpoint, SaParameters
    from esp.tun import Tun
    from kinkvpn.api import answers

# Measured: the checksum of a full segment takes Python 3.5 us. The kernel cuts it, sums it and gives it in 1.
SLOWER = "the kernel cuts large packets faster than this engine"

CHOSEN = "chosen in the configuration or by ESP_ENGINE"


@dataclass(frozen=True, slots=True)
class ChosenEngine:
    """Which engine runs.

    Args:
        name: "native" or "portable".
        reason: why that one.
        ciphers: the libraries that seal and open for it, with their versions.
        library: what it was told about them.
        queues: threads that carry packets, each with a descriptor of the TUN and sockets of its own.
    """

    name: str
    reason: str
    ciphers: str
    library: CipherLibrary = CipherLibrary.AUTO
    queues: int = 1

    @property
    def headline(self) -> str:
        """For a person."""
        queues = f"; {self.queues} queues" if self.queues > 1 else ""
        return f"{self.name}: {self.reason}; ciphers of {self.ciphers}{queues}"

    @property
    def fields(self) -> answers.Engine:
        """For the log and for status."""
        return {"engine": self.name, "engine_reason": self.reason, "ciphers": self.ciphers, "queues": self.queues}

    @property
    def unsuited(self) -> Mapping[Offload, str]:
        """Offloads that are of no use to it, and why."""
        return dict.fromkeys((Offload.TSO, Offload.USO), SLOWER) if self.name == "portable" else {}

    def suited(self, wanted: Offloads) -> Offloads:
        """Those of the ``wanted`` ones that are."""
        return wanted.without(*self.unsuited)

    def dataplane(
        self,
        tun: Tun,
        link: Link,
        *,
        inside: Inside,
        receive_control: Callable[[bytes, Endpoint], None],
        witness: Callable[[SaParameters, bool], None] | None = None,
    ) -> Dataplane:
        """An engine of this kind, and what runs it; arguments as those of the two."""
        make_engine, make_dataplane = (Engine, Dataplane) if self.name == "portable" else self._native()
        engine = make_engine(random=secrets.token_bytes, inside=inside)
        return make_dataplane(engine, tun, link, receive_control=receive_control, witness=witness)

    def _native(self) -> tuple[Callable[..., Engine], Callable[..., Dataplane]]:
        # Not above: where nothing is compiled there is nothing to import.
        from esp.native.dataplane import NativeDataplane
        from esp.native.engine import NativeEngine

        return partial(NativeEngine, library=self.library.value, lanes=self.queues), NativeDataplane


def choose_engine(settings: EngineSettings, missing: str | None) -> ChosenEngine:
    """The engine for ``settings``.

    Args:
        settings: what was asked for.
        missing: why the native one cannot run, if it cannot: :func:`obstacle` knows.

    Raises:
        StartRefused: the native engine is asked for and cannot run, or a library that is not there.
    """
    if settings.choice is EngineChoice.NATIVE and missing:
        raise StartRefused(f'engine "native" is {missing}: expected "auto" or "portable"')
    if settings.choice is EngineChoice.PORTABLE:
        return ChosenEngine("portable", CHOSEN, portable_ciphers())
    if missing:
        return ChosenEngine("portable", f"the native one is {missing}", portable_ciphers())
    reason = CHOSEN if settings.choice is EngineChoice.NATIVE else "it is built, and nothing else was asked for"
    queues = settings.queues or min(len(os.sched_getaffinity(0)), MAXIMUM_QUEUES)
    return ChosenEngine("native", reason, native_ciphers(settings.library), settings.library, queues)


def obstacle() -> str | None:
    """Why the native engine cannot run here; None if it can."""
    return why_missing()


def native_ciphers(library: CipherLibrary) -> str:
    """Raises StartRefused: ``library`` is not there, or not for this processor."""
    there = libraries()
    if library is CipherLibrary.AUTO:
        return ", ".join(there.values())
    if library.value not in there:
        raise StartRefused(
            f'cipher library "{library.value}" is not here, or does not serve this processor: expected "auto"'
            + "".join(f' or "{name}"' for name in there)
        )
    return there[library.value]


def portable_ciphers() -> str:
    """What the portable engine has of pyca/cryptography."""
    return f"{backend.openssl_version_text()} (pyca/cryptography {version('cryptography')})"
