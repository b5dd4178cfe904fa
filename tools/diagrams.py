"""Write the diagrams and tables of the documentation that come from the code.

A page of docs/ asks for one with a pair of comments; the text between them is replaced by `make diagrams`, and a meta
test fails when it is stale:

    <!-- generated: slot-states -->
    <!-- end generated -->
"""

import argparse
import re
from collections.abc import Callable
from pathlib import Path

from forebay_server.service.models.fields import FIELDS
from forebay_server.service.pipeline.slots import TRANSITIONS, SlotState
from forebay_server.service.settings import ServeSettings

ROOT = Path(__file__).resolve().parent.parent
MARKED = re.compile(
    r"(?P<open><!-- generated: (?P<name>[\w-]+) -->\n).*?(?P<close><!-- end generated -->)", flags=re.DOTALL
)


def slot_states() -> str:
    """Return the states of a slot as a mermaid diagram."""
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {SlotState.FREE.name}"]
    for state in SlotState:
        lines += [f"    {state.name} --> {after.name}" for after in SlotState if after in TRANSITIONS[state]]
    return "\n".join([*lines, "```", ""])


def settings() -> str:
    """Return the table of `forebay serve`'s settings."""
    prefix = ServeSettings.model_config.get("env_prefix", "")
    lines = ["| setting | environment | default | meaning |", "| --- | --- | --- | --- |"]
    for name, field in ServeSettings.model_fields.items():
        default = "" if field.default in (None, (), "") else f"`{_as_written(field.default)}`"
        lines.append(f"| `{name}` | `{prefix}{name.upper()}` | {default} | {field.description} |")
    return "\n".join([*lines, ""])


def _as_written(value: object) -> str:
    """Return a value as a file or a variable has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def exit_codes() -> str:
    """Return the table of exit codes, from the comments beside them."""
    text = (ROOT / "service" / "cli" / "exit_codes.py").read_text()
    codes = re.finditer(r"^(?P<name>\w+) = (?P<code>\d+)(?:  # (?P<meaning>.*))?$", text, flags=re.MULTILINE)
    rows = [f"| {match['code']} | {match['meaning'] or match['name'].lower()} |" for match in codes]
    return "\n".join(["| code | meaning |", "| ---: | --- |", *rows, ""])


def model_fields() -> str:
    """Return the table of all fields of config.pbtxt and their effects."""
    rows = [f"| {path} | {treatment.kind} | {treatment.text} |" for path, treatment in FIELDS.items()]
    return "\n".join(["| field | | |", "| --- | --- | --- |", *rows, ""])


FRAGMENTS: dict[str, Callable[[], str]] = {
    "slot-states": slot_states,
    "settings": settings,
    "exit-codes": exit_codes,
    "model-fields": model_fields,
}


def refresh(text: str) -> str:
    """Return a page with every marked part made anew. Raises KeyError for a name that is not in FRAGMENTS."""
    return MARKED.sub(lambda match: match["open"] + FRAGMENTS[match["name"]]() + match["close"], text)


def main() -> None:
    """Refresh every page of docs/ and the README."""
    argparse.ArgumentParser(prog="python -m tools.diagrams", description=__doc__).parse_args()
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        old = page.read_text()
        if (new := refresh(old)) != old:
            page.write_text(new)
            print(f"wrote {page.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
