"""The commands of `forebay`, each imported when it is called: `--help`, completion and a mistyped word import none.

Built with typer, which takes a tenth of a second of CPU to import; `forebay_server.service.cli.main` answers
`forebay health` without it.
"""

import importlib
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from forebay_server.service.cli.unknown_words import in_plain_words
from forebay_server.service.version import VERSION

# name: module, attribute (a function, or the typer.Typer of a group with commands of its own), line of the help
COMMANDS = {
    "serve": ("forebay_server.service.cli.serve", "serve", "Serve models."),
    "demo": (
        "forebay_server.service.cli.demo",
        "demo",
        "Start a server, play the bundled clip as several cameras, and draw the detections.",
    ),
    "stream": (
        "forebay_server.service.cli.stream",
        "stream",
        "Send videos, pictures or live cameras through a server and show the detections.",
    ),
    "health": ("forebay_server.service.cli.health", "health", "Ask a server, or several, whether one takes streams."),
    "doctor": (
        "forebay_server.service.cli.doctor",
        "doctor",
        "Look for causes that keep `forebay serve` from working, or from working well, here.",
    ),
    "trace": ("forebay_server.service.cli.trace", "trace", "Save the last seconds of the pipeline."),
    "load": (
        "forebay_server.loadtest.cli",
        "load_app",
        "Offer frames to a server and measure what comes back; search, compare.",
    ),
    "plan": (
        "forebay_server.service.cli.plan",
        "plan",
        "Say how many cameras fit on which machines, and at which latency.",
    ),
    "engine": (
        "forebay_server.service.cli.engine",
        "engine_app",
        "Build, quantize, inspect, verify and profile models.",
    ),
    "models": (
        "forebay_server.service.cli.models",
        "models_app",
        "List, load and unload models of a server; check a repository.",
    ),
    "streams": (
        "forebay_server.service.cli.streams",
        "streams_app",
        "List the open streams of servers; send some to other servers.",
    ),
    "bench": ("forebay_server.bench.cli", "bench_app", "Run the benchmarks of docs/benchmarks.md; batching."),
    "config": ("forebay_server.service.cli.config", "config_app", "Show the settings of `forebay serve`."),
}


class CommandLine(TyperGroup):
    """COMMANDS, whose options the shell completion knows as well."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]  # noqa: ARG002  # click's
        """Return the names in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: typer.Context, cmd_name: str) -> Any:  # type: ignore[override]  # noqa: ANN401, ARG002  # click's
        """Import a command and return it; None if there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute, summary = COMMANDS[cmd_name]
        found = getattr(importlib.import_module(module), attribute)
        command = typer.main.get_command(found if isinstance(found, typer.Typer) else _typer_of(found))
        command.name, command.short_help = cmd_name, summary
        return command

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]  # click's
        """Read the words before the command."""
        with in_plain_words(ctx):
            return list(super().parse_args(ctx, args))

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]  # noqa: ANN401  # click's
        """Read the other words, and run the command."""
        with in_plain_words(ctx):
            return super().invoke(ctx)

    def format_commands(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]  # noqa: ANN401, ARG002  # click's
        """Write the list of commands for `--help`, without importing one."""
        room = formatter.width - 6 - max(map(len, COMMANDS))
        with formatter.section("Commands"):
            formatter.write_dl([(name, _shortened(line, room)) for name, (_, _, line) in COMMANDS.items()])


def _typer_of(function: Any) -> typer.Typer:  # noqa: ANN401 - any command's function
    """Return the typer.Typer whose one command `function` is."""
    alone = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None, add_completion=False)
    alone.command()(function)
    return alone


def _shortened(line: str, room: int) -> str:
    """Return the first words of `line` that fit into `room` characters."""
    if len(line) <= room:
        return line
    return f"{line[: room - 3].rpartition(' ')[0]}..."


app = typer.Typer(
    name="forebay",
    cls=CommandLine,
    help="gRPC streaming inference for live frames.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(*, is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"forebay {VERSION}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=lambda value: _print_version(is_wanted=value), is_eager=True)
    ] = False,
) -> None:
    """GRPC streaming inference for live frames: batched across cameras, answered in order, judged by p99."""
