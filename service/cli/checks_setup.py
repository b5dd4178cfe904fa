"""The set-up checks of `forebay doctor`: settings, certificates, addresses, cache, traces, models, GPU.

The checks load models as `forebay serve` would and close them again: only a complete load finds a broken file.
"""

import importlib.util
import os
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from forebay_server.engines.extras import install_hint
from forebay_server.engines.pictures import PictureSupport
from forebay_server.service.cli.checks import Finding, Level
from forebay_server.service.request import Completion
from forebay_server.service.settings import (
    ServeSettings,
    SettingsError,
    default_cache_folder,
    is_loopback,
    load_settings,
    unknown_variables,
)


def load_or_explain(config: Path | None, environment: Mapping[str, str]) -> tuple[ServeSettings | None, list[Finding]]:
    """Return the settings, or None if they cannot be used, and the findings about them."""
    try:
        settings = load_settings({}, config, environment).values
    except SettingsError as error:
        remedy = "mend the setting; `forebay config schema` has types and ranges"
        return None, [Finding("settings", "fault", line, remedy) for line in str(error).splitlines()]
    strays = [
        Finding("settings", "warning", line, "mend the name, or unset it") for line in unknown_variables(environment)
    ]
    return settings, strays or [Finding("settings", "ok", "complete")]


