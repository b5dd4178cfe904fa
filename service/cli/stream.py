"""`forebay stream`: send the user's own video through a server; JSON lines or a live view, boxes drawn into a clip."""

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from forebay_server.service.cli import exit_codes
from forebay_server.service.cli.health_check import address_of
from forebay_server.service.cli.restricted import Restricted, headers_or_exit

if TYPE_CHECKING:
    from forebay import Client, Stream, Tls
    from forebay.client.keywords import StreamKeywords
    from forebay.client.options import Masks
    from forebay_server.service.cli.stream_output import Output
    from forebay_server.service.cli.stream_sources import Transcode
    from forebay_server.service.cli.video import Picture, Source

DEFAULT_MODEL = "detector"
FILE_WINDOW = 4  # enough to keep a server busy; more would only hold more pictures in memory
CONNECT_TIMEOUT_S = 3.0  # a person waits
INTERRUPTED_CLOSE_S = 1.0
FAULTS = frozenset({"invalid", "failed"})  # statuses that say that a picture or the model is wrong


def stream(
    source: Annotated[str, typer.Argument(help="a video, a folder of pictures, a device such as 0, or rtsp://...")],
    *,
    address: Annotated[
        str | None,
        typer.Option(
            help="host:port or unix:PATH, or several, with commas [FOREBAY_UDS, FOREBAY_ADDRESS, 127.0.0.1:8001]"
        ),
    ] = None,
    is_serving: Annotated[bool, typer.Option("--serve", help="start a server for this command")] = False,
    model: Annotated[str | None, typer.Option(help="name of the model [the server's only one, or detector]")] = None,
    camera: Annotated[str | None, typer.Option(help="name of the stream [the source's name]")] = None,
    encoding: Annotated[str | None, typer.Option(help="bgr8 or jpeg [bgr8; jpeg for a folder]")] = None,
    delivery: Annotated[str | None, typer.Option(help="latest or every [every; latest for a device or a URL]")] = None,
    budget_ms: Annotated[float | None, typer.Option(min=0, help="latency budget of a frame")] = None,
    threshold: Annotated[float | None, typer.Option(min=0, max=1, help="least score [the model's]")] = None,
    masks: Annotated[str | None, typer.Option(help="of a segmentation model: polygons or run_lengths [none]")] = None,
    track: Annotated[bool, typer.Option("--track", help="give objects ids that last")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="stop after this many frames")] = None,
    allow_picture: Annotated[
        bool, typer.Option("--allow-picture", help="the operator's page may show the latest frame")
    ] = False,
    transcode: Annotated[str, typer.Option(help="decode here: never, auto (where the server cannot), always")] = "auto",
    output: Annotated[Path | None, typer.Option(help="clip with boxes: .mp4, .avi or .mkv")] = None,
    is_json: Annotated[bool, typer.Option("--json", help="JSON lines also on a terminal")] = False,
    ca: Annotated[Path | None, typer.Option("--tls-ca", help="PEM file of the authority to trust")] = None,
    cert: Annotated[Path | None, typer.Option("--tls-cert", help="PEM file of the client's certificate")] = None,
    key: Annotated[Path | None, typer.Option("--tls-key", help="PEM file of its key")] = None,
    restricted_protocol: Restricted = None,
) -> None:
    """Send a video, a folder of pictures or a live camera through a server and show the detections.

    One JSON line for each frame, in order, or a live view on a terminal. Exit code: 66 if nothing can be read, 74 if a
    video ends before its declared end or a camera stays away, 69 without a server, 65 without the model, 1 if frames
    were lost or failed, 130 after Ctrl-C.
    """
    import forebay

    headers = headers_or_exit("inference", restricted_protocol)
    forebay.tune_process()  # before the first import of grpc
    from forebay_server.service.cli.clip_writer import CannotWriteError
    from forebay_server.service.cli.server_process import ServerStartError
    from forebay_server.service.cli.stream_output import open_output
    from forebay_server.service.cli.stream_sources import open_frames, transcode_of
    from forebay_server.service.cli.video import SourceError

    def send(how: "Transcode") -> int:
        with contextlib.ExitStack() as stack:
            frames = stack.enter_context(open_frames(source, how))
            keywords = _keywords(frames, model, encoding, delivery, budget_ms, threshold)
            keywords["allow_picture"], keywords["headers"] = allow_picture, dict(headers)
            keywords["masks"], keywords["track"] = _masks(masks), track
            name = (camera or frames.info.name)[:64]
            sink = stack.enter_context(open_output(output, name, frames.info.fps, is_json=is_json))
            first = _first_of(frames)
            target = stack.enter_context(_started_server()) if is_serving else address or address_of(os.environ)
            limits = forebay.Reconnection(connect_timeout_s=CONNECT_TIMEOUT_S)
            client = stack.enter_context(forebay.Client(target, tls=_tls(ca, cert, key), reconnection=limits))
            keywords["model"] = model or _usual_model(client, dict(headers))
            return _Run(frames, first, sink, limit).carry(client, name, keywords)

    try:
        how = transcode_of(transcode, needs_pictures=output is not None or encoding is not None)
        code = _sent(send, how)
        if output is not None and output.exists():
            typer.echo(f"written: {output}", err=True)
    except SourceError as error:
        code = _fail(str(error), exit_codes.NO_INPUT)
    except ServerStartError as error:
        code = _fail(str(error), exit_codes.UNAVAILABLE)
    except forebay.ForebayError as error:
        code = _fail(*_explained(error, has_model=model is not None))
    except CannotWriteError as error:
        code = _fail(str(error), exit_codes.CANNOT_WRITE)
    except (ValueError, OSError) as error:
        code = _fail(str(error), exit_codes.USAGE)
    raise typer.Exit(code)


