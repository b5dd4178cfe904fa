"""Finds the version that serves a request's model name and version, with Triton's messages for missing ones."""

from collections.abc import Callable, Collection
from functools import partial
from typing import Protocol

import grpc

from forebay_server.service.errors import UnknownModelError
from forebay_server.service.frontend.admission import Admission
from forebay_server.service.frontend.open_inference.arrivals import refuse
from forebay_server.service.frontend.open_inference.checks import read_template
from forebay_server.service.frontend.open_inference.codec import Call, LocateRegion, fill
from forebay_server.service.frontend.open_inference.errors import InferenceError
from forebay_server.service.frontend.open_inference.schema import ModelSchema, schema_of
from forebay_server.service.frontend.open_inference.template import CallTemplate
from forebay_server.service.frontend.open_inference.wire import InferMessage
from forebay_server.service.journal.events import TraceContext
from forebay_server.service.models.served import FindModel, ServedVersion

KnownVersions = Callable[[str], Collection[str] | None]
MAX_VERSION = 2**63 - 1
MAX_SHOWN = 128
MAX_TEMPLATES = 1024  # of at most 4 KiB each


class RegionAccess(Protocol):
    """Access of requests to shared memory."""

    def reach(self, peer: str) -> LocateRegion:
        """Return a function that finds the ranges of one request of a peer. Thread: the event loop's."""
        ...


class ModelLookup:
    """Finds versions and checks requests against them.

    Args:
        find_model: name and version to a version that is ready.
        acquire: as find_model, and the version stays open until its `end_use`.
        known_versions: name to versions that are, were or will be ready; None for a model that never was.
        memory: shared memory of clients.
        admission: counts what is refused.
    """

    def __init__(
        self,
        find_model: FindModel,
        acquire: FindModel,
        known_versions: KnownVersions,
        memory: RegionAccess,
        admission: Admission,
    ) -> None:
        self.memory = memory
        self._find_model = find_model
        self._acquire = acquire
        self._known_versions = known_versions
        self._admission = admission
        self._templates: dict[tuple[bytes, int], CallTemplate] = {}

    def find(self, name: str, version: str) -> ServedVersion:
        """Return a version that is ready. Raises InferenceError."""
        return self._checked(self._find_model, name, version)

    def is_ready(self, name: str, version: str) -> bool:
        """Whether a version serves; False if it is unknown or not ready.

        Raises InferenceError for an invalid number.
        """
        try:
            self.find(name, version)
        except InferenceError as error:
            if error.code in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE):
                return False
            raise
        return True

    def is_known(self, name: str) -> bool:
        """Whether a model serves, served or was to."""
        return self._known_versions(name) is not None

    def _checked(self, find: FindModel, name: str, version: str) -> ServedVersion:
        if version:
            check_version(version)
        try:
            return find(name, version)
        except UnknownModelError:
            raise _not_there(name, version, self._known_versions(name)) from None

    def schema(self, name: str, version: str) -> ModelSchema:
        """Return the client's view of a version that is ready. Raises InferenceError."""
        return schema_of(self.find(name, version))

    def check(
        self, message: InferMessage, peer: str, received_ns: int, trace: TraceContext | None = None
    ) -> tuple[ServedVersion, Call]:
        """Return the version, which stays open until its `end_use`, and the checked call, until its `release`.

        Args:
            message: the request.
            peer: its sender.
            received_ns: time of reading; with `trace`, for counting it if it is refused.
            trace: trace context of its client.

        Raises:
            InferenceError, InvalidRequestError: the version is not kept open then.
        """
        key = None if message.key is None else (message.key, len(message.raws))
        template = None if key is None else self._templates.get(key)
        if template is None:
            name, number = message.request.model_name, message.request.model_version
        else:
            name, number = template.schema.name, template.version
        version = self._checked(self._acquire, name, number)
        try:
            schema = schema_of(version)
            if template is None or template.schema is not schema:
                template = read_template(message.request, len(message.raws), schema, message.contents)
                self._keep(key, template)
            call = fill(template, message, partial(self.memory.reach, peer))
        except BaseException as error:
            version.end_use()
            refuse(self._admission, version, received_ns, error, trace)
            raise
        return version, call

    def _keep(self, key: tuple[bytes, int] | None, template: CallTemplate) -> None:
        if key is None:
            return
        if len(self._templates) >= MAX_TEMPLATES:
            self._templates.clear()  # clients that come and go, or send another head each time
        self._templates[key] = template


def check_version(version: str) -> int:
    """Return a version's number. Raises InferenceError if it is invalid."""
    if version.isascii() and version.isdigit() and len(version) <= 19 and 0 < int(version) <= MAX_VERSION:
        return int(version)
    raise InferenceError(
        grpc.StatusCode.INVALID_ARGUMENT,
        f"failed to get model version from specified version string '{version[:MAX_SHOWN]}' (details: not a number), "
        "version should be an integral value > 0",
    )


def _not_there(name: str, version: str, known: Collection[str] | None) -> InferenceError:
    """Return the answer for a model or a version that does not serve."""
    code = grpc.StatusCode.NOT_FOUND
    if known is None:
        why = "is not found"
    elif not version:
        why = "has no available versions"
    elif version in known:
        code, why = grpc.StatusCode.UNAVAILABLE, f"version {version} is not at ready state"
    else:
        why = f"version {version} is not found"
    return InferenceError(code, f"Request for unknown model: '{name[:MAX_SHOWN]}' {why}")
