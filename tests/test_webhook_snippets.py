"""The snippets of docs/webhooks.md: each accepts a message of the service, and rejects another body."""

import json
import re
import shutil
import subprocess
import sys
from base64 import b64encode
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.webhooks.signatures import new_secret, signed_headers

TEXT = (Path(__file__).parents[1] / "docs" / "webhooks.md").read_text()
BODY, OTHER = '{"type":"test","name":"张"}'.encode(), b'{"type":"test"}'
SECRET, EARLIER = new_secret(), new_secret()
NODE, JAVA = shutil.which("node"), shutil.which("java")
JAVA_MAIN = """
class Main {
    public static void main(String[] given) throws Exception {
        for (String body : new String[] {given[4], given[5]})
            System.out.println(WebhookVerifier.verify(
                given[0], given[1], given[2], given[3], Base64.getDecoder().decode(body)));
    }
}
"""
NODE_MAIN = """
const [secret, headers, ...bodies] = process.argv.slice(2);
for (const body of bodies) console.log(verify(secret, JSON.parse(headers), Buffer.from(body, "hex")));
"""


def headers() -> dict[str, str]:
    """Returns the headers of a message of now: receivers refuse one that is older than five minutes."""
    return dict(signed_headers([SECRET, EARLIER], "evt_1", datetime.now(UTC), BODY))


def snippet(language: str) -> str:
    match = re.search(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)
    assert match
    return match[1]


def run(*command: str) -> list[str]:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()


@pytest.mark.parametrize(
    ("body", "printed"), [(BODY, ["test"]), (OTHER, ["WebhookVerificationError"])], ids=["signed", "other"]
)
def test_python_snippet_verifies(body: bytes, printed: list[str]) -> None:
    script = f"secret, headers, body = {SECRET!r}, {headers()!r}, {body!r}\n{snippet('python')}print(event['type'])"
    caught = f"try: exec({script!r})\nexcept Exception as error: print(type(error).__name__)"

    assert run(sys.executable, "-c", caught) == printed


@pytest.mark.skipif(NODE is None, reason="Node is not installed.")
@pytest.mark.parametrize("secret", [SECRET, EARLIER], ids=["newest", "earlier"])
def test_node_snippet_verifies(tmp_path: Path, secret: str) -> None:
    path = tmp_path / "verify.mjs"
    path.write_text(snippet("js") + NODE_MAIN)

    assert run(str(NODE), str(path), secret, json.dumps(headers()), BODY.hex(), OTHER.hex()) == ["true", "false"]


@pytest.mark.skipif(JAVA is None, reason="Java is not installed.")
def test_java_snippet_verifies(tmp_path: Path) -> None:
    imports, code = snippet("java").split("class WebhookVerifier", 1)
    path = tmp_path / "Main.java"
    path.write_text(f"{imports}{JAVA_MAIN}class WebhookVerifier{code}")
    bodies = [b64encode(body).decode() for body in (BODY, OTHER)]

    assert run(str(JAVA), str(path), SECRET, *headers().values(), *bodies) == ["true", "false"]
