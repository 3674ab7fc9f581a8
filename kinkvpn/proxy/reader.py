"""What has come from a client and has not been read as a message yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from kinkvpn.proxy.target import MalformedRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.socket import SocketType

Found = TypeVar("Found")

# More than any message has before there is an answer to it.
LARGEST = 16_384


class Reader:
    """A client's octets.

    Args:
        client: connected.

    Attributes:
        rest: octets that nobody has taken.
    """

    def __init__(self, client: SocketType) -> None:
        self.client = client
        self.rest = b""

    async def fill(self) -> None:
        """Wait for more. Raises MalformedRequest where there is none, or too much."""
        if len(self.rest) >= LARGEST:
            raise MalformedRequest(f"a request of more than {LARGEST} octets")
        more = await self.client.recv(LARGEST - len(self.rest))
        if not more:
            raise MalformedRequest("the client has ended within a request")
        self.rest += more

    async def parse(self, parser: Callable[[bytes], tuple[Found, int] | None]) -> Found:
        """What ``parser`` finds, as soon as it does. Raises MalformedRequest."""
        while (found := parser(self.rest)) is None:
            await self.fill()
        value, octets = found
        self.rest = self.rest[octets:]
        return value
