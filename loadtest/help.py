"""`--help` in sections, because a single list of forty options is unreadable.

An option's section is its `rich_help_panel`.

Thread: any; keeps no state.
"""

from typing import Any

from typer.core import TyperCommand, TyperGroup

SEARCH, SERVER, LOAD, CLIENT, FRAMES, REPORT, GENERATOR = SECTIONS = (
    "Search",
    "Server",
    "Load",
    "Client and delivery",
    "Frames",
    "Report",
    "Generator",
)
OTHERS = "Options"
EXAMPLES = (
    "forebay load --cameras 2 --fps 5 --duration 60 --html report.html",
    "forebay load --rate 200 --shape 3x224x224 --protocol oip-stream --model resnet",
    "forebay load --cameras 4 --assert 'p99<100ms' --assert 'dropped<1%'",
    "forebay load search --fps 10 --slo-p99 100ms",
    "forebay load compare before.json after.json",
)
EXIT_CODES = "Exit codes: 0 OK or INCONCLUSIVE, 2 usage, 3 an --assert does not hold, 4 INVALID run, 5 no server."


def _write_sections(command: Any, context: Any, formatter: Any) -> None:  # noqa: ANN401  # click's, inside typer
    records: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None:
            records.setdefault(getattr(parameter, "rich_help_panel", None) or OTHERS, []).append(record)
    for section in (*SECTIONS, *(name for name in records if name not in SECTIONS)):
        if section in records:
            with formatter.section(section):
                formatter.write_dl(records[section])


def _write_examples(formatter: Any) -> None:  # noqa: ANN401  # click's, inside typer
    with formatter.section("Examples"):
        for line in EXAMPLES:
            formatter.write(f"  {line}\n")
    formatter.write(f"\n{EXIT_CODES}\n")


class SectionedCommand(TyperCommand):
    """A command whose options come in sections."""

    def format_options(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401  # click's, inside typer
        """Write the options."""
        _write_sections(self, ctx, formatter)


class SectionedGroup(TyperGroup):
    """A group whose options come in sections, then its commands and examples."""

    def format_options(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401  # click's, inside typer
        """Write options, commands and examples."""
        _write_sections(self, ctx, formatter)
        self.format_commands(ctx, formatter)
        _write_examples(formatter)
