"""Collects the texts of the console into the Chinese catalogue, and compiles it. English needs no catalogue.

python -m tools.messages          after a change of a text or a translation
"""

import sys
from datetime import UTC, datetime
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

CONSOLE = Path(__file__).parents[1] / "app" / "console"
CATALOGUE = CONSOLE / "locale" / "zh" / "LC_MESSAGES" / "console.po"
COMPILED = CATALOGUE.with_suffix(".mo")
_METHODS = [("**.py", "python"), ("**/templates/**.html", "jinja2")]
_OPTIONS = {"**/templates/**.html": {"extensions": "jinja2.ext.do", "silent": "false"}}
_KEYWORDS = {"_": None, "plural": (1, 2)}
_WIDTH = 118


def texts() -> Catalog:
    """Returns the texts of all pages, without translations."""
    found = Catalog()
    for _, _, message, _, _ in extract_from_dir(CONSOLE, _METHODS, _OPTIONS, _KEYWORDS):
        found.add(message)
    return found


def read() -> Catalog:
    """Returns the catalogue as it is in its file."""
    with CATALOGUE.open("rb") as file:
        catalogue = read_po(file, locale="zh", domain="console")
    # Otherwise the compiled file would have the time of its compilation.
    catalogue.creation_date = catalogue.revision_date = datetime(2000, 1, 1, tzinfo=UTC)
    return catalogue


def problems(catalogue: Catalog) -> list[str]:
    """Returns what is wrong with a catalogue: missing, doubtful and superfluous texts, and lost placeholders."""
    wanted = {message.id for message in texts() if message.id}
    known = {message.id: message for message in catalogue if message.id}
    found = [f"missing: {text}" for text in wanted - set(known)]
    found += [f"superfluous: {text}" for text in set(known) - wanted]
    for message in known.values():
        strings = message.string if isinstance(message.string, tuple | list) else (message.string,)
        if not all(strings):
            found.append(f"not translated: {message.id}")
        if message.fuzzy:
            found.append(f"doubtful: {message.id}")
        found += [f"{error}: {message.id}" for error in message.check(catalogue)]
    return sorted(found)


def main() -> int:
    """Updates the catalogue and compiles it; returns the exit code, 1 if a text is not translated."""
    catalogue = read()
    catalogue.update(texts(), no_fuzzy_matching=True)
    catalogue.obsolete.clear()
    with CATALOGUE.open("wb") as file:
        write_po(
            file, catalogue, width=_WIDTH, sort_output=True, no_location=True, ignore_obsolete=True, omit_header=True
        )
    body = CATALOGUE.read_bytes()
    # Babel's own header has the times of the changes.
    CATALOGUE.write_bytes(_HEADER + body)
    with COMPILED.open("wb") as file:
        write_mo(file, read())
    for problem in problems(read()):
        sys.stdout.write(f"{problem}\n")
    return 1 if problems(read()) else 0


_HEADER = (
    b'msgid ""\nmsgstr ""\n"MIME-Version: 1.0\\n"\n"Content-Type: text/plain; charset=utf-8\\n"\n'
    b'"Content-Transfer-Encoding: 8bit\\n"\n"Plural-Forms: nplurals=1; plural=0;\\n"\n\n'
)


if __name__ == "__main__":
    sys.exit(main())
