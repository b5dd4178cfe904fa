"""Sends the answers of completions over the links of the front-end processes that asked."""

from collections.abc import Sequence

from forebay_server.service.errors import ServiceError
from forebay_server.service.group import descriptors as wire
from forebay_server.service.group.front_end_link import FrontEndLink
from forebay_server.service.group.shared_frames import SharedArrays, SharedFrame
from forebay_server.service.request import Completion


class LinkSink:
    """Implements `service.request.CompletionSink`: sends the answers of completions over their links.

    Requests of one post that failed for the same reason share one error on the wire.
    """

    def post(self, completions: Sequence[Completion]) -> None:
        """Send answers. Thread: any. Blocks: no."""
        answers: dict[FrontEndLink, _Answers] = {}
        for completion in completions:
            frame = completion.request.frame
            if not isinstance(frame, SharedFrame | SharedArrays):
                continue  # a trial
            answer = answers.get(frame.link)
            if answer is None:
                answer = answers[frame.link] = _Answers()
            answer.add(frame.token, completion, frame.outputs_offset if isinstance(frame, SharedArrays) else 0)
        for link, answer in answers.items():
            link.answer(answer.tokens, answer.datagrams())


class _Answers:
    """The answers of one post for one link."""

    __slots__ = ("_errors", "_executed", "tokens")

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self._executed: list[bytes] = []
        self._errors: dict[tuple[type, str, int], tuple[ServiceError, list[bytes]]] = {}

    def add(self, token: int, completion: Completion, outputs_offset: int) -> None:
        record = wire.pack_answer(token, completion.batch_size, completion.request.timeline, outputs_offset)
        self.tokens.append(token)
        error = completion.error
        if error is None:
            self._executed.append(record)
            return
        same = (type(error), error.message, error.retry_after_ms)
        self._errors.setdefault(same, (error, []))[1].append(record)

    def datagrams(self) -> list[bytes]:
        found = list(wire.datagrams(self._executed))
        for error, records in self._errors.values():
            found.extend(wire.error_datagrams(error, records))
        return found