def setup_findings(settings: ServeSettings, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Return the findings that depend on the settings."""
    yield _certificates(settings)
    yield _address(settings.address, is_shared=settings.share_port)
    yield from _admin(settings.admin_address)
    if settings.uds is not None:
        yield _unix_socket(settings.uds)
    yield _cache(settings.cache_folder or default_cache_folder(environment))
    if settings.trace_every_frames:
        yield _traces(environment)
    yield from _models(settings, environment)
    yield from _gpu(settings)


def _certificates(settings: ServeSettings) -> Finding:
    from forebay_server.service.frontend.tls import CertificateError, check_certificates

    if settings.tls_cert is None or settings.tls_key is None:
        level: Level = "warning" if settings.insecure else "ok"
        return Finding("tls", level, "off: plain text" + (", for every machine" if settings.insecure else ""))
    try:
        check_certificates(settings)
    except CertificateError as error:
        return Finding("tls", "fault", str(error), "see there")
    return Finding("tls", "ok", str(settings.tls_cert))


def _admin(address: str) -> Iterator[Finding]:
    if address and not is_loopback(address.rpartition(":")[0]):
        detail = f"{address}: every machine that reaches it reads the live page, without TLS and without a password"
        yield Finding("admin", "warning", detail, "listen on 127.0.0.1, behind a proxy that authenticates")


def _address(address: str, *, is_shared: bool) -> Finding:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(is_shared))
            probe.bind(target)
            probe.listen()
    except OSError as error:
        detail = f"{address}: {error.strerror or error}"
        remedy = "stop the process that listens there, or give another --address"
        return Finding("port", "fault", detail, f"{remedy}{_who_is_there(address)}")
    return Finding("port", "ok", f"{address} is free" + (", or shared" if is_shared else ""))


def _who_is_there(address: str) -> str:
    from forebay_server.service.cli.remote.health import HealthError, check_health

    try:
        status = check_health(address, "", 1.0)
    except HealthError:
        return ""
    return f" (a gRPC server answers there: {status})"


def _unix_socket(path: Path) -> Finding:
    if not path.exists():
        folder = next((parent for parent in path.parents if parent.exists()), Path())
        if os.access(folder, os.W_OK):
            return Finding("unix socket", "ok", f"{path} is free")
        return Finding("unix socket", "fault", f"{folder} may not be written", "choose another folder for --uds")
    if not path.is_socket():
        return Finding("unix socket", "fault", f"{path} is no socket", "remove it, or give another --uds")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        if probe.connect_ex(os.fspath(path)) == 0:
            return Finding("unix socket", "fault", f"a server answers at {path}", "stop it, or give another --uds")
    return Finding("unix socket", "ok", f"{path} is left over and will be replaced")


def _cache(folder: Path | None) -> Finding:
    if folder is None:
        return Finding("cache folder", "note", "none: costs are measured at every start", "set cache_folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return Finding(
            "cache folder", "warning", f"{folder}: {error.strerror}; every start takes longer", "set cache_folder"
        )
    return Finding("cache folder", "ok", str(folder))


class _NoSink:
    """A sink for completions, of which a trial of models has none."""

    def post(self, completions: Sequence[Completion]) -> None:
        """Drop them."""


def _traces(environment: Mapping[str, str]) -> Finding:
    missing = [name for name in ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.grpc") if not _is_there(name)]
    if missing:
        return Finding("traces", "fault", "OpenTelemetry is not installed", install_hint("otel"))
    endpoint = environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or environment.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    return Finding("traces", "ok", f"to {endpoint or 'localhost:4317, since OTEL_EXPORTER_OTLP_ENDPOINT is not set'}")


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its package is not there either
        return False


def _models(settings: ServeSettings, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Load every model and close it again."""
    from forebay_server.engines.errors import EngineError
    from forebay_server.service.clock import MonotonicClock
    from forebay_server.service.models.registry import ModelRegistry
    from forebay_server.service.models.repository import RepositoryError
    from forebay_server.service.models.version_context import VersionContext
    from forebay_server.service.pipeline.permits import Permits
    from forebay_server.service.worker_pool import WorkerPool

    pool = WorkerPool(1, lambda _: None)
    context = VersionContext(
        MonotonicClock(),
        pool,
        _NoSink(),
        Permits(settings.permits),
        lambda _: None,
        {"onnxruntime": {"intra_op_threads": str(settings.intra_op_threads)}},
        cache_folder=settings.cache_folder or default_cache_folder(environment),
    )
    registry = ModelRegistry(settings.model_repository, context)
    try:
        scan = registry.repository.scan()
        for problem in scan.problems:
            yield Finding("model", "fault", problem, "see there")
        for line in (*scan.passed_over, *(line for entry in scan.models for line in entry.passed_over)):
            yield Finding("model", "warning", line, "rename it, or move it out of the repository")
        for entry in scan.models:
            try:
                registry.load(entry)
            except (RepositoryError, EngineError) as error:
                yield Finding("model", "fault", str(error), "see there; docs/models.md")
            else:
                yield Finding("model", "ok", f"{entry.name} {', '.join(registry.versions()[entry.name])}")
        if not scan.models and not scan.problems:
            yield Finding("model", "warning", "the repository is empty", "put a model there: docs/models.md")
    except RepositoryError as error:
        yield Finding("model", "fault", str(error), "give --model-repository")
    finally:
        registry.close()
        pool.close()


def _gpu(settings: ServeSettings) -> Iterator[Finding]:
    from forebay_server.engines import open_device
    from forebay_server.engines.errors import EngineError
    from forebay_server.service.clock import MonotonicClock

    driver = Path("/proc/driver/nvidia/version").exists()
    tensorrt = next((f"TensorRT {version}" for version in map(_version, ("tensorrt", "tensorrt-cu12")) if version), "")
    try:
        device = open_device("cuda", clock=MonotonicClock())
    except (EngineError, OSError) as error:
        if driver:
            yield Finding("gpu", "warning", f"there is one, unused: {error}", install_hint("tensorrt"))
        else:
            yield Finding("gpu", "ok", "none: models run on CPU cores")
        return
    if tensorrt:
        yield Finding("gpu", "ok", f"{device.name}; {tensorrt}")
    else:
        yield Finding("gpu", "note", f"{device.name}; no TensorRT", f"{install_hint('tensorrt')} to serve plans")
    yield picture_finding(settings.image_decode, device.picture_support())
    device.close()


def picture_finding(choice: str, support: PictureSupport) -> Finding:
    """Return who decodes the JPEG frames of models on the GPU.

    Args:
        choice: `image_decode` of the settings.
        support: of the GPU.
    """
    if choice == "cpu":
        return Finding("jpeg", "ok", "decoded by the CPU, as image_decode says")
    if support.files:
        return Finding("jpeg", "ok", "decoded by the GPU, for models on it")
    level: Level = "fault" if choice == "gpu" else "note"
    return Finding("jpeg", level, f"decoded by the CPU: {support.reason}", "see there, or set image_decode cpu")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
