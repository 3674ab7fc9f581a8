"""What [esp] and the environment say of the engine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kinkvpn import config
from kinkvpn.document import DocumentError

WRITTEN = config.EngineSettings(config.EngineChoice.PORTABLE, config.CipherLibrary.OPENSSL, 4)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, WRITTEN),
        ({"ESP_ENGINE": "", "ESP_CIPHER_LIBRARY": ""}, WRITTEN),
        ({"ESP_ENGINE": "native"}, replace(WRITTEN, choice=config.EngineChoice.NATIVE)),
        ({"ESP_CIPHER_LIBRARY": "ipsec-mb"}, replace(WRITTEN, library=config.CipherLibrary.IPSEC_MB)),
    ],
)
def test_the_environment_may_choose_the_engine(environment: dict[str, str], expected: config.EngineSettings) -> None:
    assert config.engine_settings(WRITTEN, environment) == expected


def test_what_the_environment_names_and_there_is_not_is_named_at_once() -> None:
    with pytest.raises(DocumentError) as caught:
        config.engine_settings(WRITTEN, {"ESP_ENGINE": "fast", "ESP_CIPHER_LIBRARY": "mine"})
    assert str(caught.value).splitlines() == [
        'environment: ESP_CIPHER_LIBRARY = "mine": expected one of auto, openssl, ipsec-mb',
        'environment: ESP_ENGINE = "fast": expected one of auto, portable, native',
    ]
