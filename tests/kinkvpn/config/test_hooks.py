"""Commands of the operator's, as they may be written."""

from __future__ import annotations

import pytest
from support.configuration import SOURCE, edited

from kinkvpn import config
from kinkvpn.config import HookSettings
from kinkvpn.document import DocumentError

PLACE = "[[peer]]\n"


def hooks(line: str) -> HookSettings:
    return config.parse(edited(PLACE, f"[hooks]\n{line}\n{PLACE}"), SOURCE).hooks


def test_a_program_alone_or_with_its_arguments() -> None:
    assert hooks('up = "/etc/up"').up == ("/etc/up",)
    assert hooks('peer_down = ["sh", "-c", "echo $A; true", ""]').peer_down == ("sh", "-c", "echo $A; true", "")
    assert hooks("timeout = 1.5") == HookSettings(timeout=1.5)


@pytest.mark.parametrize("wrong", ['""', "[]", "7", '["a", 1]', '"./up"', '["etc/up"]', '"a\\u0000b"'])
def test_what_is_no_command(wrong: str) -> None:
    with pytest.raises(DocumentError, match=r"hooks\.down = .*expected a command: \["):
        hooks(f"down = {wrong}")
