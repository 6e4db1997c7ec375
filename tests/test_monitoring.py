"""The shipped monitoring: alert rules and the dashboard, on a real Prometheus that scrapes the running service."""

import asyncio
import json
import re
import shutil
import subprocess
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from simulator.options import DEMO_CREDENTIALS
from tests.support.api import token
from tests.support.command import run, started
from tests.support.processes import answers, until
from tests.support.receiver import receiving
from tests.support.servers import PROMETHEUS, PROMTOOL, free_ports
from tests.support.simulator import LiveSimulator

ROOT = Path(__file__).parents[1]
MONITORING = ROOT / "deploy" / "monitoring"
CONFIGURATION = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
RULES = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"][0]["rules"]
TESTS = yaml.safe_load((MONITORING / "alerts_test.yml").read_text())["tests"]
DASHBOARD = json.loads((MONITORING / "grafana" / "faceid-results.json").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
METRIC = re.compile(r"\b(?:faceid|process)_\w+")
SELECTOR = re.compile(r"\b(?:faceid|process)_\w+\{[^}]+\}")
# A healthy service has no such series.
ABSENT = {'faceid_http_request_seconds_count{status=~"5.."}'}
# The disk of the machine that runs the tests decides about these.
ABOUT_THE_MACHINE = {"FaceidDiskLow", "FaceidDiskFull"}

# For two scrapes of everything, a second apart.
SCRAPED_SECONDS = 60

needs_prometheus = pytest.mark.skipif(not (PROMETHEUS and PROMTOOL), reason="prometheus is not installed")


@needs_prometheus
@pytest.mark.parametrize("command", ["check config prometheus.yml", "test rules alerts_test.yml"])
def test_promtool_accepts_the_files(command: str) -> None:
    done = subprocess.run(
        [PROMTOOL or "promtool", *command.split()], cwd=MONITORING, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested_raised_and_quiet_and_has_a_runbook() -> None:
    names = [rule["alert"] for rule in RULES]
    raised = {case["alertname"]: bool(case["exp_alerts"]) for test in TESTS for case in test["alert_rule_test"]}
    headings = re.findall(r"^### (\w+)$", (ROOT / "docs" / "monitoring.md").read_text(), re.MULTILINE)

    assert len(set(names)) == len(names) > 20
    # The quiet case of each alert is the second one.
    assert raised == dict.fromkeys(names, False)
    assert [test["name"] for test in TESTS] == [f"{name}{end}" for name in names for end in ("", " is quiet")]
    assert sorted(headings) == sorted(names)
    assert [rule["annotations"]["runbook"] for rule in RULES] == [
        f"docs/monitoring.md#{name.lower()}" for name in names
    ]
    assert {rule["labels"]["severity"] for rule in RULES} == {"critical", "warning"}


def test_dashboard_has_named_panels_of_the_provisioned_source() -> None:
    (source,) = yaml.safe_load((MONITORING / "grafana" / "datasources.yml").read_text())["datasources"]
    panels = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]

    assert {target["datasource"]["uid"] for panel in panels for target in panel["targets"]} == {source["uid"]}
    assert len({panel["title"] for panel in panels}) == len(panels) > 20


@asynccontextmanager
async def scraping(folder: Path, **ports: int) -> AsyncIterator[httpx.AsyncClient]:
    """Runs a Prometheus with the shipped files that scrapes these ports every second; yields a client of its API."""
    for job in CONFIGURATION["scrape_configs"]:
        (source,) = job.pop("dns_sd_configs")
        job["static_configs"] = [{"targets": [f"127.0.0.1:{ports[name]}" for name in source["names"]]}]
    CONFIGURATION["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(CONFIGURATION))
    shutil.copy(MONITORING / "alerts.yml", folder)
    port = free_ports(["prometheus"])["prometheus"]
    options = {
        "config.file": folder / "prometheus.yml",
        "storage.tsdb.path": folder / "tsdb",
        "web.listen-address": f"127.0.0.1:{port}",
    }
    command = [f"--{name}={value}" for name, value in options.items()]
    process = await asyncio.create_subprocess_exec(PROMETHEUS or "prometheus", *command, stdout=DEVNULL, stderr=DEVNULL)
    try:
        await until(lambda: answers("127.0.0.1", port))
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/api/v1", trust_env=False) as client:
            yield client
    finally:
        process.terminate()
        await process.wait()


async def results(prometheus: httpx.AsyncClient, query: str) -> list[Any]:
    answer = (await prometheus.get("/query", params={"query": query})).json()
    assert answer["status"] == "success", f"{query}: {answer}"
    found: list[Any] = answer["data"]["result"]
    return found


async def has_all(prometheus: httpx.AsyncClient, queries: set[str]) -> bool:
    """Removes the queries that have a result; returns whether none is left."""
    queries -= {query for query in queries if await results(prometheus, query)}
    return not queries


async def use(url: str, key: str, receiver_url: str) -> None:
    """Retrieves results, and delivers their events."""
    async with httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {key}"}, trust_env=False) as api:
        await api.post("/v1/webhook-endpoints", json={"url": receiver_url})
        for biz_token in (token("passed"), token("failed-2016"), token("http502-x1-passed")):
            await api.post("/v1/callbacks", json={"BizToken": biz_token})
            view = await api.get(f"/v1/verifications/{biz_token}", params={"wait": 20}, timeout=30)
            assert view.json()["state"] == "retrieved"


@needs_prometheus
async def test_every_query_and_rule_finds_its_metrics_in_a_running_service(
    tmp_path: Path, sqlite_template: Path, faceid: LiveSimulator
) -> None:
    settings = {
        "FACEID_ENDPOINT": faceid.url,
        "FACEID_RULE_ID": "1",
        "TENCENTCLOUD_SECRET_ID": DEMO_CREDENTIALS.secret_id,
        "TENCENTCLOUD_SECRET_KEY": DEMO_CREDENTIALS.secret_key,
        "WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",
    }
    (tmp_path / "data").mkdir(mode=0o700)
    shutil.copy(sqlite_template, tmp_path / "data/faceid-results.db")
    scopes = [f"--scope={scope}" for scope in ("callbacks:write", "results:read", "webhooks:manage")]
    key = json.loads(run("keys", "create", "test", *scopes, "--json", folder=tmp_path, **settings).out)["key"]
    port = free_ports(["metrics"])["metrics"]
    missing = {*QUERIES, *SELECTOR.findall(" ".join([*QUERIES, *(rule["expr"] for rule in RULES)]))} - ABSENT
    with (
        started("serve", "--port", "0", "--no-worker", folder=tmp_path, stdin=None, **settings) as serving,
        started("worker", "--metrics-port", str(port), folder=tmp_path, stdin=None, **settings),
    ):
        (url,) = re.findall(r"Serving on (\S+),", serving.until("/docs"))
        async with receiving() as receiver, scraping(tmp_path, api=int(url.rpartition(":")[2]), worker=port) as client:
            await use(url, key, receiver.url())
            with suppress(TimeoutError):
                async with asyncio.timeout(SCRAPED_SECONDS):
                    await until(lambda: has_all(client, missing))
            described = (await client.get("/metadata")).json()["data"].keys()
            for rule in RULES:
                await results(client, rule["expr"])
            states = (await client.get("/rules")).json()["data"]["groups"][0]["rules"]

    assert missing == set()
    used = set(METRIC.findall(" ".join([*QUERIES, *(rule["expr"] for rule in RULES)])))
    assert {re.sub("_(bucket|count)$", "", name) for name in used} <= described
    assert {state["name"]: state["lastError"] for state in states if "lastError" in state} == {}
    assert {state["name"] for state in states if state["state"] != "inactive"} <= ABOUT_THE_MACHINE
    assert [state["name"] for state in states] == [rule["alert"] for rule in RULES]