def _sent(send: "Callable[[Transcode], int]", how: "Transcode") -> int:
    """Send the source; decode it here if the server cannot, or not for this stream, and that is allowed."""
    import forebay

    try:
        return send(how)
    except forebay.StreamRefusedError as error:
        if error.code != "UNIMPLEMENTED" or how != "auto":
            raise
    return send("always")


class _Run:
    """One source through one stream, from this thread alone."""

    def __init__(self, source: "Source", first: "Picture", output: "Output", limit: int | None) -> None:
        self._source = source
        self._first = first
        self._output = output
        self._limit = limit
        self._in_flight: dict[int, tuple[int, Picture]] = {}  # seq -> frame; as many as the window and the queue hold
        self._by_status: Counter[str] = Counter()
        self._fault = ""  # the reason of the first frame that is wrong or failed
        self._is_interrupted = False

    def carry(self, client: "Client", name: str, keywords: "StreamKeywords") -> int:
        """Send every frame, show every result, and return the exit code."""
        from forebay_server.service.cli.stream_sources import keywords_for, payload_of

        stream = client.stream(name, **keywords_for(self._source, self._first, keywords))
        stream.open()  # so that a refusal comes before the first line
        is_jpeg = keywords.get("encoding") == "jpeg"
        try:
            for result in stream.map(payload_of(frame, is_jpeg=is_jpeg) for frame in self._pictures()):
                self._take(result)
        except KeyboardInterrupt:
            self._is_interrupted = True
            self._end(stream)
        finally:
            stream.abort()
        return self._code()

    def _pictures(self) -> "Iterator[Picture]":
        """Yield the frames; keep each for drawing until its result has come."""
        picture: Picture | None = self._first
        index = 0
        while picture is not None and (self._limit is None or index < self._limit):
            self._in_flight[index + 1] = (index, picture)  # the stream numbers its frames from 1
            yield picture
            index += 1
            picture = self._source.read() if self._limit is None or index < self._limit else None

    def _take(self, result: Any) -> None:  # noqa: ANN401 - forebay is imported late
        self._by_status[result.status.value] += 1
        if result.status.value in FAULTS:
            self._fault = self._fault or f"frame {result.seq} {result.status.value}: {result.message}"
        self._output.take(*self._in_flight.pop(result.seq), result)

    def _end(self, stream: "Stream") -> None:
        """After Ctrl-C: wait a moment for frames in flight, then end."""
        with contextlib.suppress(KeyboardInterrupt):
            stream.close(INTERRUPTED_CLOSE_S)
            for result in stream:
                self._take(result)

    def _code(self) -> int:
        counts = ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in self._by_status.items())
        typer.echo(f"{self._by_status.total()} frames: {counts or 'none answered'}", err=True)
        for text in self._source.skipped:
            typer.echo(f"forebay: skipped: {text}", err=True)
        if self._is_interrupted:
            return exit_codes.INTERRUPTED
        if self._by_status["unanswered"]:
            return _fail("frames were sent and not answered", exit_codes.FAILED)
        if self._fault:
            return _fail(self._fault, exit_codes.FAILED)
        if self._limit is None and self._source.shortfall:
            return _fail(f"{self._source.shortfall}; its frames were answered", exit_codes.INCOMPLETE)
        return exit_codes.OK


