"""`forebay load`: offer frames, search for the capacity, compare two runs, serve as an agent.

Exit codes: 0 ok, 2 usage, 3 an --assert does not hold, 4 the run is invalid, 5 no server. Also:
python -m forebay_server.loadtest.
"""

import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from forebay_server.loadtest.errors import ExitCode, LoadTestError, UsageError
from forebay_server.loadtest.help import REPORT, SEARCH, SectionedCommand, SectionedGroup
from forebay_server.loadtest.options import LoadOptions, seconds, with_load_options
from forebay_server.loadtest.process_tuning import tune_process

load_app = typer.Typer(
    name="load",
    cls=SectionedGroup,
    help="Offer frames to a server and measure what comes back, with intervals that can be trusted.",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,  # the completion of the forebay command covers these
)
_T = TypeVar("_T")
_JSON = Annotated[
    str | None,
    typer.Option(
        "--json", help="Write the JSON report here; - is standard output.", metavar="FILE", rich_help_panel=REPORT
    ),
]
_HTML = Annotated[
    str | None,
    typer.Option("--html", help="Write a self-contained HTML report here.", metavar="FILE", rich_help_panel=REPORT),
]
_MARKDOWN = Annotated[
    str | None,
    typer.Option("--markdown", help="Write a Markdown summary here.", metavar="FILE", rich_help_panel=REPORT),
]
_HGRM = Annotated[
    str | None,
    typer.Option("--hgrm", help="Write the latency distribution (.hgrm) here.", metavar="FILE", rich_help_panel=REPORT),
]
TRIAL = "20s"  # 10 blocks of a second for the interval of p99, and room for the warm-up
_ASSERT = Annotated[
    list[str] | None,
    typer.Option(
        "--assert",
        help="For example 'p99<50ms', 'lost=0', 'dropped<1%'; repeat.",
        metavar="CONDITION",
        rich_help_panel=REPORT,
    ),
]


@load_app.callback()
@with_load_options()
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
    """Offer frames to a server and report latency, goodput and the outcome of every frame."""
    if context.invoked_subcommand is not None:
        return

    async def run() -> int:
        from forebay_server.loadtest.measure import measure, parse_assertions, stopped_by_signals
        from forebay_server.loadtest.output import Outputs

        outputs = Outputs(json_path, html_path, markdown_path, hgrm_path)
        outputs.check()
        parsed = parse_assertions(assertions or [])
        with stopped_by_signals() as stop:
            document = await measure(
                options.job(),
                agents=tuple(options.agent or ()),
                assertions=parsed,
                good_within_ms=options.good_within_ms(),
                calibrate=options.calibrate,
                live=options.live,
                stop=stop,
            )
        outputs.write(document)
        return int(document["exit_code"])

    raise typer.Exit(run_to_exit_code(run()))


@load_app.command(cls=SectionedCommand)
@with_load_options(duration=TRIAL)
def search(
    *,
    options: LoadOptions,
    slo_p99: Annotated[
        str, typer.Option(help="p99 must stay within this, interval included.", metavar="TIME", rich_help_panel=SEARCH)
    ] = "100ms",
    max_dropped: Annotated[
        float, typer.Option(min=0, max=100, help="Per cent of frames that may go unanswered.", rich_help_panel=SEARCH)
    ] = 1.0,
    first: Annotated[
        float | None, typer.Option(help="Load to try first; default: --cameras, or --rate.", rich_help_panel=SEARCH)
    ] = None,
    lowest: Annotated[float, typer.Option(help="Never offer less.", rich_help_panel=SEARCH)] = 1.0,
    highest: Annotated[float, typer.Option(help="Never offer more.", rich_help_panel=SEARCH)] = 4096.0,
    resolution: Annotated[
        float, typer.Option(help="Stop when the ends differ by this share.", rich_help_panel=SEARCH)
    ] = 0.05,
    repeats: Annotated[int, typer.Option(min=1, help="How often the answer must pass.", rich_help_panel=SEARCH)] = 3,
    json_path: _JSON = None,
) -> None:
    """Find the most cameras, or frames per second with --rate, that keep the target."""

    async def run() -> int:
        from forebay_server.loadtest.capacity import search_capacity
        from forebay_server.loadtest.output import Outputs
        from forebay_server.loadtest.search import Bounds, Objective

        Outputs(json_path).check()
        is_whole = options.rate is None
        objective = Objective(p99_ms=seconds(slo_p99, "--slo-p99") * 1e3, dropped_share=max_dropped / 100)
        if not objective.p99_ms:
            raise UsageError(f"--slo-p99 is {slo_p99!r}, which no frame can keep; give a time above 0, such as 100ms")
        given = float(options.cameras) if options.rate is None else options.rate
        start = given if first is None else first
        bounds = Bounds(
            first=start,
            lowest=min(lowest, start),
            highest=highest,
            resolution=resolution,
            is_whole=is_whole,
            repeats=repeats,
        )
        return await search_capacity(options, objective, bounds, json_path)

    raise typer.Exit(run_to_exit_code(run()))


@load_app.command()
def compare(
    a: Annotated[Path, typer.Argument(help="JSON report of the run to compare with.")],
    b: Annotated[Path, typer.Argument(help="JSON report of the run to judge.")],
    *,
    json_path: _JSON = None,
) -> None:
    """Compare two reports: is B better, the same or worse? Exit code 3 if worse."""

    async def run() -> int:
        from forebay_server.loadtest.compare import Change, text
        from forebay_server.loadtest.compare import compare as compare_documents
        from forebay_server.loadtest.output import Outputs, read, write_json

        Outputs(json_path).check()
        comparison = compare_documents(read(a), read(b))
        write_json(json_path, comparison.to_dict(), text(comparison))
        return int(ExitCode.SLO_MISSED if comparison.verdict is Change.WORSE else ExitCode.OK)

    raise typer.Exit(run_to_exit_code(run()))


@load_app.command()
def agent(
    listen: Annotated[
        str, typer.Option(help="HOST:PORT; every process that reaches it can use it.")
    ] = "127.0.0.1:8091",
) -> None:
    """Offer frames for `forebay load --agent` on another host."""

    async def run() -> int:
        from forebay_server.loadtest.client.agents import serve_agent

        await serve_agent(listen)
        return 0

    raise typer.Exit(run_to_exit_code(run()))


def run_to_exit_code(command: Coroutine[Any, Any, int]) -> int:
    """Run a command on an event loop; errors meant for the user become one line and their exit code."""
    import asyncio

    tune_process()
    try:
        return asyncio.run(command)
    except LoadTestError as error:
        sys.stderr.write(f"forebay load: {error}\n")
        return int(error.exit_code)


def main() -> None:
    """Run `python -m forebay_server.loadtest`."""
    load_app(prog_name="forebay load")
