"""The option for servers that require a header for some calls."""

from typing import Annotated

import typer

from forebay_server.service.cli import exit_codes
from forebay_server.service.restricted import Headers, headers_for

Restricted = Annotated[
    str | None,
    typer.Option(
        envvar="FOREBAY_RESTRICTED_PROTOCOL",
        metavar="CATEGORY:KEY=VALUE",
        help="as the server has it, if it restricts this call; the variable keeps the value out of the process list",
    ),
]


def headers_or_exit(category: str, text: str | None) -> Headers:
    """Return the headers for calls of a category; an invalid value is one line and exit code 2."""
    try:
        return headers_for(category, text)
    except ValueError as error:
        typer.echo(f"forebay: --restricted-protocol: {error}", err=True)
        raise typer.Exit(exit_codes.USAGE) from None
