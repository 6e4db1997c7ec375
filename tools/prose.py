"""Checks the writing rules of CONTRIBUTING.md in documentation, comments, docstrings and error texts.

Only rules that a pattern can decide are checked; reviewers check the others. Run it on files or folders:

    python -m tools.prose README.md docs app

Text between `<!-- prose: off -->` and `<!-- prose: on -->` is skipped.
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

MAX_SENTENCE_WORDS = 40
MAX_TAIL_WORDS = 5
MAX_TEST_NAME = 75

_SUFFIXES = {".conf", ".md", ".py", ".sh", ".sql", ".toml", ".yaml", ".yml"}
_NAMES = {"Dockerfile", "Makefile"}
# "Returns …", or a reference to another function. Help texts of commands and routes have their own form.
_VERB_FIRST = re.compile(r"(?!(?:As|Its|This|Whose|Always)\b)[A-Z][a-z-]+s\b|(?:Like|See) `|Used by ")
_OTHER_FORM = re.compile(r"property|command|callback|router|validator|exception_handler")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z`\"(*\[])|\n\s*\n")


@dataclass(frozen=True, slots=True)
class Rule:
    """A pattern, and what to write instead. Spaces in the pattern match line breaks as well."""

    number: int
    pattern: str
    advice: str

    def search(self, text: str) -> Iterator[re.Match[str]]:
        """Yields all matches in the text."""
        pattern = self.pattern.replace(" ", r"\s+")
        return re.finditer(pattern, text, re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Comment:
    """A comment, with its mark. A tail follows code on the same line."""

    line: int
    text: str
    is_tail: bool


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of prose that belongs together, and the line of the file where it begins."""

    line: int
    text: str


@dataclass(frozen=True, slots=True)
class Finding:
    """A place that breaks a rule."""

    path: Path
    line: int
    number: int
    text: str
    advice: str

    def __str__(self) -> str:
        return f'{self.path}:{self.line}: rule {self.number}: "{" ".join(self.text.split())}": {self.advice}'


RULES = [
    Rule(1, r"\b(?:whoever|whatever|whichever|whomever)\b", "name the noun"),
    Rule(1, r"(?:^|[.!] )(?-i:Who|What|Whose) [^.?!]*\.(?=\s|$)", "name the noun instead of a clause"),
    Rule(2, r", so that\b", 'write "so" or a new sentence for a consequence; "so that" without a comma for a purpose'),
    Rule(3, r"\bnone of (?:ours|theirs|its)\b|\bof which nobody\b|\bno such thing\b", "say what is true"),
    Rule(
        3,
        r"\b(?:nothing|none|nobody) but\b|\bnobody's\b|\bnot (?:un(?:like|common|usual)|without)\b",
        "say what is true",
    ),
    Rule(4, r"\b(?:tell|tells|told|telling)\b", "use report, show, register or name"),
    Rule(4, r"\b(?:take|takes|took|taken|taking) in\b", "use accept, register or store"),
    Rule(4, r"\b(?:give|gives|gave|given|giving) (?:out|away|back)\b", "use issue, return or release"),
    Rule(4, r"\b(?:look|looks|looked|looking) (?:after|at it)\b", "use monitor, check or poll"),
    Rule(4, r"\b(?:goes|go|went|gone|puts?) on record\b|\bis at it\b|\b(?:is|are|be) over\b", "use audit, run or end"),
    Rule(4, r"\b(?:stands?|stood) (?:for|in|against|once|under|below|beside|best)\b", "use is, belongs or protects"),
    Rule(6, r"\bin (?:place of|(?:its|their|his) place)\b|\binstead thereof\b", 'write "instead of"'),
    Rule(
        6,
        r"\b(?:outwith|besides|meanwhile|anew|thereof|whereof|henceforth)\b",
        "write outside, also, until then, again",
    ),
    Rule(10, r"\b(?:believes?|believed|forgets?|forgot|heeds?|hears?|thinks?|wishes)\b", "name what the code does"),
    Rule(10, r"\b(?:all )?by (?:itself|themselves)\b|\bfor company\b|\bof its own accord\b", "name what causes it"),
]


def check(path: Path) -> Iterator[Finding]:
    """Yields the findings in one file, in no particular order."""
    source = path.read_text()
    if path.suffix == ".md":
        blocks = list(_markdown(source))
    elif path.suffix == ".py":
        blocks = list(_python(source))
        yield from _check_python(path, source)
    else:
        blocks = list(_comments(_marked(source, "--" if path.suffix == ".sql" else "#")))
    for block in blocks:
        yield from _check_block(path, block)


def _check_block(path: Path, block: Block) -> Iterator[Finding]:
    for rule in RULES:
        for match in rule.search(block.text):
            line = block.line + block.text.count("\n", 0, match.start())
            yield Finding(path, line, rule.number, match[0], rule.advice)
    start = 0
    for sentence in _SENTENCE_END.split(block.text):
        start = block.text.index(sentence, start)
        line = block.line + block.text.count("\n", 0, start)
        if len(sentence.split()) > MAX_SENTENCE_WORDS:
            yield Finding(path, line, 5, sentence[:60], f"at most {MAX_SENTENCE_WORDS} words a sentence")
        if len(re.findall(r"\w: ", sentence)) > 1:
            yield Finding(path, line, 5, sentence[:60], "one colon a sentence")


