"""`forebay stream`: send the user's own videos through a server; JSON lines or a live view, boxes drawn into clips."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forebay_server.service.cli import exit_codes
from forebay_server.service.cli.health_check import given_or_own
from forebay_server.service.cli.restricted import Restricted, headers_or_exit

if TYPE_CHECKING:
    from forebay import Tls
    from forebay.client.keywords import StreamKeywords
    from forebay.client.options import Encoding, Masks


def stream(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE", help="videos, pictures, folders of pictures, devices such as 0, rtsp://..., or -"
        ),
    ],
    *,
    address: Annotated[
        str | None,
        typer.Option(
            help="host:port or unix:PATH, or several, with commas [FOREBAY_UDS, FOREBAY_ADDRESS, 127.0.0.1:8001]"
        ),
    ] = None,
    is_serving: Annotated[bool, typer.Option("--serve", help="start a server for this command")] = False,
    model: Annotated[str | None, typer.Option(help="name of the model [the server's only one, or detector]")] = None,
    camera: Annotated[
        list[str] | None, typer.Option(help="name of the stream, once for each source [the source's name]")
    ] = None,
    encoding: Annotated[str | None, typer.Option(help="bgr8 or jpeg [as the source has it]")] = None,
    delivery: Annotated[
        str | None, typer.Option(help="every, or latest: files at their own rate [every; latest for a device or a URL]")
    ] = None,
    budget_ms: Annotated[float | None, typer.Option(min=0, help="latency budget of a frame")] = None,
    threshold: Annotated[float | None, typer.Option(min=0, max=1, help="least score [the model's]")] = None,
    masks: Annotated[str | None, typer.Option(help="of a segmentation model: polygons or run_lengths [none]")] = None,
    track: Annotated[bool, typer.Option("--track", help="give objects ids that last")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="stop each source after this many frames")] = None,
    is_looping: Annotated[bool, typer.Option("--loop", help="begin files and folders again at their end")] = False,
    allow_picture: Annotated[
        bool, typer.Option("--allow-picture", help="the operator's page may show the latest frame")
    ] = False,
    transcode: Annotated[str, typer.Option(help="decode here: never, auto (where the server cannot), always")] = "auto",
    output: Annotated[
        Path | None, typer.Option(help="clip with boxes, one for each source: .mp4, .avi or .mkv")
    ] = None,
    is_json: Annotated[bool, typer.Option("--json", help="JSON lines also on a terminal")] = False,
    ca: Annotated[Path | None, typer.Option("--tls-ca", help="PEM file of the authority to trust")] = None,
    cert: Annotated[Path | None, typer.Option("--tls-cert", help="PEM file of the client's certificate")] = None,
    key: Annotated[Path | None, typer.Option("--tls-key", help="PEM file of its key")] = None,
    restricted_protocol: Restricted = None,
) -> None:
    """Send videos, pictures or live cameras through a server and show the detections.

    Each source is a camera of its own; one that fails leaves the others alone. One JSON line for each frame, each
    camera in order, or a live view on a terminal. Exit code: 66 if nothing can be read, 74 if a video is cut short
    or a camera stays away, 69 without a server, 65 without the model, 1 if frames were lost or failed, 130
    after Ctrl-C, 143 after SIGTERM; of several sources the first that failed decides.
    """
    import forebay

    headers = headers_or_exit("inference", restricted_protocol)
    forebay.tune_process()  # before the first import of grpc
    from forebay_server.service.cli.clip_writer import CannotWriteError
    from forebay_server.service.cli.stream_output import check_places, clips_for
    from forebay_server.service.cli.stream_plan import CameraPlan
    from forebay_server.service.cli.stream_session import StreamSession, run_session
    from forebay_server.service.cli.stream_sources import transcode_of

    try:
        names = _names(sources, camera, is_looping=is_looping)
        how = transcode_of(transcode, needs_pictures=output is not None or encoding is not None)
        keywords: StreamKeywords = {
            "model": model or "",
            "budget_ms": budget_ms,
            "score_threshold": threshold,
            "masks": _masks(masks),
            "track": track,
            "allow_picture": allow_picture,
            "headers": dict(headers),
        }
        plans = [
            CameraPlan(
                name=name,
                source=source,
                transcode=how,
                encoding=_encoding(encoding),
                delivery=_delivery(delivery),
                keywords=keywords,
                limit=limit,
                is_looping=is_looping,
                has_title=len(sources) > 1,
                has_model=model is not None,
            )
            for name, source in zip(names, sources, strict=True)
        ]
        clips = clips_for(output, names)
        check_places(clips, sources)
        session = StreamSession(
            cameras=list(zip(plans, clips, strict=True)),
            address=None if is_serving else given_or_own(address, os.environ),
            tls=_tls(ca, cert, key),
            model=model,
            headers=dict(headers),
            is_json=is_json,
        )
    except (ValueError, CannotWriteError) as error:
        typer.echo(f"forebay: {error}", err=True)
        is_usage = isinstance(error, ValueError)
        raise typer.Exit(exit_codes.USAGE if is_usage else exit_codes.CANNOT_WRITE) from None
    raise typer.Exit(run_session(session))


def _names(sources: Sequence[str], given: Sequence[str] | None, *, is_looping: bool) -> list[str]:
    """Return the cameras' names. Raises ValueError if the sources cannot be sent together."""
    from forebay_server.service.cli.packets import STANDARD_INPUT
    from forebay_server.service.cli.stream_sources import is_endless, names_of

    if "" in sources:
        raise ValueError("a source is empty: is a variable not set?")
    if sources.count(STANDARD_INPUT) > 1:
        raise ValueError("standard input (-) can be one source only")
    if is_looping and all(is_endless(source) for source in sources):
        raise ValueError("--loop is for files and folders: a device, a URL or standard input cannot begin again")
    if not given:
        return names_of(sources)
    if len(given) != len(sources):
        raise ValueError(
            f"--camera is given {len(given)} times for {len(sources)} sources: once for each, or not at all"
        )
    if len(set(given)) < len(given):
        raise ValueError("--camera: two sources have the same name")
    return list(given)


def _encoding(word: str | None) -> "Encoding | None":
    words: dict[str | None, Encoding | None] = {None: None, "bgr8": "bgr8", "jpeg": "jpeg"}
    if word not in words:
        raise ValueError(f"--encoding must be bgr8 or jpeg, not {word}")
    return words[word]


def _delivery(word: str | None) -> str | None:
    if word not in {None, "latest", "every"}:
        raise ValueError(f"--delivery must be latest or every, not {word}")
    return word


def _masks(form: str | None) -> "Masks | None":
    forms: dict[str | None, Masks | None] = {None: None, "polygons": "polygons", "run_lengths": "run_lengths"}
    if form not in forms:
        raise ValueError(f"--masks must be polygons or run_lengths, not {form}")
    return forms[form]


def _tls(ca: Path | None, cert: Path | None, key: Path | None) -> "Tls | None":
    """Return the files, read once: before a source is opened, or a server started. Raises ValueError."""
    import forebay
    from forebay.client.tls_files import read_files

    if ca is None and cert is None and key is None:
        return None
    tls = forebay.Tls(ca=ca, cert=cert, key=key)
    try:
        read_files(tls)
    except OSError as error:
        raise ValueError(f"cannot read {error.filename}: {error.strerror}") from None
    return tls
