"""The command line: `forebay serve | demo | stream | load | bench | engine | ...`.

The topmost layer: it alone may import everything, and does so inside the commands, so that `--help` is quick and the
process is tuned before anything imports grpc.
"""

import sys
from typing import Annotated

import typer

from service.cli import exit_codes
from service.cli.demo import demo
from service.cli.serve import serve
from service.cli.stream import stream

app = typer.Typer(
    name="forebay",
    help="gRPC streaming inference for live frames.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(serve)
app.command()(demo)
app.command()(stream)


def _print_version(*, is_wanted: bool) -> None:
    if is_wanted:
        from importlib.metadata import version

        typer.echo(f"forebay {version('forebay')}")
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
    """Run the command line. Errors a user can mend are one line and a documented exit code."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(exit_codes.INTERRUPTED)
