"""What an operation of the API is, and the OpenAPI 3.1 document that is made of all of them."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from kinkvpn.api.answers import Problem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

PROBLEM_TYPE = "application/problem+json"  # RFC 9457

# RFC 6901: where a component of the document is.
_REFERENCE = "#/components/schemas/{name}"
_PEER = {
    "name": "name",
    "in": "path",
    "required": True,
    "description": "a peer, by its name in the configuration",
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"},
}


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path.

    Args:
        method: GET for what changes nothing, POST for the rest.
        path: with ``{name}`` where a peer is named.
        run: given the daemon and the request; what it returns is sent as JSON unless it is a response already. Its
            first line of documentation is the summary, the whole of it the description.
        answer: the type of what it returns, or the media type of a response.
        parameters: OpenAPI's, of the query and the header.
    """

    method: str
    path: str
    run: Callable[..., Awaitable[object]]
    answer: Any
    parameters: tuple[dict[str, Any], ...] = ()


def document(operations: Iterable[Operation], version: str) -> dict[str, Any]:
    """The OpenAPI document of ``operations``; ``version`` is the program's."""
    operations = list(operations)
    types = [one.answer for one in operations if not isinstance(one.answer, str)]
    schemas, components = msgspec.json.schema_components([*types, Problem], ref_template=_REFERENCE)
    bodies = dict(zip([id(one) for one in types], schemas, strict=False))
    paths: dict[str, dict[str, Any]] = {}
    for one in operations:
        paths.setdefault(one.path, {})[one.method.lower()] = _described(one, bodies.get(id(one.answer)))
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "kinkvpn",
            "version": version,
            "description": "The local API of a running daemon. Who may open its Unix socket may ask.",
        },
        "servers": [{"url": "/", "description": "the control socket, /run/kinkvpn/kinkvpn.sock as a rule"}],
        "paths": paths,
        "components": {"schemas": components},
    }


def _described(operation: Operation, schema: dict[str, Any] | None) -> dict[str, Any]:
    words = inspect.getdoc(operation.run) or ""
    media = (
        {operation.answer: {"schema": {"type": "string"}}}
        if schema is None
        else {"application/json": {"schema": schema}}
    )
    problem = {"schema": {"$ref": _REFERENCE.format(name="Problem")}}
    named = (_PEER,) if "{name}" in operation.path else ()
    return {
        "operationId": operation.run.__name__,
        "summary": words.partition("\n")[0],
        "description": re.sub(r"\s+", " ", words),
        "parameters": [*named, *operation.parameters],
        "responses": {
            "200": {"description": "done", "content": media},
            "default": {"description": "not done, and why", "content": {PROBLEM_TYPE: problem}},
        },
    }
