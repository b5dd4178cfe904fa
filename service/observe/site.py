"""The admin port's answers: health, metrics, the trace, and the live page with its events.

Everything is read-only, and no answer contains a path or a secret. Only one answer has the content of a frame: /picture
exists only if the settings allow it, and answers for streams whose clients allow it too.
"""

from collections.abc import Callable, Iterable
from importlib import resources

from forebay_server.service.clock import Clock
from forebay_server.service.journal.events import Journal
from forebay_server.service.journal.statistics import VersionReport
from forebay_server.service.observe.admin import Answer, Download, Events, Handler, Page, Query
from forebay_server.service.observe.exposition import render
from forebay_server.service.observe.gauges import Gauges
from forebay_server.service.observe.gpus import Gpus
from forebay_server.service.observe.live import Feed, LiveState
from forebay_server.service.observe.metrics import CONTENT_TYPE
from forebay_server.service.observe.metrics import render as render_triton
from forebay_server.service.observe.observer import Observer
from forebay_server.service.observe.pictures import MAX_LOOKED_AT, MakeJpeg, Pictures, TooManyLooksError
from forebay_server.service.observe.spans import Tracing
from forebay_server.service.observe.timeline import MAX_SECONDS, trace_chunks

MAX_WATCHERS = 16
MAX_UID_DIGITS = 20
DEFAULT_TRACE_SECONDS = 5.0
RETRY = "retry: 1000\n\n"
_ASSETS = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/live.js": ("live.js", "text/javascript; charset=utf-8"),
    "/charts.js": ("charts.js", "text/javascript; charset=utf-8"),
    "/cameras.js": ("cameras.js", "text/javascript; charset=utf-8"),
    "/picture.js": ("picture.js", "text/javascript; charset=utf-8"),
    "/live.css": ("live.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}


class Site:
    """See the module. Thread: the observer's; made on any.

    Args:
        journal: the data path's records.
        gauges: current numbers of the parts.
        reports: counts of every version, for the nv_inference_* metrics.
        is_ready: whether the server takes streams.
        clock: source of monotonic nanoseconds.
        tracing: makes spans; None if no spans are wanted.
        make_jpeg: makes the pictures of the live page; None if the settings allow none.
        gpus: of the machine; None if their driver is not asked.
    """

    def __init__(
        self,
        journal: Journal,
        gauges: Gauges,
        reports: Callable[[], Iterable[VersionReport]],
        is_ready: Callable[[], bool],
        clock: Clock,
        tracing: Tracing | None = None,
        make_jpeg: MakeJpeg | None = None,
        gpus: Gpus | None = None,
    ) -> None:
        self.observer = Observer(journal, clock, tracing)
        self._pictures = None if make_jpeg is None else Pictures(make_jpeg, clock)
        self._gauges = gauges
        self._gpus = gpus
        self._reports = reports
        self._is_ready = is_ready
        self._clock = clock
        self._live = LiveState(self.observer, gauges, clock)
        self._feed = Feed(MAX_WATCHERS)

    def tick(self) -> None:
        """Process the records of the last second, and send a message to the page's readers."""
        self.observer.tick()
        self._live.sample()
        if self._pictures is not None:
            self._pictures.tick(lambda uid: self.observer.open_stream(uid) is not None)
        if self._feed.watchers:
            self._feed.publish(self._live.state())

    def close(self) -> None:
        """Process the remaining records and send the last spans.

        Blocks: for some seconds if no collector takes them.
        """
        if self.observer.tracing is not None:
            self.observer.tick()
            self.observer.tracing.close()

    def pages(self) -> dict[str, Handler]:
        """Return the answers by path."""
        return {
            "/metrics": self._metrics,
            "/healthz": lambda _: Page(200, "ok\n"),
            "/readyz": lambda _: Page(200, "ready\n") if self._is_ready() else Page(503, "not ready\n"),
            "/trace": self._trace,
            "/events": self._events,
            **({} if self._pictures is None else {"/picture": self._picture}),
            **{path: _asset(name, content_type) for path, (name, content_type) in _ASSETS.items()},
        }

    def _metrics(self, _: Query) -> Answer:
        self.observer.tick()
        text = render(self.observer, self._gauges, self._clock.now_ns())
        gpus = () if self._gpus is None else self._gpus.read()
        return Page(200, render_triton(self._reports(), gpus) + text, CONTENT_TYPE)

    def _trace(self, query: Query) -> Answer:
        try:
            seconds = float(query.get("seconds", DEFAULT_TRACE_SECONDS))
        except ValueError:
            seconds = 0.0
        if not 0 < seconds <= MAX_SECONDS:
            raise ValueError(f"seconds must be a number above 0, at most {MAX_SECONDS:g}")
        self.observer.tick()
        return Download(trace_chunks(self.observer, seconds, self._clock.now_ns()), "forebay-trace.json")

    def _picture(self, query: Query) -> Answer:
        """Answer with the latest picture of a stream that allows it: the only frame content on this port."""
        uid = query.get("stream", "")
        if not (uid.isascii() and uid.isdigit() and len(uid) <= MAX_UID_DIGITS):
            raise ValueError("stream must be the id of a stream, as /metrics and the page have it")
        record = self.observer.open_stream(int(uid))
        if record is None:
            return Page(404, "no open stream has this id\n")
        if record.picture is None or self._pictures is None:
            return Page(403, "the client of this stream does not allow pictures\n")
        try:
            return Page(200, self._pictures.look(record.uid, record.picture), "application/json")
        except TooManyLooksError:
            return Page(503, f"{MAX_LOOKED_AT} other streams are looked at; try again in some seconds\n")

    def _events(self, _: Query) -> Answer:
        self.observer.tick()
        state = self._feed.latest if self._feed.watchers else self._live.state()
        return Events(self._feed.subscribe(RETRY + self._live.history() + state))


def _asset(name: str, content_type: str) -> Handler:
    page = Page(
        200, resources.files("forebay_server.service.observe").joinpath("page", name).read_text("utf-8"), content_type
    )
    return lambda _: page