def _first_of(source: "Source") -> "Picture":
    from forebay_server.service.cli.video import SourceError

    picture = source.read()
    if picture is None:
        raise SourceError(f"{source.info.name} has no frames that can be read")
    return picture


def _keywords(
    source: "Source",
    model: str | None,
    encoding: str | None,
    delivery: str | None,
    budget_ms: float | None,
    threshold: float | None,
) -> "StreamKeywords":
    """Return the arguments for opening the stream; missing ones follow from the source. Raises ValueError."""
    if encoding not in {None, "bgr8", "jpeg"}:
        raise ValueError(f"--encoding must be bgr8 or jpeg, not {encoding}")
    if delivery not in {None, "latest", "every"}:
        raise ValueError(f"--delivery must be latest or every, not {delivery}")
    is_latest = delivery == "latest" or (delivery is None and source.info.is_live)
    return {
        "model": model or DEFAULT_MODEL,
        "encoding": "jpeg" if encoding == "jpeg" or (encoding is None and source.has_mixed_sizes) else "bgr8",
        "delivery": "latest" if is_latest else "every",
        "max_in_flight": 0 if is_latest else FILE_WINDOW,
        "budget_ms": budget_ms,
        "score_threshold": threshold,
    }


def _usual_model(client: "Client", headers: Mapping[str, str]) -> str:
    """Return the only model that a server has ready, or the bundled detector's name."""
    import forebay

    try:
        models = client.models(timeout_s=CONNECT_TIMEOUT_S, headers=headers)
    except forebay.CallRefusedError:  # the calls about models may be restricted
        return DEFAULT_MODEL
    ready = {model.name for model in models if model.is_ready}
    return ready.pop() if len(ready) == 1 else DEFAULT_MODEL


def _masks(form: str | None) -> "Masks | None":
    forms: dict[str | None, Masks | None] = {None: None, "polygons": "polygons", "run_lengths": "run_lengths"}
    if form not in forms:
        raise ValueError(f"--masks must be polygons or run_lengths, not {form}")
    return forms[form]


@contextlib.contextmanager
def _started_server() -> Iterator[str]:
    import asyncio

    from forebay_server.service.cli.server_process import running_server

    with asyncio.Runner() as runner:
        server = running_server()
        address = runner.run(server.__aenter__())
        try:
            yield address
        finally:
            runner.run(server.__aexit__(None, None, None))


def _tls(ca: Path | None, cert: Path | None, key: Path | None) -> "Tls | None":
    import forebay

    return None if ca is None and cert is None and key is None else forebay.Tls(ca=ca, cert=cert, key=key)


def _explained(error: Exception, *, has_model: bool) -> tuple[str, int]:
    import forebay

    if isinstance(error, forebay.UnreachableError):
        return f"{error}\n  start one with `forebay serve`, or add --serve", exit_codes.UNAVAILABLE
    if isinstance(error, forebay.StreamRefusedError) and error.code == "NOT_FOUND":
        return f"{error}{'' if has_model else ': name one with --model'}", exit_codes.MODEL
    return str(error), exit_codes.FAILED


def _fail(words: str, code: int) -> int:
    typer.echo(f"forebay: {words}", err=True)
    return code
