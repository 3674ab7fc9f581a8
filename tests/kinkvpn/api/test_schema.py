"""The OpenAPI document: every operation is in it, described, and its references lead somewhere."""

from __future__ import annotations

import json
import re

import pytest

from kinkvpn.api.app import OPERATIONS
from kinkvpn.api.schema import PROBLEM_TYPE, document

DOCUMENT = document(OPERATIONS, "1.2.3")
DESCRIBED = [(path, method) for path, methods in DOCUMENT["paths"].items() for method in methods]


def test_every_operation_is_there() -> None:
    assert sorted(DESCRIBED) == sorted((one.path, one.method.lower()) for one in OPERATIONS)
    assert (DOCUMENT["openapi"], DOCUMENT["info"]["version"]) == ("3.1.0", "1.2.3")


@pytest.mark.parametrize(("path", "method"), DESCRIBED)
def test_an_operation_says_what_it_does_and_how_it_is_refused(path: str, method: str) -> None:
    operation = DOCUMENT["paths"][path][method]
    assert operation["summary"].endswith((".", "."))
    assert "\n" not in operation["description"]
    assert operation["responses"]["default"]["content"].keys() == {PROBLEM_TYPE}
    named = re.findall(r"\{(\w+)\}", path)
    assert named == [one["name"] for one in operation["parameters"] if one["in"] == "path"]


def test_operations_have_names_of_their_own() -> None:
    names = [operation["operationId"] for methods in DOCUMENT["paths"].values() for operation in methods.values()]
    assert len(set(names)) == len(names)


def test_every_reference_leads_to_a_component_and_every_component_is_used() -> None:
    used = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(DOCUMENT)))
    assert used == DOCUMENT["components"]["schemas"].keys()
