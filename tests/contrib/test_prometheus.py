"""What is in contrib for Prometheus and Grafana: rules that fire when they should, and no metric that is not there."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from esp.errors import DropReason
from kinkvpn.metrics import METRICS
from kinkvpn.proto.events import Tally

CONTRIB = Path(__file__).parents[2] / "contrib"
RULES = CONTRIB / "prometheus/kinkvpn.rules.yml"
DASHBOARD = CONTRIB / "grafana/kinkvpn.json"

OF_HISTOGRAMS = {f"kinkvpn_exchange_duration_seconds_{part}" for part in ("bucket", "count", "sum")}


def expressions() -> list[str]:
    """Every query of the dashboard, those of its variables too."""
    dashboard: dict[str, Any] = json.loads(DASHBOARD.read_text())
    panels = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    return panels + [each["definition"] for each in dashboard["templating"]["list"] if "definition" in each]


def named(text: str) -> set[str]:
    """Metrics of ours that ``text`` names."""
    return set(re.findall(r"kinkvpn_\w+", text))


def test_the_dashboard_shows_every_metric_and_no_other() -> None:
    shown = named("\n".join(expressions()))
    assert shown - OF_HISTOGRAMS == set(METRICS) - {"kinkvpn_exchange_duration_seconds"}


def test_the_rules_name_only_what_there_is() -> None:
    text = RULES.read_text()
    assert named(text) - OF_HISTOGRAMS <= set(METRICS)
    words = {value for values in re.findall(r'(?:reason|event)!?=~?"([^"]+)"', text) for value in values.split("|")}
    assert words <= {reason.value for reason in DropReason} | {tally.value for tally in Tally}


@pytest.mark.programs
@pytest.mark.parametrize("arguments", [("check", "rules", RULES.name), ("test", "rules", "kinkvpn.rules.test.yml")])
def test_promtool_agrees(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(["promtool", *arguments], cwd=RULES.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.programs
def test_every_query_of_the_dashboard_can_be_read(tmp_path: Path) -> None:
    """As rules, since promtool has no command for queries; what Grafana puts in is put in."""
    rules = [
        {"record": f"query:{number}", "expr": expression.replace("$__rate_interval", "5m")}
        for number, expression in enumerate(expressions())
        if not expression.startswith("label_values")
    ]
    (tmp_path / "queries.yml").write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))
    done = subprocess.run(
        ["promtool", "check", "rules", str(tmp_path / "queries.yml")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
