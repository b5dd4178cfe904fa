"""`forebay health` for typer: its help, its completion, its usage errors. `health_check` does the work."""

import os
from pathlib import Path
from typing import Annotated

import typer

from forebay_server.service.cli.health_check import LEAST_TIMEOUT_S, MOST_TIMEOUT_S, Question, report_health
from forebay_server.service.cli.restricted import Restricted


def health(
    *,
    address: Annotated[
        str | None,
        typer.Option(
            help="host:port or unix:PATH, or several, with commas [FOREBAY_UDS, FOREBAY_ADDRESS, 127.0.0.1:8001]"
        ),
    ] = None,
    model: Annotated[str, typer.Option(help="a model instead of the server")] = "",
    timeout_s: Annotated[float, typer.Option(min=LEAST_TIMEOUT_S, max=MOST_TIMEOUT_S, help="for everything")] = 2.0,
    tls_ca: Annotated[Path | None, typer.Option(help="PEM authorities, or the server's certificate itself")] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="PEM certificate to show")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="its private key")] = None,
    tls_name: Annotated[str | None, typer.Option(help="name in the server's certificate [the host]")] = None,
    restricted_protocol: Restricted = None,
    is_json: Annotated[bool, typer.Option("--json", help="print one JSON object and nothing else")] = False,
) -> None:
    """Ask a server, or several, whether one takes streams: 0 yes, 1 no or the call is refused, 69 none answers."""
    ca, cert, key = (None if path is None else os.fspath(path) for path in (tls_ca, tls_cert, tls_key))
    question = Question(address, model, timeout_s, ca, cert, key, tls_name, restricted_protocol, is_json)
    raise typer.Exit(report_health(question, os.environ))
