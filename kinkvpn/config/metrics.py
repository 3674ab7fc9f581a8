"""Where metrics and the status page are to be had besides the control socket: [metrics]."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple

from kinkvpn import values
from kinkvpn.document import Unexpected

if TYPE_CHECKING:
    from kinkvpn.document import Table


class Listen(NamedTuple):
    """An address and a TCP port of it."""

    address: str
    port: int


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    """Where metrics and the status page are to be had.

    Args:
        listen: None for the control socket alone.
        hosts: names that it may be asked by, besides addresses and localhost.
    """

    listen: Listen | None = None
    hosts: tuple[str, ...] = ()


def read_metrics(table: Table) -> MetricsSettings:
    """[metrics]."""
    listen = table.get("listen", _listen, None)
    anywhere = table.get("anywhere", values.boolean, False)
    settings = MetricsSettings(listen, table.items("hosts", values.host_address))
    if listen is not None and not anywhere and not ip_address(listen.address).is_loopback:
        expected = "a loopback address, or anywhere = true too: whoever reaches it reads peers, addresses and events"
        table.report_value(("listen",), table.written("listen"), expected)
    table.close()
    return settings


def _listen(value: object) -> Listen:
    """``127.0.0.1:9910`` or ``[::1]:9910``."""
    expected = 'an address and a TCP port, such as "127.0.0.1:9910" or "[::1]:9910"'
    address, _, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    bare = address.removeprefix("[").removesuffix("]")
    try:
        version = ip_address(bare).version
    except ValueError:
        raise Unexpected(expected) from None
    number = int(port) if port.isascii() and port.isdecimal() else 0
    if (address != bare) is not (version == 6) or not 1 <= number <= 65535:
        raise Unexpected(expected)
    return Listen(bare, number)
