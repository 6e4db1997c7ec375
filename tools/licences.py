"""Lists the licences of everything that the service ships. `make licences` writes the list to docs/licences.md.

A package without a known licence, or with one that is not accepted, is an error.
"""

import re
import sys
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "licences.md"
# The parts of SPDX expressions. Each allows use in a product of another licence. MPL-2.0 binds its own files.
ACCEPTED = {"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MIT-0", "MPL-2.0", "PSF-2.0"}
# Packages whose metadata has no SPDX expression. The licence is the one of the file in the package or its repository.
STATED = {
    "aiosignal": "Apache-2.0",
    "aiosqlite": "MIT",
    "colorama": "BSD-3-Clause",
    "itsdangerous": "BSD-3-Clause",
    "jinja2": "BSD-3-Clause",
    "markdown-it-py": "MIT",
    "mdurl": "MIT",
    "multidict": "Apache-2.0",
    "obstore": "MIT",
    "shellingham": "ISC",
    "uvloop": "MIT OR Apache-2.0",
}
_REQUIREMENT = re.compile(r"^([a-z0-9-]+)(?:\[[^]]*\])?==(\S+)", re.MULTILINE)
_HEAD = """# Licences

`make licences` writes this page from `requirements.txt`, and a test compares both. Every requirement is shipped in the
image. None has a licence of the GPL family.

| package | version | licence (SPDX) |
|---|---|---|
"""
_TAIL = """| swagger-ui-dist, a copy | 5.35.0 | Apache-2.0 |

The copy of Swagger UI is in `app/routers/swagger_ui`. `swagger-ui-bundle.js.LICENSE.txt` beside it has the licences of
the libraries that it contains.

This list does not name the libraries within wheels of native code: for example OpenSSL in cryptography, libuv
in uvloop, and Rust crates in obstore and pydantic-core. The base image contains Debian and Python. Some of
Debian's programs are under the GPL. They are separate programs that the service does not link.
"""


def locked(text: str) -> dict[str, str]:
    """Returns the version of each package of a requirements file."""
    return dict(_REQUIREMENT.findall(text))


def licence_of(name: str) -> str:
    """Returns the SPDX expression of a package. Raises ValueError if it is unknown or not accepted."""
    expression = STATED.get(name)
    if not expression:
        try:
            about = metadata(name)
        except PackageNotFoundError:
            raise ValueError(f"{name} is not installed: add its licence to STATED.") from None
        expression = next((about[name] for name in ("License-Expression", "License") if name in about), "")
    if not expression or set(re.split(r" (?:AND|OR) ", expression)) - ACCEPTED:
        raise ValueError(
            f"{name} has no accepted licence: {expression[:80]!r}. Read it, then add it to STATED or ACCEPTED."
        )
    return expression


def page(requirements: str) -> str:
    """Returns the page for a requirements file."""
    rows = [f"| {name} | {version} | {licence_of(name)} |\n" for name, version in sorted(locked(requirements).items())]
    return _HEAD + "".join(rows) + _TAIL


if __name__ == "__main__":
    try:
        PAGE.write_text(page((ROOT / "requirements.txt").read_text()))
    except ValueError as error:
        sys.exit(str(error))
