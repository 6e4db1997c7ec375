"""The programs of docs/integrating.md, each run against the service. A language that is not installed is skipped."""

import asyncio
import json
import re
import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from app.cli.server import listen, serving, url_of
from app.domain.audit import AuditFilter
from app.main import create_app
from tests.support.api import token
from tests.support.service import Running, actor, everything, settings_for
from tests.support.simulator import LiveSimulator

PAGE = (Path(__file__).parents[1] / "docs" / "integrating.md").read_text()
GO_ENVIRONMENT = {"GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod", "GOPROXY": "off"}
LANGUAGES = {
    "python": ("client.py", [sys.executable]),
    "js": ("client.mjs", ["node"]),
    "java": ("FaceIdResults.java", ["java"]),
    "go": ("main.go", ["go", "run"]),
}


@dataclass(frozen=True)
class Served:
    """A service that listens."""

    service: Running
    url: str
    key: str


@pytest.fixture(scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory, faceid: LiveSimulator) -> AsyncIterator[Served]:
    """Yields a service, its address and an API key."""
    app = create_app(settings_for(tmp_path_factory.mktemp("integrating"), faceid.url))
    with listen("127.0.0.1", 0) as listener:
        async with serving(app, listener):
            service = Running(app)
            yield Served(service, url_of(listener), await service.key(*everything()))


@pytest.mark.parametrize("language", LANGUAGES)
async def test_program_of_the_page_gets_its_result(served: Served, tmp_path: Path, language: str) -> None:
    name, command = LANGUAGES[language]
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    program = re.search(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert program
    (tmp_path / name).write_text(program[1])
    biz_token = token()

    printed = await run([*command, str(tmp_path / name)], tmp_path, served, biz_token)

    if language == "java":
        result, identity = map(json.loads, printed)
        printed = [f"{result['state']} {result['outcome']} {str(result['provisional']).lower()}", identity["biz_token"]]
    assert [line.lower() for line in printed] == ["retrieved passed false", biz_token.lower()]
    audited = await served.service.services.audit.search(actor(), AuditFilter(), biz_token, limit=10, cursor=None)
    assert [record.purpose for record, _ in audited.records] == ["贷款审核"]


async def test_upgrade_with_a_body_is_rejected_instead_of_losing_the_body(served: Served) -> None:
    url = httpx.URL(served.url)
    body = b'{"subject_ref": "loan-4711"}'
    head = (
        f"PUT /v1/verifications/{token()} HTTP/1.1\r\nHost: {url.host}\r\nAuthorization: Bearer {served.key}\r\n"
        # As Java's client sends it without TLS.
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(head.encode() + body)
    status = await asyncio.wait_for(reader.readline(), 30)
    answer = await asyncio.wait_for(reader.readuntil(b"}"), 30)
    writer.close()

    assert status == b"HTTP/1.1 400 Bad Request\r\n"
    assert b'"code":"bad_request"' in answer
    assert b"without the header Upgrade" in answer


async def run(command: Sequence[str], folder: Path, served: Served, biz_token: str) -> Sequence[str]:
    """Returns the lines that a program prints."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "BIZ_TOKEN": biz_token}
    environment |= {"URL": served.url, "KEY": served.key}
    environment["LANG"] = "C.UTF-8"
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env=environment | GO_ENVIRONMENT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 120)
    assert (process.returncode, err.decode()) == (0, "")
    return out.decode().splitlines()
