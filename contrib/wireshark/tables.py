#!/usr/bin/env python3
"""Writes the tables of numbers in kink.lua from those of kinkvpn.wire; a test fails when they differ."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from kinkvpn.wire import ipsec_doi, kink

if TYPE_CHECKING:
    from enum import IntEnum

SCRIPT = Path(__file__).with_name("kink.lua")
BEGIN, END = "-- BEGIN TABLES", "-- END TABLES"

TABLES: dict[str, tuple[type[IntEnum], str]] = {
    "message_types": (kink.MessageType, ""),
    "payload_types": (kink.PayloadType, "KINK_"),
    "error_codes": (kink.ErrorCode, "KINK_"),
    "quick_mode_types": (ipsec_doi.PayloadType, ""),
    "protocols": (ipsec_doi.Protocol, ""),
    "esp_transforms": (ipsec_doi.EspTransform, ""),
    "ah_transforms": (ipsec_doi.AhTransform, ""),
    "sa_attributes": (ipsec_doi.SaAttribute, ""),
    "groups": (ipsec_doi.Group, ""),
    "encapsulation_modes": (ipsec_doi.EncapsulationMode, ""),
    "authentication_algorithms": (ipsec_doi.AuthenticationAlgorithm, ""),
    "life_types": (ipsec_doi.LifeType, ""),
    "id_types": (ipsec_doi.IdType, ""),
    "notify_types": (ipsec_doi.NotifyType, ""),
}


def tables() -> str:
    """The Lua text of every table."""
    lines = []
    for name, (table, prefix) in TABLES.items():
        lines.append(f"local {name} = {{")
        lines += [f'    [{member.value}] = "{prefix}{member.name}",' for member in table]
        lines.append("}")
    return "\n".join(lines) + "\n"


def updated(script: str) -> str:
    """``script`` with fresh tables between its two marks."""
    head, _, rest = script.partition(BEGIN)
    mark, _, rest = rest.partition("\n")
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}{mark}\n{tables()}{END}{tail}"


if __name__ == "__main__":
    before = SCRIPT.read_text()
    SCRIPT.write_text(updated(before))
    sys.stdout.write("kink.lua is up to date\n" if updated(before) == before else "kink.lua was changed\n")
