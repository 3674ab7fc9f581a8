"""The plan that goes to the process with the initiators arrives as it was."""

from __future__ import annotations

from bench.crowd import Client, Plan


def test_a_plan_survives_the_journey() -> None:
    clients = tuple(Client(f"kink/{n}.test@R", f"/keytabs/{n}", f"198.18.0.{n}", (f"100.64.0.{n}/32",)) for n in (1, 2))
    plan = Plan("kink/gateway.test@R", "192.0.2.2", "10.0.0.0/16", clients)
    assert Plan.from_json(plan.to_json()) == plan
