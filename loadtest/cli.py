"""`forebay load`: offer frames, search for the capacity, compare two runs, serve as an agent.

Exit codes: 0 ok, 2 usage, 3 an --assert does not hold, 4 the run is invalid, 5 no server. Also: python -m loadtest.
"""

import asyncio
import sys
from collections.abc import Coroutine
from typing import Annotated, Any, TypeVar

import typer

from loadtest.errors import LoadError
from loadtest.options import LoadOptions, with_load_options
from loadtest.output import Outputs
from loadtest.process_tuning import tune_process

load_app = typer.Typer(
    name="load",
    help="Offer frames to a server and measure what comes back, with intervals that can be trusted.",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
_T = TypeVar("_T")
_JSON = Annotated[str | None, typer.Option("--json", help="Write the JSON report here; - is standard output.")]
_HTML = Annotated[str | None, typer.Option("--html", help="Write a self-contained HTML report here.")]
_MARKDOWN = Annotated[str | None, typer.Option("--markdown", help="Write a Markdown summary here.")]
_HGRM = Annotated[str | None, typer.Option("--hgrm", help="Write the latency distribution (.hgrm) here.")]
_ASSERT = Annotated[
    list[str] | None, typer.Option("--assert", help="For example 'p99<50ms', 'lost=0', 'dropped<1%'; repeat.")
]


@load_app.callback()
@with_load_options
def load(
    context: typer.Context,
    *,
    options: LoadOptions,
    json_path: _JSON = None,
    html_path: _HTML = None,
    markdown_path: _MARKDOWN = None,
    hgrm_path: _HGRM = None,
    assertions: _ASSERT = None,
) -> None:
    """Offer frames to a server and report latency, goodput and what became of every frame."""
    if context.invoked_subcommand is not None:
        return
    outputs = Outputs(json_path, html_path, markdown_path, hgrm_path)

    async def run() -> int:
        from loadtest.measure import measure, parse_assertions

        outputs.check()
        parsed = parse_assertions(assertions or [])
        document = await measure(
            options.job(),
            agents=tuple(options.agent or ()),
            assertions=parsed,
            good_within_ms=options.good_within_ms(),
            calibrate=options.calibrate,
            live=options.live,
        )
        outputs.write(document)
        return int(document["exit_code"])

    raise typer.Exit(run_to_exit_code(run()))


@load_app.command()
def agent(
    listen: Annotated[str, typer.Option(help="HOST:PORT; anyone who reaches it can use it.")] = "127.0.0.1:8091",
) -> None:
    """Offer frames on behalf of `forebay load --agent HOST:PORT` on another host."""

    async def run() -> int:
        from loadtest.client.agents import serve_agent

        await serve_agent(listen)
        return 0

    raise typer.Exit(run_to_exit_code(run()))


def run_to_exit_code(command: Coroutine[Any, Any, int]) -> int:
    """Run a command on an event loop; errors meant for the user become one line and their exit code."""
    tune_process()
    try:
        return asyncio.run(command)
    except LoadError as error:
        sys.stderr.write(f"forebay load: {error}\n")
        return int(error.exit_code)


def main() -> None:
    """Run `python -m loadtest`."""
    load_app(prog_name="forebay load")