def _check_python(path: Path, source: str) -> Iterator[Finding]:
    """Checks rules about the form of Python code: first lines of docstrings, inline comments, names of tests."""
    is_test = path.name.startswith("test_")
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if is_test and node.name.startswith("test_") and len(node.name) > MAX_TEST_NAME:
            yield Finding(path, node.lineno, 8, node.name, f"at most {MAX_TEST_NAME} characters")
        docstring = ast.get_docstring(node)
        has_other_form = is_test or any(_OTHER_FORM.search(ast.unparse(mark)) for mark in node.decorator_list)
        if docstring and not has_other_form and not _VERB_FIRST.match(docstring):
            yield Finding(path, node.body[0].lineno, 5, docstring[:60], 'begin with a verb, such as "Returns"')
    for token in _comment_tokens(source):
        words = token.string.lstrip("#").split()
        if _is_tail(token) and len(words) > MAX_TAIL_WORDS:
            yield Finding(path, token.start[0], 9, token.string, "move the comment above the line")


def _python(source: str) -> Iterator[Block]:
    """Yields the docstrings, comments and error texts of a module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield from _docstring(node.lineno, node.value.value)
        elif isinstance(node, ast.Raise):
            for part in ast.walk(node):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield Block(part.lineno, _without_code(part.value))
    yield from _comments(Comment(token.start[0], token.string, _is_tail(token)) for token in _comment_tokens(source))


def _docstring(begin: int, text: str) -> Iterator[Block]:
    """Yields the paragraphs of a docstring. Each line of an indented section or table is a block of its own."""
    first, *others = _without_code(text).splitlines()
    margin = min((len(line) - len(line.lstrip()) for line in others if line.strip()), default=0)
    paragraphs = [first]
    for number, line in enumerate((line[margin:] for line in others), begin + 1):
        is_section = line.startswith(" ") or re.search(r"^[A-Z]\w+:$|\S {2,}\S", line)
        if is_section:
            yield Block(number, re.sub(r"^\s+[\w*, ]+:\s", "", line).strip())
        paragraphs.append("" if is_section else line)
    yield Block(begin, "\n".join(paragraphs))


def _comment_tokens(source: str) -> Iterator[tokenize.TokenInfo]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return (token for token in tokens if token.type == tokenize.COMMENT)


def _is_tail(token: tokenize.TokenInfo) -> bool:
    return bool(token.line[: token.start[1]].strip())


def _marked(source: str, mark: str) -> Iterator[Comment]:
    """Yields the comments of a file that is not Python; a string that contains the mark may be among them."""
    for number, line in enumerate(source.splitlines(), 1):
        if match := re.search(rf"(?:^|\s){mark}.*", line):
            yield Comment(number, match[0].strip(), bool(line[: match.start()].strip()))


def _comments(comments: Iterable[Comment]) -> Iterator[Block]:
    """Yields blocks of comments. Whole lines that follow each other are one block."""
    blocks = list[list[Comment]]()
    for comment in comments:
        last = blocks[-1][-1] if blocks else None
        if last and not last.is_tail and not comment.is_tail and comment.line == last.line + 1:
            blocks[-1].append(comment)
        else:
            blocks.append([comment])
    for block in blocks:
        yield Block(block[0].line, _without_code("\n".join(comment.text.strip("#- ") for comment in block)))


def _markdown(source: str) -> Iterator[Block]:
    """Yields paragraphs, list items and table cells; skips code, headings and switched-off parts."""
    source = re.sub(r"<!-- prose: off -->.*?<!-- prose: on -->", _blank, source, flags=re.DOTALL)
    source = re.sub(r"^```.*?^```", _blank, source, flags=re.DOTALL | re.MULTILINE)
    source = re.sub(r"\]\([^)]*\)", "]", source)
    begin, texts = 1, list[str]()
    for number, line in enumerate(_without_code(source).splitlines(), 1):
        is_row, is_item = line.startswith("|"), re.match(r"\s*(?:[-*]|\d+\.) ", line)
        if texts and (is_row or is_item or not line.strip() or line.startswith("#")):
            yield Block(begin, "\n".join(texts))
            texts = []
        if is_row:
            yield from (Block(number, cell.strip()) for cell in line.split("|") if cell.strip())
        elif line.strip() and not line.startswith("#"):
            begin = number if not texts else begin
            texts.append(line[is_item.end() :] if is_item else line)
    if texts:
        yield Block(begin, "\n".join(texts))


def _without_code(text: str) -> str:
    return re.sub(r"`[^`\n]+`", "`x`", text)


def _blank(match: re.Match[str]) -> str:
    return "\n" * match[0].count("\n")


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        candidates = sorted(path.rglob("*")) if path.is_dir() else [path]
        yield from (file for file in candidates if file.suffix in _SUFFIXES or file.name in _NAMES)


def main(arguments: Sequence[str]) -> int:
    """Prints the findings; returns 1 if there are any."""
    findings = [finding for path in _files(map(Path, arguments)) for finding in check(path)]
    for finding in sorted(findings, key=lambda finding: (finding.path, finding.line, finding.number)):
        sys.stdout.write(f"{finding}\n")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
