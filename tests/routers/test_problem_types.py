"""The page of error codes is complete, and equal to the documentation."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import httpx

from app.errors import ConfigurationError, ServiceError
from app.routers.problem_types import CODES

ROOT = Path(__file__).parents[2]
# HTTPException of FastAPI and Starlette: a body that cannot be read, and a method that a path does not support.
FROM_THE_FRAMEWORK = {"bad_request", "method_not_allowed"}


def error_classes(kind: type[ServiceError] = ServiceError) -> Iterator[type[ServiceError]]:
    """Yields the classes whose errors the HTTP API returns."""
    if kind is not ConfigurationError:
        yield kind
        for derived in kind.__subclasses__():
            yield from error_classes(derived)


def codes_in_the_source() -> Iterator[str]:
    """Yields the codes that single errors of the API have instead of the one of their class."""
    for path in (path for path in (ROOT / "app").rglob("*.py") if "console" not in path.parts):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            named = [word.value for word in node.keywords if word.arg == "code"]
            is_problem = isinstance(node.func, ast.Name) and node.func.id == "problem"
            named += node.args[1:2] if is_problem else []
            yield from (str(value.value) for value in named if isinstance(value, ast.Constant))
    yield from re.findall(r'"code":"(\w+)"', (ROOT / "deploy/nginx.conf").read_text())


def test_every_error_code_is_explained() -> None:
    of_classes = {kind.code for kind in error_classes()}

    assert {known.code for known in CODES} == FROM_THE_FRAMEWORK | of_classes | set(codes_in_the_source())
    assert len({known.code for known in CODES}) == len(CODES)


def test_explained_status_is_the_one_of_the_error() -> None:
    status = {known.code: known.status for known in CODES}

    assert [kind for kind in error_classes() if str(kind.status) not in status[kind.code]] == []


def test_documentation_has_the_same_table() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \| (.*) \|$", (ROOT / "docs/errors.md").read_text(), re.MULTILINE)

    assert rows == [(known.code, known.status, known.meaning, known.action) for known in CODES]


async def test_type_of_a_problem_leads_to_its_explanation(shared_api: httpx.AsyncClient) -> None:
    problem = (await shared_api.get("/v1/verifications/unknown")).json()
    page, _, anchor = problem["type"].partition("#")

    explained = await shared_api.get(page)

    assert (explained.status_code, explained.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert anchor == problem["code"] == "not_found"
    assert {f'id="{known.code}"' for known in CODES} <= set(re.findall(r'id="\w+"', explained.text))
