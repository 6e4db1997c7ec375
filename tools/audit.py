"""Reports known vulnerabilities from the answers of pip-audit, and the packages that no source could check.

`make audit` runs it. pip-audit succeeds if its source knows none of the packages, for example behind a mirror of PyPI
that has no advisories. This report counts a package as checked only if a source had an answer for it.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Audit:
    """The findings of all sources together."""

    checked: set[str] = field(default_factory=set)
    unchecked: set[str] = field(default_factory=set)
    vulnerable: set[str] = field(default_factory=set)

    def add(self, answer: str) -> None:
        """Adds the answer of one source. An empty or truncated answer is one of a source that was not reached."""
        try:
            packages: list[dict[str, Any]] = json.loads(answer)["dependencies"]
        except ValueError:
            return
        for package in packages:
            name = package["name"]
            if "skip_reason" in package:
                self.unchecked.add(name)
                continue
            self.checked.add(name)
            for known in package["vulns"]:
                fixed = ", ".join(known["fix_versions"]) or "no version"
                self.vulnerable.add(f"{name} {package['version']}: {known['id']}, fixed in {fixed}")

    def report(self) -> tuple[int, str]:
        """Returns the exit code and the text: 1 if a vulnerability is known, otherwise 0."""
        if not self.checked:
            return 0, "NOT CHECKED: no advisory source was reachable. Run `make audit` where PyPI or OSV is."
        lines = sorted(self.vulnerable)
        if unchecked := self.unchecked - self.checked:
            lines.append(f"NOT CHECKED, unknown to every source: {', '.join(sorted(unchecked))}.")
        lines.append(f"{len(self.checked)} packages were checked. Known vulnerabilities: {len(self.vulnerable)}.")
        return bool(self.vulnerable), "\n".join(lines)


def main(paths: Sequence[str]) -> int:
    """Prints the report of the files that exist, one for each source."""
    audit = Audit()
    for path in map(Path, paths):
        audit.add(path.read_text() if path.is_file() else "")
    code, text = audit.report()
    sys.stdout.write(f"{text}\n")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
