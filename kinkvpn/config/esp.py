"""Where ESP listens and what moves it: [esp], and what the environment says of the engine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, TypeVar

from kinkvpn import values
from kinkvpn.document import DocumentError, Problem, Unexpected

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kinkvpn.document import Table

E = TypeVar("E", bound=Enum)

# specification
ESP_PORT = 4500  # RFC 3947 §4, RFC 3948 §2.2

# ours
MAXIMUM_QUEUES = 16  # as the native engine has it (MAX_LANES)


class EngineChoice(Enum):
    """Which ESP engine runs."""

    AUTO = "auto"
    PORTABLE = "portable"
    NATIVE = "native"


class CipherLibrary(Enum):
    """Who seals and opens for the native engine."""

    AUTO = "auto"
    OPENSSL = "openssl"
    IPSEC_MB = "ipsec-mb"


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Which engine moves packets.

    Args:
        choice: AUTO takes the native one where it is built.
        library: of the native one; AUTO is the fastest for each suite.
        queues: of the native one, each a thread; None is one for each core.
    """

    choice: EngineChoice = EngineChoice.AUTO
    library: CipherLibrary = CipherLibrary.AUTO
    queues: int | None = 1


@dataclass(frozen=True, slots=True)
class EspSettings:
    """Where ESP listens and what moves it."""

    port: int = ESP_PORT
    engine: EngineSettings = EngineSettings()
    hop_limit: int | None = None  # of outer headers; None is the kernel's


def read_esp(table: Table) -> EspSettings:
    """[esp]."""
    settings = EspSettings(
        port=table.get("port", values.own_port, ESP_PORT),
        engine=read_engine(table),
        hop_limit=table.get("hop_limit", values.integer(1, 255), None),
    )
    table.close()
    return settings


def read_engine(table: Table) -> EngineSettings:
    """What [esp], of any file that has one, says of the engine."""
    default = EngineSettings()
    return EngineSettings(
        table.get("engine", values.one_of(EngineChoice), default.choice),
        table.get("cipher_library", values.one_of(CipherLibrary), default.library),
        table.get("queues", values.automatic(1, MAXIMUM_QUEUES), default.queues),
    )


def engine_settings(configured: EngineSettings, environment: Mapping[str, str]) -> EngineSettings:
    """``configured``, unless ESP_ENGINE or ESP_CIPHER_LIBRARY in the environment say otherwise.

    Raises:
        DocumentError: they name nothing that there is; both at once.
    """
    problems: list[Problem] = []

    def chosen(name: str, configured: E) -> E:
        value = environment.get(name)
        try:
            return values.one_of(type(configured))(value) if value else configured
        except Unexpected as expected:
            problems.append(Problem(0, f'{name} = "{value}": expected {expected}'))
            return configured

    settings = replace(
        configured,
        choice=chosen("ESP_ENGINE", configured.choice),
        library=chosen("ESP_CIPHER_LIBRARY", configured.library),
    )
    if problems:
        raise DocumentError("environment", problems)
    return settings
