"""Checks of the container files that need no container engine."""

import asyncio
import json
import os
import re
import stat
import sys
import tomllib
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.cli.server import DRAIN_SECONDS
from app.config import KEEPALIVE_SECONDS
from app.sealing.keyring import KeyRing
from app.worker import GRACE_SECONDS
from simulator.options import DEMO_CREDENTIALS
from tests.support.service import SETTING_NAMES

ROOT = Path(__file__).parents[1]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
NGINX = (ROOT / "deploy" / "nginx.conf").read_text()
DEPLOYMENT = (ROOT / "docs" / "deployment.md").read_text()


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_confined_and_bounded(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert {"mem_limit", "pids_limit", "logging", "restart"} <= service.keys()


def test_only_the_secrets_task_has_a_capability_and_it_has_no_network() -> None:
    assert {name: service["cap_add"] for name, service in SERVICES.items() if "cap_add" in service} == {
        "secrets": ["DAC_OVERRIDE"]
    }
    assert SERVICES["secrets"]["network_mode"] == "none"


def test_only_the_proxy_and_the_monitoring_publish_ports_and_by_default_locally() -> None:
    assert {name: service["ports"] for name, service in SERVICES.items() if "ports" in service} == {
        "proxy": ["${LISTEN:-127.0.0.1:8000}:8080"],
        "prometheus": ["${PROMETHEUS_LISTEN:-127.0.0.1:9090}:9090"],
        "grafana": ["${GRAFANA_LISTEN:-127.0.0.1:3000}:3000"],
    }


def test_monitoring_has_a_network_of_its_own_and_a_generated_password() -> None:
    on_metrics = {name for name, service in SERVICES.items() if "metrics" in service.get("networks", [])}
    monitoring = {name for name, service in SERVICES.items() if service.get("profiles") == ["monitoring"]}
    port = SERVICES["worker"]["command"][-1]

    assert COMPOSE["networks"]["metrics"] == {"internal": True}
    assert monitoring == {"prometheus", "grafana"}
    assert on_metrics == {*monitoring, "api", "worker"}
    assert f"names: [worker], type: A, port: {port}" in (ROOT / "deploy/monitoring/prometheus.yml").read_text()
    assert SERVICES["grafana"]["environment"]["GF_SECURITY_ADMIN_PASSWORD__FILE"].startswith("/run/secrets/grafana_")


def test_api_takes_client_addresses_from_the_proxy() -> None:
    environment = SERVICES["api"]["environment"]
    proxied = re.findall(r"X-Forwarded-For (.*);", NGINX)

    assert environment == COMPOSE["x-settings"] | {"FORWARDED_ALLOW_IPS": "*"}
    # The client's own header is not passed on.
    assert proxied == ["$remote_addr"]


def test_without_the_demo_only_proxy_and_worker_reach_the_outside() -> None:
    open_networks = {name for name, network in COMPOSE["networks"].items() if not network.get("internal")}
    reached = {name for name, service in SERVICES.items() if open_networks & set(service.get("networks", []))}
    assert reached - {name for name, service in SERVICES.items() if "profiles" in service} == {"proxy", "worker"}


def test_services_stop_before_the_stores_that_they_use() -> None:
    # Services stop in the reverse order of their direct dependencies.
    stores = {"database": "postgres", "objects": "gate", "storage": "objects"}
    lasting = [name for name, service in SERVICES.items() if service["restart"] != "no" and name not in stores.values()]
    used = {name: {stores[net] for net in SERVICES[name].get("networks", []) if net in stores} for name in lasting}

    assert {name for name, needed in used.items() if needed} == {"api", "worker"}
    assert [name for name, needed in used.items() if needed - SERVICES[name].get("depends_on", {}).keys()] == []


def test_only_the_gate_reaches_the_object_store_and_forwards_its_s3_port() -> None:
    on_storage = {name for name, service in SERVICES.items() if "storage" in service.get("networks", [])}
    gate = (ROOT / "deploy" / "gate.conf").read_text()

    assert on_storage == {"gate", "objects"}
    assert [*SERVICES["objects"]["networks"]] == ["storage"]
    assert SERVICES["gate"]["networks"]["objects"] == {"aliases": ["objects"]}
    assert re.findall(r"(?:listen|set \$store) (.*);", gate) == ["8333", "http://store:8333"]
    # It stops after its clients, and before the store.
    assert "objects" in SERVICES["gate"]["depends_on"]


def test_proxy_and_api_stop_at_the_same_time() -> None:
    # The proxy waits for open answers, which the API gives when it stops.
    assert "depends_on" not in SERVICES["proxy"]
    assert "proxy" not in SERVICES["api"]["depends_on"]


def test_everything_stops_within_15_seconds() -> None:
    (proxy,) = re.findall(r"^worker_shutdown_timeout (\d+)s;", NGINX, re.MULTILINE)

    assert max(int(proxy), DRAIN_SECONDS, GRACE_SECONDS) <= 10
    assert DRAIN_SECONDS + GRACE_SECONDS < 15


def test_database_is_created_with_the_encoding_that_the_service_needs() -> None:
    script = (ROOT / "deploy" / "create-database.sql").read_text()

    assert re.findall("CREATE DATABASE .*", script) == [
        "CREATE DATABASE faceid OWNER faceid_owner ENCODING 'UTF8' TEMPLATE template0$$"
    ]


def test_only_the_migration_has_the_password_of_the_role_that_owns_the_tables() -> None:
    mounts = {name: service.get("volumes", []) for name, service in SERVICES.items()}

    assert [name for name, mounted in mounts.items() if any("migrate-secrets" in each for each in mounted)] == [
        "secrets",
        "migrate",
    ]


def test_tools_start_no_dependencies_that_could_change_secrets() -> None:
    assert [name for name, service in SERVICES.items() if service.get("profiles") == ["tools"]] == ["keyring"]
    assert "depends_on" not in SERVICES["keyring"]


def test_idle_connections_outlive_those_of_a_proxy_in_front() -> None:
    (to_clients,) = re.findall(r"\bkeepalive_timeout (\d+)s;", NGINX)
    (documented,) = re.findall(r"^ *keepalive_timeout (\d+)s;", DEPLOYMENT, re.MULTILINE)

    # Load balancers and nginx close an idle connection after 60 s by default.
    assert int(to_clients) == KEEPALIVE_SECONDS > int(documented) == 60


def test_third_party_images_are_pinned_to_a_version() -> None:
    images = {service["image"] for service in SERVICES.values()} - {COMPOSE["x-image"]}
    assert [
        image for image in images if not re.fullmatch(r"[a-z/]+:v?[0-9][0-9a-z.-]+(@sha256:[0-9a-f]{64})?", image)
    ] == []


def test_settings_in_the_compose_file_exist() -> None:
    assert {name.lower() for name in COMPOSE["x-settings"]} - SETTING_NAMES == set()


def test_image_is_built_from_all_packages_of_the_wheel() -> None:
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    copied = re.findall(r"^COPY (\w+) \1$", DOCKERFILE, re.MULTILINE)
    sent = re.findall(r"^!(\w+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)

    assert set(packages["packages"]) == set(copied) == set(sent)


def test_mounted_files_exist() -> None:
    mounted = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert [path for path in mounted if path.startswith("./") and not (ROOT / path).exists()] == []


def test_image_runs_as_a_numeric_user_and_builds_without_buildkit() -> None:
    users = re.findall(r"^USER (.*)", DOCKERFILE, re.MULTILINE)
    assert users == ["10001:10001"]
    assert re.findall(r"--mount|<<", DOCKERFILE) == []


async def test_passwords_are_made_once_and_services_see_only_their_own(tmp_path: Path) -> None:
    settings = _folders(tmp_path)
    for name in ("tencentcloud_secret_id", "tencentcloud_secret_key", "oidc_client_secret", "redirect_page_url"):
        (tmp_path / "operator" / name).write_text(f"the operator's {name}\n")
    await _make_secrets(tmp_path)
    first = _contents(settings)
    await _make_secrets(tmp_path)
    assert _contents(settings) == first

    keys = ("aws_access_key_id", "aws_secret_access_key")
    shared = {*keys, "database_url", "redirect_page_url"}
    assert {name: set(files) for name, files in first.items()} == {
        "keyring": {"keyring.json"},
        "grafana": {"grafana_admin_password"},
        "postgres": {"postgres_password", "owner_password", "faceid_password"},
        "objects": {*keys, *(f"reader_{name}" for name in keys), "s3.json"},
        "api": shared | {"oidc_client_secret"},
        "worker": shared | {"tencentcloud_secret_id", "tencentcloud_secret_key"},
        "migrate": {"database_url", "database_service_role"},
    }
    pairs = {name: [first[name][key] for key in keys] for name in ("api", "worker")}
    stored = {
        identity["name"]: ([*identity["credentials"][0].values()], identity["actions"])
        for identity in json.loads(first["objects"]["s3.json"])["identities"]
    }
    assert stored == {
        "worker": (pairs["worker"], ["Read:faceid-results", "List:faceid-results", "Write:faceid-results"]),
        "api": (pairs["api"], ["Read:faceid-results", "List:faceid-results"]),
    }
    assert len({*pairs["api"], *pairs["worker"]}) == 4
    owners = first["postgres"]["owner_password"]
    assert first["migrate"] == {
        "database_url": f"postgresql+asyncpg://faceid_owner:{owners}@postgres:5432/faceid",
        "database_service_role": "faceid",
    }
    password = first["postgres"]["faceid_password"]
    assert re.fullmatch(r"[0-9a-f]{48}", password)
    assert first["api"]["database_url"] == f"postgresql+asyncpg://faceid:{password}@postgres:5432/faceid"
    assert {stat.S_IMODE(file.stat().st_mode) for file in (settings / "worker").iterdir()} == {0o444}


@pytest.mark.parametrize(
    ("placed", "given"),
    [
        ({"database_url": "one"}, {"database_url": "one"}),
        (
            {"database_url": "one", "database_owner_url": "two", "database_service_role": "three"},
            {"database_url": "two", "database_service_role": "three"},
        ),
    ],
)
async def test_migration_uses_the_database_of_the_operator(
    tmp_path: Path, placed: dict[str, str], given: dict[str, str]
) -> None:
    settings = _folders(tmp_path)
    for name, content in placed.items():
        (tmp_path / "operator" / name).write_text(content)
    await _make_secrets(tmp_path)

    assert _contents(settings)["migrate"] == given
    assert {_contents(settings)[name]["database_url"] for name in ("api", "worker")} == {"one"}
    assert [name for name in ("api", "worker") if "database_owner_url" in _contents(settings)[name]] == []


async def test_worker_without_keys_gets_the_simulators_only_for_the_demo(tmp_path: Path) -> None:
    settings = _folders(tmp_path)
    await _make_secrets(tmp_path)
    without = _contents(settings)
    await _make_secrets(tmp_path, "demo")
    assert _contents(settings)["api"] == without["api"] | {"faceid_rule_id": "1"}
    assert _contents(settings)["worker"] == without["worker"] | {
        "faceid_rule_id": "1",
        "faceid_endpoint": "http://simulator:8100",
        "tencentcloud_secret_id": DEMO_CREDENTIALS.secret_id,
        "tencentcloud_secret_key": DEMO_CREDENTIALS.secret_key,
    }
    await _make_secrets(tmp_path)
    assert _contents(settings) == without


async def test_demo_does_not_run_with_the_keys_of_an_operator(tmp_path: Path) -> None:
    settings = _folders(tmp_path)
    (tmp_path / "operator" / "tencentcloud_secret_id").write_text("the operator's")
    await _make_secrets(tmp_path)
    without = _contents(settings)

    code, error = await _try_make_secrets(tmp_path, "demo")

    assert (code, error.partition(":")[0]) == (1, "The demo cannot run")
    assert _contents(settings) == without


async def test_key_ring_of_the_operator_is_used_at_the_first_start(tmp_path: Path) -> None:
    settings = _folders(tmp_path)
    KeyRing.create(tmp_path / "operator" / "keyring.json")
    await _make_secrets(tmp_path)
    first = _contents(settings)["keyring"]["keyring.json"]
    # Later rotations change only the key ring in use.
    (settings / "keyring" / "keyring.json").chmod(0o644)
    (settings / "keyring" / "keyring.json").write_text("rotated")
    await _make_secrets(tmp_path)

    assert first == (tmp_path / "operator" / "keyring.json").read_text()
    assert _contents(settings)["keyring"]["keyring.json"] == "rotated"


async def test_key_ring_placed_too_late_is_an_error(tmp_path: Path) -> None:
    settings = _folders(tmp_path)
    await _make_secrets(tmp_path)
    in_use = _contents(settings)
    KeyRing.create(tmp_path / "operator" / "keyring.json")

    code, error = await _try_make_secrets(tmp_path)

    assert (code, error.partition(":")[0]) == (1, "deploy/secrets/keyring.json is not the key ring in use")
    assert _contents(settings) == in_use


async def test_copy_of_the_key_ring_in_use_may_lie_with_the_secrets(tmp_path: Path) -> None:
    settings = _folders(tmp_path)
    await _make_secrets(tmp_path)
    (tmp_path / "operator" / "keyring.json").write_text(_contents(settings)["keyring"]["keyring.json"])
    await _make_secrets(tmp_path)
    (settings / "keyring" / "keyring.json").chmod(0o644)
    (settings / "keyring" / "keyring.json").write_text("rotated")

    await _make_secrets(tmp_path)


def _folders(root: Path) -> Path:
    for name in ("operator", "settings/postgres", "settings/objects", "settings/api", "settings/worker"):
        (root / name).mkdir(parents=True)
    return root / "settings"


def _contents(settings: Path) -> dict[str, dict[str, str]]:
    return {folder.name: {file.name: file.read_text() for file in folder.iterdir()} for folder in settings.iterdir()}


async def _make_secrets(root: Path, *arguments: str) -> None:
    assert await _try_make_secrets(root, *arguments) == (0, "")


async def _try_make_secrets(root: Path, *arguments: str) -> tuple[int | None, str]:
    """Runs the script; returns its exit code and what it wrote to standard error."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {"ROOT": str(root), "PATH": path, "PYTHONPATH": str(ROOT)}
    script = str(ROOT / "deploy" / "make-secrets.sh")
    process = await asyncio.create_subprocess_exec("sh", script, *arguments, env=environment, stderr=PIPE)
    _, error = await process.communicate()
    return process.returncode, error.decode()
