"""How hypothesis runs here: the machines are shared, so slowness is never a failure; a failure prints its blob.

The suite keeps within a minute with thirty examples for each property, and they are the same in every run: what fails
here fails because of a change. `pytest --hypothesis-profile=thorough` looks for others, and for longer.
"""

from __future__ import annotations

import gc

import pytest
from hypothesis import HealthCheck, settings
from support.collected import FOUND

settings.register_profile(
    "kinkvpn",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
    max_examples=30,
    derandomize=True,
)
settings.register_profile("thorough", parent=settings.get_profile("kinkvpn"), max_examples=2000, derandomize=False)
settings.load_profile("kinkvpn")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What there is, before ``-m`` and ``-k`` leave some out: tests/test_conformance.py looks for tests by name."""
    config.stash[FOUND] = [item.nodeid for item in items]


def pytest_collection() -> None:
    """What is collected stays to the end, modules and five thousand tests: nothing in it is garbage."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Nor is it looked through again each time that tests have left some."""
    gc.freeze()
    gc.enable()
