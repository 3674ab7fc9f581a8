"""Which ways without root there are here: each tried, in a process of its own that leaves nothing."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from kinkvpn.config import DeviceKind
from kinkvpn.rootless import inside
from kinkvpn.rootless.obstacles import attempt, explain

if TYPE_CHECKING:
    from collections.abc import Callable

TRIAL = "kinktrial0"


@dataclass(frozen=True, slots=True)
class Way:
    """What was tried, in words, and why it is not to be had: empty where it is."""

    name: str
    refusal: str


def survey() -> list[Way]:
    """Namespaces; in them a TUN device, and a veth pair. What is below a refusal is refused with it."""
    deeds: dict[str, Callable[[], object]] = {
        "user, network and mount namespaces": inside.settle,
        "a TUN device in them": partial(with_device, DeviceKind.TUN),
        "a veth pair in them": partial(with_device, DeviceKind.VETH),
    }
    refusals = {name: attempt(deed) for name, deed in deeds.items()}
    return [Way(name, explain(refused) if refused else "") for name, refused in refusals.items()]


def with_device(kind: DeviceKind) -> None:
    """Namespaces, and a device in them. Raises StepRefused."""
    inside.settle()
    inside.make_device(TRIAL, kind.value, {}, 1)
