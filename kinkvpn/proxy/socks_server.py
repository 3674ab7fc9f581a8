"""A client that speaks SOCKS 5, from its greeting to the end of what it asks for."""

from __future__ import annotations

import hmac
import logging
from typing import TYPE_CHECKING

from kinkvpn.proxy import socks
from kinkvpn.proxy.association import associate
from kinkvpn.proxy.outgoing import Refusal, Refused
from kinkvpn.proxy.relay import send_all
from kinkvpn.proxy.socks import Command, Method, ReplyCode
from kinkvpn.proxy.target import MalformedRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from kinkvpn.proxy.outgoing import Outgoing
    from kinkvpn.proxy.reader import Reader
    from kinkvpn.proxy.socks import Password

log = logging.getLogger(__name__)

CODES = {
    Refusal.NOT_ALLOWED: ReplyCode.NOT_ALLOWED,
    Refusal.UNKNOWN: ReplyCode.HOST_UNREACHABLE,
    Refusal.REFUSED: ReplyCode.REFUSED,
    Refusal.UNREACHABLE: ReplyCode.NETWORK_UNREACHABLE,
    Refusal.TIMED_OUT: ReplyCode.TTL_EXPIRED,
    Refusal.BUSY: ReplyCode.GENERAL_FAILURE,
}


async def serve_socks(
    reader: Reader, outgoing: Outgoing, password: Password | None, asked: Callable[[], object]
) -> None:
    """Until it is done.

    Args:
        reader: of the client.
        outgoing: where it wants to.
        password: that it has to know; None lets everybody in who reaches us.
        asked: called once there is a request: what follows may take its time.

    Raises:
        MalformedRequest: it speaks something else.
        OSError: it has gone.
    """
    if not await _admit(reader, password):
        return
    try:
        request = await reader.parse(socks.parse_request)
    except socks.UnsupportedAddress:
        await send_all(reader.client, socks.build_reply(ReplyCode.ADDRESS_UNSUPPORTED))
        raise
    except MalformedRequest:
        await send_all(reader.client, socks.build_reply(ReplyCode.GENERAL_FAILURE))
        raise
    asked()
    match request.command:
        case Command.CONNECT:
            await _connect(reader, outgoing, request)
        case Command.UDP_ASSOCIATE:
            await associate(reader.client, outgoing, request.target)
        case _:
            await send_all(reader.client, socks.build_reply(ReplyCode.COMMAND_UNSUPPORTED))


async def _admit(reader: Reader, password: Password | None) -> bool:
    offered = await reader.parse(socks.parse_greeting)
    wanted = Method.NONE if password is None else Method.PASSWORD
    chosen = wanted if wanted in offered else Method.UNACCEPTABLE
    await send_all(reader.client, socks.build_choice(chosen))
    if password is None or chosen is Method.UNACCEPTABLE:
        return chosen is not Method.UNACCEPTABLE
    accepted = matches(await reader.parse(socks.parse_password), password)
    if not accepted:
        tell_of_wrong_password(reader)
    await send_all(reader.client, socks.build_verdict(accepted=accepted))
    return accepted


def matches(given: Password, expected: Password) -> bool:
    """In a time that tells nothing of either."""
    return hmac.compare_digest(given.user, expected.user) & hmac.compare_digest(given.secret, expected.secret)


def tell_of_wrong_password(reader: Reader) -> None:
    """The operator; who guesses is seen that way, and what was guessed is nobody's business."""
    log.warning("wrong_password", extra={"fields": {"client": str(reader.client.getpeername()[0])}})


async def _connect(reader: Reader, outgoing: Outgoing, request: socks.Request) -> None:
    try:
        connection = await outgoing.connect(request.target)
    except Refused as refused:
        log.info("refused", extra={"fields": {"target": str(request.target), "reason": str(refused)}})
        await send_all(reader.client, socks.build_reply(CODES[refused.kind]))
        return
    try:
        await send_all(reader.client, socks.build_reply(ReplyCode.SUCCEEDED))
        await connection.relay(reader.client, reader.rest)
    finally:
        connection.close()
