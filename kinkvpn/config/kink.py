"""Where KINK listens: [kink]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kinkvpn import values
from kinkvpn.proto.whereabouts import KinkOver

if TYPE_CHECKING:
    from kinkvpn.document import Table

# specification
KINK_PORT = 910  # RFC 4430 §9


@dataclass(frozen=True, slots=True)
class KinkSettings:
    """Where KINK listens.

    Args:
        listen: addresses.
        port: for KINK by itself; KINK behind the non-ESP marker comes to the ESP port.
        over: what a peer's ``kink_over`` is where it says nothing; ESP_PORT leaves ``port`` alone altogether.
    """

    listen: tuple[str, ...] = ("0.0.0.0", "::")  # noqa: S104 # a VPN gateway is reached from anywhere
    port: int = KINK_PORT
    over: KinkOver = KinkOver.AUTO


def read_kink(table: Table) -> KinkSettings:
    """[kink]."""
    default = KinkSettings()
    settings = KinkSettings(
        listen=table.items("listen", values.ip_address, default.listen),
        port=table.get("port", values.port, default.port),
        over=table.get("over", values.one_of(KinkOver), default.over),
    )
    table.close()
    return settings
