"""`forebay health`: reports as an exit code whether a server takes streams. The containers' health check."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from forebay_server.service.cli import exit_codes
from forebay_server.service.cli.restricted import Restricted, headers_or_exit

DEFAULT_ADDRESS = "127.0.0.1:8001"


def health(
    *,
    address: Annotated[
        str | None, typer.Option(help="host:port or unix:PATH [FOREBAY_UDS, FOREBAY_ADDRESS, 127.0.0.1:8001]")
    ] = None,
    model: Annotated[str, typer.Option(help="a model instead of the server")] = "",
    timeout_s: Annotated[float, typer.Option(min=0.1, max=60, help="for everything")] = 2.0,
    tls_ca: Annotated[Path | None, typer.Option(help="PEM authorities, or the server's certificate itself")] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="PEM certificate to show")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="its private key")] = None,
    tls_name: Annotated[str | None, typer.Option(help="name in the server's certificate [the host]")] = None,
    restricted_protocol: Restricted = None,
    is_json: Annotated[bool, typer.Option("--json", help="print one JSON object and nothing else")] = False,
) -> None:
    """Ask a server whether it takes streams: 0 yes, 1 no or the call is refused, 69 no server answers."""
    from forebay_server.service.cli.remote.health import HealthError, TlsFiles, check_health

    where = address or address_of(os.environ)
    if (tls_cert is None) != (tls_key is None):
        typer.echo("forebay: --tls-cert and --tls-key belong together; give both or none", err=True)
        raise typer.Exit(exit_codes.USAGE)
    has_tls = any(option is not None for option in (tls_ca, tls_cert, tls_name))
    tls = TlsFiles(tls_ca, tls_cert, tls_key, tls_name) if has_tls else None
    headers = headers_or_exit("health", restricted_protocol)
    is_refusal = False
    try:
        status, problem = check_health(where, model, timeout_s, tls, headers), None
    except HealthError as error:
        status, problem, is_refusal = None, str(error), error.is_refusal
    if is_json:
        typer.echo(json.dumps({"address": where, "model": model, "status": status, "error": problem}))
    elif problem is None:
        typer.echo(status)
    else:
        typer.echo(f"forebay: {where} {'refuses' if is_refusal else 'does not answer'}: {problem}", err=True)
    if problem is not None and not is_refusal:
        raise typer.Exit(exit_codes.UNAVAILABLE)
    raise typer.Exit(exit_codes.OK if status == "SERVING" else exit_codes.FAILED)


def address_of(environment: Mapping[str, str]) -> str:
    """Return the address of a server with these settings, as seen from this machine."""
    if uds := environment.get("FOREBAY_UDS"):
        return f"unix:{uds}"
    host, _, port = environment.get("FOREBAY_ADDRESS", DEFAULT_ADDRESS).rpartition(":")
    return f"{ {'0.0.0.0': '127.0.0.1', '[::]': '[::1]'}.get(host, host) }:{port}"  # noqa: S104 - not for listening
