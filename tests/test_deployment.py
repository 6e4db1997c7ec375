"""Checks of the container files that need no container engine."""

import asyncio
import os
import re
import stat
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from simulator.options import DEMO_CREDENTIALS
from tests.support.service import SETTING_NAMES

ROOT = Path(__file__).parents[1]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


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


def test_only_the_proxy_publishes_a_port_and_by_default_locally() -> None:
    assert {name: service["ports"] for name, service in SERVICES.items() if "ports" in service} == {
        "proxy": ["${LISTEN:-127.0.0.1:8000}:8080"]
    }


def test_api_takes_client_addresses_from_the_proxy() -> None:
    environment = SERVICES["api"]["environment"]
    proxied = re.findall(r"X-Forwarded-For (.*);", (ROOT / "deploy" / "nginx.conf").read_text())

    assert environment == COMPOSE["x-settings"] | {"FORWARDED_ALLOW_IPS": "*"}
    # The client's own header is not passed on.
    assert proxied == ["$remote_addr"]


def test_without_the_demo_only_proxy_and_worker_reach_the_outside() -> None:
    open_networks = {name for name, network in COMPOSE["networks"].items() if not network.get("internal")}
    reached = {name for name, service in SERVICES.items() if open_networks & set(service.get("networks", []))}
    assert reached - {name for name, service in SERVICES.items() if "profiles" in service} == {"proxy", "worker"}


def test_third_party_images_are_pinned_to_a_version() -> None:
    images = {service["image"] for service in SERVICES.values()} - {COMPOSE["x-image"]}
    assert [image for image in images if not re.fullmatch(r"[a-z/]+:[0-9][0-9a-z.-]+", image)] == []


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
    for name in ("tencentcloud_secret_id", "tencentcloud_secret_key", "redirect_page_url"):
        (tmp_path / "operator" / name).write_text(f"the operator's {name}\n")
    await _make_secrets(tmp_path)
    first = _contents(settings)
    await _make_secrets(tmp_path)
    assert _contents(settings) == first

    shared = {"aws_access_key_id", "aws_secret_access_key", "database_url", "redirect_page_url"}
    assert {name: set(files) for name, files in first.items()} == {
        "keyring": {"keyring.json"},
        "postgres": {"postgres_password", "faceid_password"},
        "objects": {"aws_access_key_id", "aws_secret_access_key"},
        "api": shared,
        "worker": shared | {"tencentcloud_secret_id", "tencentcloud_secret_key"},
    }
    password = first["postgres"]["faceid_password"]
    assert re.fullmatch(r"[0-9a-f]{48}", password)
    assert first["api"]["database_url"] == f"postgresql+asyncpg://faceid:{password}@postgres:5432/faceid"
    assert {stat.S_IMODE(file.stat().st_mode) for file in (settings / "worker").iterdir()} == {0o444}


async def test_worker_without_keys_gets_the_simulators_only_for_the_demo(tmp_path: Path) -> None:
    settings = _folders(tmp_path)
    await _make_secrets(tmp_path)
    without = _contents(settings)["worker"]
    await _make_secrets(tmp_path, "demo")
    assert _contents(settings)["worker"] == without | {
        "faceid_endpoint": "http://simulator:8100",
        "tencentcloud_secret_id": DEMO_CREDENTIALS.secret_id,
        "tencentcloud_secret_key": DEMO_CREDENTIALS.secret_key,
    }
    await _make_secrets(tmp_path)
    assert _contents(settings)["worker"] == without


async def test_demo_keeps_the_keys_of_an_operator(tmp_path: Path) -> None:
    settings = _folders(tmp_path)
    (tmp_path / "operator" / "tencentcloud_secret_id").write_text("the operator's")
    await _make_secrets(tmp_path)
    without = _contents(settings)
    await _make_secrets(tmp_path, "demo")
    assert _contents(settings) == without


def _folders(root: Path) -> Path:
    for name in ("operator", "settings/postgres", "settings/objects", "settings/api", "settings/worker"):
        (root / name).mkdir(parents=True)
    return root / "settings"


def _contents(settings: Path) -> dict[str, dict[str, str]]:
    return {folder.name: {file.name: file.read_text() for file in folder.iterdir()} for folder in settings.iterdir()}


async def _make_secrets(root: Path, *arguments: str) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {"ROOT": str(root), "PATH": path, "PYTHONPATH": str(ROOT)}
    script = str(ROOT / "deploy" / "make-secrets.sh")
    process = await asyncio.create_subprocess_exec("sh", script, *arguments, env=environment)
    assert await process.wait() == 0
