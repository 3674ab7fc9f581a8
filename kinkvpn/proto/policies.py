"""What goes on for each policy of a peer: negotiations under way, failures, and when to try again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kinkvpn.proto.settings import Start

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping

    from kinkvpn.proto.quick_mode import SaPair
    from kinkvpn.proto.settings import PolicySettings

# Ours. A policy that failed is tried again after one second, two, four and so on, and for ever once a minute: long
# enough not to burden a dead peer or KDC, short enough that nobody has to be woken when it comes back.
FIRST_RETRY = 1.0
LONGEST_RETRY = 60.0


@dataclass(slots=True)
class PolicyState:
    """What goes on for one policy.

    Args:
        settings: what the operator wants.
        negotiating: XID of the CREATE under way.
        failures: in a row.
        retry_at: when to try again by ourselves, or None.
        not_before: a packet may ask for an SA again from then on.
        last_error: of the newest failure, for the operator.
        create_seconds: how long the newest CREATE of ours took.
        replacing: the pair that our CREATE, under way or to be tried again, takes the place of, whoever made it.
        alone: its next CREATE asks for nothing else, since one that did was met with silence.
        yield_at: when our pair goes for one that the peer made at the same time, or None.
    """

    settings: PolicySettings
    negotiating: int | None = None
    failures: int = 0
    retry_at: float | None = None
    not_before: float = 0.0
    last_error: str = ""
    create_seconds: float | None = None
    replacing: SaPair | None = None
    alone: bool = False
    yield_at: float | None = None

    def failed(self, reason: str, now: float) -> float:
        """Another negotiation came to nothing; when the next one may begin."""
        self.failures += 1
        self.last_error = reason
        # A float ends at 2^1024, which a peer that is down for a day would reach.
        self.not_before = now + min(FIRST_RETRY * 2 ** min(self.failures - 1, 16), LONGEST_RETRY)
        return self.not_before

    def established(self) -> None:
        """A pair stands: nothing is left of failures before."""
        self.failures, self.last_error, self.retry_at, self.not_before = 0, "", None, 0.0
        self.alone = False


def change(policies: dict[str, PolicyState], wanted: Iterable[PolicySettings], ended: Container[str]) -> None:
    """Have ``policies`` be those ``wanted``, in their order; what goes on for one stays, unless it has ``ended``."""
    before = dict(policies)
    policies.clear()
    for settings in wanted:
        state = None if settings.name in ended else before.get(settings.name)
        policies[settings.name] = state or PolicyState(settings)
        policies[settings.name].settings = settings


def boot(policies: Mapping[str, PolicyState]) -> list[str]:
    """Those that have to stand from the beginning."""
    return [name for name, one in policies.items() if one.settings.start is Start.BOOT]


def companions(policies: Mapping[str, PolicyState], policy: str, now: float) -> list[str]:
    """Those that were written down as one with ``policy`` and may be tried now."""
    entry = policies[policy].settings.entry
    return [
        name
        for name, one in policies.items()
        if entry and one.settings.entry == entry and name != policy
        if one.negotiating is None and not one.alone and one.not_before <= now
    ]


def take_due(policies: Mapping[str, PolicyState], now: float) -> list[str]:
    """Those whose time to be tried again has come, once."""
    due = [name for name, one in policies.items() if one.retry_at is not None and one.retry_at <= now]
    for name in due:
        policies[name].retry_at = None
    return due


def take_yielding(policies: Mapping[str, PolicyState], now: float) -> list[str]:
    """Those in which our pair goes now for the peer's, once."""
    due = [name for name, one in policies.items() if one.yield_at is not None and one.yield_at <= now]
    for name in due:
        policies[name].yield_at = None
    return due
