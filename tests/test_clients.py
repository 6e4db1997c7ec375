"""Clients that public generators make from the API description, used against the running service.

`make test-clients` runs it: it installs the generators, each in an environment of its own, from PyPI and npm.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from simulator.options import DEMO_CREDENTIALS
from tests.support.command import run, started
from tests.support.operations import DOCUMENT, OPERATIONS
from tests.support.packages import do, environment_with, install
from tests.support.simulator import LiveSimulator

PYTHON_GENERATOR = "openapi-python-client==0.29.1"
JAVA_GENERATOR = "openapi-generator-cli==7.26.0"
TYPESCRIPT = ("openapi-typescript@7.13.0", "openapi-fetch@0.17.0", "typescript@5.9.3", "@types/node@20")
SCOPES = ("callbacks:write", "results:read")
EXPECTED = {
    "registered": "pending",
    "accepted": "pending",
    "outcome": "passed",
    "media": ["best_frame", "id_card_back", "id_card_front", "liveness_video"],
    "listed": True,
    "events": ["verification.retrieved"],
    "missing": [404, "not_found"],
    "forbidden": [403, "forbidden"],
}

USE_PYTHON = """
import json, os

from faceid_client import AuthenticatedClient
from faceid_client.api.callbacks import send_callback
from faceid_client.api.events import list_events
from faceid_client.api.verifications import get_identity, get_verification, list_verifications, register_verification
from faceid_client.models import Callback, Problem, State

client = AuthenticatedClient(base_url=os.environ["URL"], token=os.environ["KEY"])
registered = register_verification.sync("passed-python", client=client)
accepted = send_callback.sync(client=client, body=Callback(biz_token="passed-python", rule_id="1"))
view = get_verification.sync("passed-python", client=client, wait=20)
page = list_verifications.sync(client=client, state=[State.RETRIEVED], limit=10)
events = list_events.sync(client=client, biz_token="passed-python", wait=20)
missing = get_verification.sync("unknown", client=client)
forbidden = get_identity.sync("passed-python", client=client, x_purpose="test")
assert isinstance(missing, Problem) and isinstance(forbidden, Problem)
print(json.dumps({
    "registered": registered.state,
    "accepted": accepted.state,
    "outcome": view.outcome,
    "media": sorted(item.kind for item in view.media),
    "listed": "passed-python" in [item.biz_token for item in page.items],
    "events": [event.type_ for event in events.items],
    "missing": [missing.status, missing.code],
    "forbidden": [forbidden.status, forbidden.code],
}))
"""

USE_TYPESCRIPT = """
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

const client = createClient<paths>({
  baseUrl: process.env.URL,
  headers: { Authorization: `Bearer ${process.env.KEY}` },
});
const path = { biz_token: "passed-typescript" };
const registered = await client.PUT("/v1/verifications/{biz_token}", { params: { path } });
const accepted = await client.POST("/v1/callbacks", { body: { BizToken: path.biz_token, RuleId: "1" } });
const read = await client.GET("/v1/verifications/{biz_token}", { params: { path, query: { wait: 20 } } });
const list = await client.GET("/v1/verifications", { params: { query: { state: ["retrieved"], limit: 10 } } });
const events = await client.GET("/v1/events", { params: { query: { biz_token: path.biz_token, wait: 20 } } });
const missing = await client.GET("/v1/verifications/{biz_token}", { params: { path: { biz_token: "unknown" } } });
const forbidden = await client.GET("/v1/verifications/{biz_token}/identity", {
  params: { path, header: { "X-Purpose": "test" } },
});
const view: components["schemas"]["VerificationView"] = read.data!;
console.log(JSON.stringify({
  registered: registered.data!.state,
  accepted: accepted.data!.state,
  outcome: view.outcome,
  media: view.media.map((item) => item.kind).sort(),
  listed: list.data!.items.some((item) => item.biz_token === path.biz_token),
  events: events.data!.items.map((event) => event.type),
  missing: [missing.response.status, missing.error!.code],
  forbidden: [forbidden.response.status, forbidden.error!.code],
}));
"""

pytestmark = pytest.mark.skipif("TEST_CLIENTS" not in os.environ, reason="make test-clients needs package registries")


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "openapi.json"
    path.write_text(json.dumps(DOCUMENT))
    return path


@pytest.fixture
def access(tmp_path: Path, sqlite_template: Path, faceid: LiveSimulator) -> Iterator[Mapping[str, str]]:
    """Runs the service with a worker; yields its URL and a key."""
    settings = {
        "FACEID_ENDPOINT": faceid.url,
        "FACEID_RULE_ID": "1",
        "TENCENTCLOUD_SECRET_ID": DEMO_CREDENTIALS.secret_id,
        "TENCENTCLOUD_SECRET_KEY": DEMO_CREDENTIALS.secret_key,
    }
    (tmp_path / "data").mkdir(mode=0o700)
    shutil.copy(sqlite_template, tmp_path / "data/faceid-results.db")
    scopes = [f"--scope={scope}" for scope in SCOPES]
    key = json.loads(run("keys", "create", "test", *scopes, "--json", folder=tmp_path, **settings).out)["key"]
    with started("serve", "--port", "0", folder=tmp_path, stdin=None, **settings) as serving:
        (url,) = re.findall(r"Serving on (\S+),", serving.until("/docs"))
        yield {"URL": url, "KEY": key}


def test_python_client_is_generated_and_does_the_main_use_case(
    tmp_path: Path, document: Path, access: Mapping[str, str]
) -> None:
    programs = environment_with(PYTHON_GENERATOR, tmp_path)
    options = ("--path", document, "--output-path", "faceid_client", "--meta", "none", "--fail-on-warning")

    # Without its own folder in the path it warns that it cannot format the code.
    path = f"{programs}:{os.environ['PATH']}"
    do(programs / "openapi-python-client", "generate", *options, folder=tmp_path, PATH=path)

    assert json.loads(do(programs / "python", "-c", USE_PYTHON, folder=tmp_path, **access)) == EXPECTED


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_typescript_client_is_generated_and_does_the_main_use_case(
    tmp_path: Path, document: Path, access: Mapping[str, str]
) -> None:
    (tmp_path / "package.json").write_text('{"type": "module", "private": true}')
    install("npm", "install", "--no-audit", "--no-fund", "--silent", *TYPESCRIPT, folder=tmp_path)
    (tmp_path / "use.ts").write_text(USE_TYPESCRIPT)

    do("npx", "openapi-typescript", document, "--output", "schema.d.ts", folder=tmp_path)
    strict = ("--strict", "--target", "es2022", "--module", "nodenext", "--types", "node")
    do("npx", "tsc", *strict, "use.ts", folder=tmp_path)

    assert json.loads(do("node", "use.js", folder=tmp_path, **access)) == EXPECTED


@pytest.mark.skipif(shutil.which("java") is None, reason="java is not installed")
def test_java_client_is_generated_with_a_method_for_each_operation(tmp_path: Path, document: Path) -> None:
    programs = environment_with(JAVA_GENERATOR, tmp_path)
    options = ("-g", "java", "--library", "native", "-i", document, "-o", "java")

    do(programs / "openapi-generator-cli", "generate", *options, folder=tmp_path)

    code = "".join(file.read_text() for file in (tmp_path / "java/src/main").rglob("*Api.java"))
    ids = [DOCUMENT["paths"][path][method]["operationId"] for method, path in OPERATIONS]
    methods = [re.sub("_([a-z])", lambda found: found[1].upper(), name) for name in ids]
    assert [name for name in methods if f" {name}(" not in code] == []
