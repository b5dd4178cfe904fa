"""`forebay streams`: list the open streams of running servers, and send some of them to other servers."""

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from forebay_server.service.cli import exit_codes
from forebay_server.service.cli.health_check import given_or_own
from forebay_server.service.cli.restricted import Restricted, headers_or_exit
from forebay_server.service.restricted import REFUSAL, how_to_mend

if TYPE_CHECKING:
    from forebay import Client, ForebayError, OpenStream, StreamList

Found = TypeVar("Found")

streams_app = typer.Typer(
    help="List the open streams of servers; send some to other servers.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
MOST_SHOWN = 64  # characters of a camera's name
SHOWN = {
    "movable": "yes",
    "leaving": "was asked",
    "stays": "not yet: came less than a minute ago",
    "local": "no: unix socket",
    "unspecified": "",
}

Addresses = Annotated[
    str | None,
    typer.Option(help="host:port or unix:PATH, or several, with commas [FOREBAY_UDS, FOREBAY_ADDRESS, 127.0.0.1:8001]"),
]
Address = Annotated[
    str | None, typer.Option(help="host:port or unix:PATH of one server [FOREBAY_UDS, FOREBAY_ADDRESS, 127.0.0.1:8001]")
]
Timeout = Annotated[float, typer.Option(min=0.1, max=3600, help="for everything")]
TlsCa = Annotated[Path | None, typer.Option(help="PEM authorities, or the server's certificate itself")]
TlsCert = Annotated[Path | None, typer.Option(help="PEM certificate to show")]
TlsKey = Annotated[Path | None, typer.Option(help="its private key")]
TlsName = Annotated[str | None, typer.Option(help="name in the server's certificate [the host]")]
Json = Annotated[bool, typer.Option("--json", help="print one JSON object and nothing else")]


@streams_app.command("list")
def list_streams(
    *,
    address: Addresses = None,
    timeout_s: Timeout = 5.0,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    tls_name: TlsName = None,
    restricted_protocol: Restricted = None,
    is_json: Json = False,
) -> None:
    """List the open streams of each server, in the order in which `move` asks them.

    LOAD is the share of one model instance's time that a stream's frames took in the last seconds. Exit code 69 if a
    server does not answer, 1 if one refuses; the others are listed.
    """
    headers = dict(headers_or_exit("streams", restricted_protocol))
    tls = (tls_ca, tls_cert, tls_key, tls_name)
    found = _asked(address, tls, lambda client: client.list_streams(timeout_s=timeout_s, headers=headers))
    if is_json:
        typer.echo(json.dumps({"servers": [_as_dict(each) for each in found]}))
    else:
        for line in _table([each for each in found if not each.error]):
            typer.echo(line)
    missing = [_words_of(each.error, f"{each.server}: ") for each in found if each.error is not None]
    for words, _ in missing:
        typer.echo(f"forebay: {words}", err=True)
    if missing:
        raise typer.Exit(max(code for _, code in missing))


@streams_app.command()
def move(
    *,
    count: Annotated[int, typer.Option(min=1, help="streams to send to other servers")],
    address: Address = None,
    timeout_s: Timeout = 5.0,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    tls_name: TlsName = None,
    restricted_protocol: Restricted = None,
    is_json: Json = False,
) -> None:
    """Have a server ask streams to go to other servers: the heaviest first, those with tracks or video last.

    A client or a proxy that knows no other server brings them back. No frame is lost. Exit code 1 if fewer were asked.
    """
    headers = dict(headers_or_exit("streams", restricted_protocol))
    tls = (tls_ca, tls_cert, tls_key, tls_name)
    _one_or_exit(address)
    asked = _asked(address, tls, lambda client: client.move_streams(count, timeout_s=timeout_s, headers=headers))
    if is_json:
        typer.echo(json.dumps({"asked": asked, "count": count}))
    elif asked < count:
        typer.echo(f"{asked} of {count} streams were asked; no other can move now: forebay streams list says why")
    else:
        typer.echo(f"{asked} {'stream was' if asked == 1 else 'streams were'} asked to go to other servers")
    if asked < count:
        raise typer.Exit(exit_codes.FAILED)


def _asked(
    address: str | None,
    tls: tuple[Path | None, Path | None, Path | None, str | None],
    ask: "Callable[[Client], Found]",
) -> Found:
    """Ask with a client; an error is one line and an exit code."""
    import forebay

    ca, cert, key, name = tls
    try:
        given = forebay.Tls(ca=ca, cert=cert, key=key, server_name=name) if any(tls) else None
        with forebay.Client(given_or_own(address, os.environ), tls=given) as client:
            return ask(client)
    except forebay.ForebayError as error:
        words, code = _words_of(error)
    except OSError as error:
        words, code = f"cannot read {error.filename}: {error.strerror}", exit_codes.USAGE
    except ValueError as error:
        words, code = str(error), exit_codes.USAGE
    typer.echo(f"forebay: {words}", err=True)
    raise typer.Exit(code)


def _words_of(error: "ForebayError", name: str = "") -> tuple[str, int]:
    """Return an error in words, and its exit code.

    Args:
        error: of a call.
        name: of the server, before words that do not have it.
    """
    import forebay

    words = str(error)
    if not isinstance(error, forebay.CallRefusedError):
        return words, exit_codes.UNAVAILABLE
    if REFUSAL in words:
        words = f"{words}: {how_to_mend('streams')}"
    elif error.code == "UNIMPLEMENTED":
        words = "the server has no call about streams: it is an older one, or none of Forebay's"
    return name + words, exit_codes.FAILED


def _as_dict(server: "StreamList") -> dict[str, object]:
    """Return the fields of a list for JSON; an error is its words."""
    fields = dataclasses.asdict(dataclasses.replace(server, error=None))
    return fields | {"error": None if server.error is None else str(server.error)}


def _one_or_exit(address: str | None) -> None:
    """End with one line if an address names several servers."""
    from forebay.addresses import parse_addresses

    with contextlib.suppress(ValueError):  # the client says it
        several = parse_addresses(address or "")[0][1:]
        if several:
            typer.echo(
                "forebay: --address names several servers, and streams leave one of them: give that one", err=True
            )
            raise typer.Exit(exit_codes.USAGE)


def _table(servers: "Sequence[StreamList]") -> list[str]:
    rows: list[tuple[str, ...]] = [("SERVER", "CAMERA", "MODEL", "LOAD", "AGE", "FRAMES", "CAN MOVE")]
    rows += [_row(server.server, each) for server in servers for each in server.streams]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    shown = ["  ".join(_cells(row, widths)).rstrip() for row in rows] if len(rows) > 1 else []
    return shown + [_total(server) for server in servers]


def _row(server: str, stream: "OpenStream") -> tuple[str, ...]:
    load, age, frames = f"{stream.load:.0%}", _age(stream.age_s), str(stream.frames)
    return server, _shown(stream.camera), stream.model, load, age, frames, _can(stream)


def _shown(name: str) -> str:
    """Return a name that a client has chosen, without characters that a terminal acts on."""
    return "".join(each if each.isprintable() else "?" for each in name[:MOST_SHOWN])


def _cells(row: tuple[str, ...], widths: list[int]) -> list[str]:
    numbers = range(3, 6)  # to the right
    return [
        cell.rjust(width) if index in numbers else cell.ljust(width)
        for index, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]


def _can(stream: "OpenStream") -> str:
    is_last = stream.has_state and stream.placement == "movable"
    return "last: it has tracks or video" if is_last else SHOWN[stream.placement]


def _age(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s" if minutes else f"{rest}s"


def _total(server: "StreamList") -> str:
    more = f", the first {len(server.streams)} are shown" if server.count > len(server.streams) else ""
    count = f"{server.count} open {'stream' if server.count == 1 else 'streams'}{more}"
    others = server.inference_streams
    also = f"; {others} of the Open Inference Protocol, which cannot be asked" if others else ""
    return f"{server.server}: {count}{also}"
