"""Writes the generated parts of the pages: ``python docs/generate.py``.

``--check`` only says what would be written. ``--cost FILE`` takes over what ``python
tests/benchmarks --json FILE`` has measured: it is kept as ``docs/cost.json``, of which the table of
costs is made. What the proofs have found is in ``docs/proofs.json``, where their commands write it
with ``--record``.

Such a part stands between ``<!-- generated: NAME -->`` and ``<!-- end of NAME -->``, and so can be
read where a page is read as a file, too. A test runs this, and fails where anything would change.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable
from pathlib import Path

DOCS = Path(__file__).parent
SOURCE = DOCS.parent / "src"

sys.path[:0] = [str(SOURCE), str(DOCS)]

import costs  # noqa: E402
import proofs  # noqa: E402

from otel_concurrency import _adapters, environment_variables  # noqa: E402

AT_IMPORT = ("pure_python",)
"""Settings that are read when the library is imported."""


def settings() -> str:
    """Return one section for each environment variable, from its docstring in the code."""
    tree = ast.parse(Path(environment_variables.__file__).read_text(encoding="utf-8"))
    sections = []
    for name, text in zip(tree.body[1::2], tree.body[2::2], strict=True):
        variable = name.targets[0].id
        flag = variable.removeprefix("OTEL_PYTHON_").lower()
        keyword = flag.removeprefix("concurrency_") if "_" in flag else "policy"  # the short name
        given = "none" if keyword in AT_IMPORT else f"`{keyword}`"
        _, description, default = re.split(
            r"\.\. envvar:: \w+\n\n|\n\nDefault: ", ast.literal_eval(text.value).strip()
        )
        sections.append(
            f"### `{variable}`\n\n{description.replace('``', '`')}\n\n"
            "| | |\n| --- | --- |\n"
            f"| default | {' '.join(default.replace('``', '`').split()).rstrip('.')} |\n"
            f"| keyword of `instrument()` | {given} |\n"
            f"| flag of `opentelemetry-instrument` | `--{flag}` |"
        )
    return "\n\n".join(sections)


def tested(page: str) -> str:
    """Return the table of libraries with the versions that each adapter was tested with."""

    def row(found: re.Match[str]) -> str:
        first, last = _adapters.tested(found[1])
        versions = first if first == last else f"{first} to {last}"
        return f"| {found[1]} | {versions} |{found[2]}"

    names = "|".join(_adapters.ADAPTERS)
    return re.sub(rf"^\| ({names}) \|[^|]*\|(.*)$", row, page, flags=re.MULTILINE)


PARTS: dict[str, Callable[[str], str]] = {
    "settings": lambda _: settings(),
    "libraries": tested,
    "cost": lambda _: costs.table(),
    "proofs": lambda _: proofs.table(),
}
"""For each generated part, what makes it out of what stands there now."""


def generated(page: str) -> str:
    """Return a page's text with its generated parts made anew."""

    def part(found: re.Match[str]) -> str:
        return f"{found[1]}\n\n{PARTS[found[2]](found[3].strip())}\n\n{found[4]}"

    marks = re.compile(r"(<!-- generated: (\w+) -->)(.*?)(<!-- end of \2 -->)", re.DOTALL)
    return marks.sub(part, page)


def main() -> int:
    """Write the pages, or with ``--check`` name those that are not what they should be."""
    status = 0
    if "--cost" in sys.argv[1:]:
        costs.keep(Path(sys.argv[sys.argv.index("--cost") + 1]))
    for file in sorted(DOCS.glob("*.md")):
        before = file.read_text(encoding="utf-8")
        after = generated(before)
        if after != before:
            if "--check" in sys.argv[1:]:
                print(f"{file.name} is not what the code says: run python docs/generate.py")
                status = 1
            else:
                file.write_text(after, encoding="utf-8")
                print(f"{file.name}: written")
    return status


if __name__ == "__main__":
    sys.exit(main())
