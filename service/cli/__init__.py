"""The command line: `forebay serve | demo | stream | load | bench | engine | ...`.

The topmost layer: only this package may import all others. It imports inside the commands, so that `--help` is quick
and the process is tuned before the first import of grpc.
"""

import importlib
import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from forebay_server.service.cli import exit_codes
from forebay_server.service.cli.config import config_app
from forebay_server.service.cli.demo import demo
from forebay_server.service.cli.doctor import doctor
from forebay_server.service.cli.health import health
from forebay_server.service.cli.serve import serve
from forebay_server.service.cli.standard_streams import OutputError, end_of_output, open_standard_streams
from forebay_server.service.cli.stream import stream
from forebay_server.service.cli.trace import trace
from forebay_server.service.tuning import GRPC_VERBOSITY
from forebay_server.service.version import VERSION

# Groups with commands of their own; a group is imported when it is called, so that the others start quickly.
GROUPS = {
    "load": (
        "forebay_server.loadtest.cli",
        "load_app",
        "Offer frames to a server and measure what comes back; search, compare.",
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
    "bench": ("forebay_server.bench.cli", "bench_app", "Run the benchmarks of docs/benchmarks.md; batching."),
}


class CommandLine(TyperGroup):
    """The commands of this package, and GROUPS, whose options the shell completion knows as well."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]  # typer's own subclass
        """Return the names in the order of the help."""
        names = super().list_commands(ctx)
        return [*names[:-1], *GROUPS, *names[-1:]]

    def get_command(self, ctx: typer.Context, cmd_name: str) -> Any:  # type: ignore[override]  # noqa: ANN401  # click's
        """Return a command; import it if it is a group."""
        if cmd_name not in GROUPS:
            return super().get_command(ctx, cmd_name)
        module, attribute, summary = GROUPS[cmd_name]
        group = typer.main.get_command(getattr(importlib.import_module(module), attribute))
        group.name, group.short_help = cmd_name, summary
        return group


app = typer.Typer(
    name="forebay",
    cls=CommandLine,
    help="gRPC streaming inference for live frames.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(serve)
app.command()(demo)
app.command()(stream)
app.command()(health)
app.command()(doctor)
app.command()(trace)
app.add_typer(config_app)


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


def main() -> None:
    """Run the command line. An error that a user can mend is one line and a documented exit code."""
    open_standard_streams()
    os.environ.setdefault("GRPC_VERBOSITY", GRPC_VERBOSITY)  # commands that call servers print none of gRPC's texts
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(exit_codes.INTERRUPTED)
    except OutputError as error:
        sys.exit(end_of_output(error))
