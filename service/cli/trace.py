"""`forebay trace`: the last seconds of a server's pipeline, as a file for Perfetto or chrome://tracing."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from forebay_server.service.cli import exit_codes

DEFAULT_ADMIN_ADDRESS = "127.0.0.1:8002"
TIMEOUT_S = 30.0


def trace(
    *,
    seconds: Annotated[float, typer.Option(min=0.01, max=60, help="how far back")] = 5.0,
    output: Annotated[Path, typer.Option("--output", "-o", help="file to write; -: standard output")] = Path(
        "trace.json"
    ),
    admin_address: Annotated[
        str | None, typer.Option(help="host:port of the server's admin port [FOREBAY_ADMIN_ADDRESS, 127.0.0.1:8002]")
    ] = None,
    is_json: Annotated[bool, typer.Option("--json", help="print one JSON object about what was written")] = False,
) -> None:
    """Save the last seconds of the pipeline; the server must have been started with --admin-address."""
    from http.client import HTTPException

    from forebay_server.loadtest.places import place_fault

    if str(output) != "-" and (problem := place_fault(output)):
        typer.echo(f"forebay: {problem}", err=True)
        raise typer.Exit(exit_codes.CANNOT_WRITE)
    where = admin_address or os.environ.get("FOREBAY_ADMIN_ADDRESS") or DEFAULT_ADMIN_ADDRESS
    try:
        content = fetch(where, f"/trace?seconds={seconds:g}")
        events = count_events(content)
    except (OSError, HTTPException, ValueError) as error:
        words = (error.strerror if isinstance(error, OSError) else None) or error
        typer.echo(f"forebay: no trace from {where}: {words}; give --admin-address, to the server and here", err=True)
        raise typer.Exit(exit_codes.UNAVAILABLE) from None
    if str(output) == "-":
        sys.stdout.buffer.write(content)
        return
    try:
        output.write_bytes(content)
    except OSError as error:
        typer.echo(f"forebay: cannot write {output}: {error.strerror}", err=True)
        raise typer.Exit(exit_codes.CANNOT_WRITE) from None
    if is_json:
        typer.echo(json.dumps({"path": str(output), "events": events, "bytes": len(content)}))
    else:
        typer.echo(f"{output}: {events} events; open it at https://ui.perfetto.dev or chrome://tracing")


def count_events(content: bytes) -> int:
    """Return the number of events in a trace. Raises ValueError: the trace is cut off, or invalid."""
    try:
        return len(json.loads(content)["traceEvents"])
    except (ValueError, KeyError, TypeError):
        raise ValueError("the answer is no whole trace") from None


def fetch(address: str, path: str) -> bytes:
    """Return the admin port's answer. Raises OSError, HTTPException or ValueError."""
    from http.client import OK, HTTPConnection

    host, _, port = address.rpartition(":")
    if not (host and port.isascii() and port.isdigit()):
        raise ValueError(f"{address!r} is not host:port")
    connection = HTTPConnection(host.strip("[]"), int(port), timeout=TIMEOUT_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
        if response.status != OK:
            raise ValueError(f"{response.status} {body[:200].decode('utf-8', 'replace').strip()}")
        return body
    finally:
        connection.close()
