"""Imports of the tests: modules share helper functions in `tests/support`, and never those of a test module."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Names in parentheses may be on several lines.
IMPORT = re.compile(r"^ *(?:from|import) [^(\n]*(?:\([^)]*\))?", re.MULTILINE)


def test_no_module_imports_a_test_module() -> None:
    modules = [path for folder in ("tests", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    imports = {str(path.relative_to(ROOT)): IMPORT.findall(path.read_text()) for path in modules}

    assert [(path, line) for path, lines in imports.items() for line in lines if re.search(r"\btest_", line)] == []
