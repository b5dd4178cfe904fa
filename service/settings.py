"""Every setting of `forebay serve`: name with unit, default, range, meaning. No other module reads the environment.

Precedence: flags, then environment (`FOREBAY_...`), then the TOML file, then the defaults here. An unknown key is an
error that names the nearest known one.
"""

import difflib
import ipaddress
import json
import os
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from forebay.near_files import near_file
from forebay_server.service.restricted import read_restrictions, split_lines

ENV_PREFIX = "FOREBAY_"
Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(ge=0, le=86_400)]
MAX_FRONT_ENDS = 60  # `service.group.version_header` and `shared_counts` have room for no more
MAX_ENGINES = 16  # twice the GPUs of the largest usual host; every front-end process is connected to each
LEAST_RECEPTION_BYTES = 1 << 20
RENAMED = {"processes": "front_ends"}
"""Settings of earlier versions, and those that took their place."""
LOWERS_SECURITY = frozenset(
    {"insecure", "allow_client_shm", "allow_model_files", "allow_pictures", "allow_compression"}
)
"""Settings that open a door: no message about another setting proposes one of them."""
Origin = Literal["flag", "environment", "file", "default"]


class SettingsError(ValueError):
    """Invalid settings; one line per problem: the fault, its source, and the remedy."""


class ServeSettings(BaseSettings):
    """Settings of one server process. Built by `load_settings`."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="forbid", frozen=True)

    address: str = Field("127.0.0.1:8001", description="host:port to listen on; port 0 takes a free one")
    share_port: bool = Field(
        default=False, description="other servers may listen on the same port; the kernel distributes connections"
    )
    front_ends: int | Literal["auto"] = Field(
        "auto", description="processes that speak to clients, before one that runs the models; 0: one process for all"
    )
    engines: int | Literal["auto"] = Field(
        1,
        description="processes that run the models behind the front-end processes, each with its part of the GPUs or "
        "instances; auto: one for each GPU",
    )
    uds: Path | None = Field(None, description="also listen on this unix socket, mode 0660")
    admin_address: str = Field("", description="host:port of the live page, metrics and health; empty: none")
    allow_pictures: bool = Field(
        default=False, description="the live page may show the latest frame of a stream whose client allows it"
    )
    trace_every_frames: int = Field(
        0,
        ge=0,
        le=1_000_000_000,
        description="OpenTelemetry: a span per batch, and for one frame in N; 0: none",
    )
    tls_cert: Path | None = Field(None, description="PEM certificate chain; with tls_key, the port speaks TLS")
    tls_key: Path | None = Field(None, description="PEM private key")
    tls_client_ca: Path | None = Field(None, description="PEM authorities; clients must show a certificate of one")
    insecure: bool = Field(default=False, description="allow an address other than loopback without TLS")
    model_repository: Annotated[tuple[Path, ...], NoDecode] = Field(
        (),
        description="repositories or model files; none: the bundled one; in the environment separated as in PATH",
    )
    model_control_mode: Literal["none", "explicit", "poll"] = Field(
        "none", description="none: all models at start; explicit: clients load and unload; poll: follow the folders"
    )
    load_model: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="explicit: models to load at start; *: all; in the environment separated by commas"
    )
    exit_on_error: bool = Field(
        default=True, description="a model that cannot be loaded ends the start; false: start with the others"
    )
    strict_readiness: bool = Field(
        default=True, description="ready only while every model that should serve from the start serves"
    )
    repository_poll_s: float = Field(15.0, ge=0.1, le=86_400, description="poll: interval of checking the folders")
    load_timeout_s: float = Field(300.0, ge=0.1, le=86_400, description="a load that takes longer is given up")
    rehearse_loads: bool = Field(default=True, description="a separate process tries each load while serving first")
    model_memory_bytes: int = Field(0, ge=0, description="maximum memory of all models together; 0: the free memory")
    cpu_fallback: bool = Field(default=False, description="models that ask for an unavailable GPU run on the CPU")
    allow_model_files: bool = Field(
        default=False, description="explicit: clients may send the files of an ONNX model with a load"
    )
    allow_client_shm: bool = Field(
        default=False, description="clients on this machine may use shared memory that their user may open"
    )
    reflection: bool = Field(
        default=False, description="tools such as grpcurl may ask for the services and messages of the port"
    )
    restricted_protocol: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="CATEGORY[,CATEGORY...]:KEY=VALUE: these calls need the header triton-grpc-protocol-KEY: VALUE; "
        "in the environment separated by semicolons",
    )
    cache_folder: Path | None = Field(None, description="keeps measured costs; empty: ~/.cache/forebay")
    ready_file: Path | None = Field(None, description="written with one JSON line once the server is ready")
    permits: Count = Field(256, le=65_536, description="frames held before execution, all streams together")
    connection_weight: Count = Field(
        1, le=1024, description="streams that the ModelInfer calls of one connection count as; more for a proxy"
    )
    max_window: Count = Field(256, le=1024, description="maximum frames in flight that a stream may request")
    max_streams: Count = Field(
        1024, le=100_000, description="maximum of open streams, of all front-end processes together"
    )
    max_streams_per_connection: Count = Field(256, le=100_000, description="maximum of open streams of one connection")
    max_connections: Count = Field(
        1024,
        le=100_000,
        description="maximum of connections, divided among front-end processes; others are closed at once",
    )
    max_metadata_bytes: int = Field(16_384, ge=1024, le=1 << 20, description="maximum metadata of a call")
    max_message_bytes: int = Field(16 << 20, ge=1024, le=2**31 - 1, description="largest message accepted")
    reception_bytes: int = Field(
        128 << 20,
        ge=LEAST_RECEPTION_BYTES,
        le=1 << 40,
        description="maximum bytes of all messages that have begun and not ended, divided among front-end processes",
    )
    message_deadline_s: Seconds = Field(30.0, description="a message that has begun must end within this; 0: never")
    stream_window_bytes: int = Field(
        1 << 19, ge=65_535, le=1 << 30, description="maximum bytes of a stream that wait in the server to be read"
    )
    allow_compression: bool = Field(
        default=False, description="clients may compress messages; max_message_bytes holds for the inflated size"
    )
    compression_bytes_per_s: int = Field(
        64 << 20, ge=1 << 20, le=1 << 40, description="allow_compression: maximum inflated bytes of one connection"
    )
    max_image_pixels: Count = Field(50_000_000, description="largest picture accepted, width times height")
    image_decode: Literal["auto", "cpu", "gpu"] = Field(
        "auto",
        description="who decodes JPEG frames of models on GPUs; auto: the GPU where it can; gpu: it must",
    )
    video_decode: Literal["auto", "cpu"] = Field(
        "auto", description="who decodes H264 and H265 for models on GPUs; auto: the GPU where it can"
    )
    max_video_streams: Count = Field(
        64, le=100_000, description="maximum of streams of H264 and H265 in one front-end process; each has a decoder"
    )
    video_memory_bytes: int = Field(
        1 << 30, ge=1 << 20, le=1 << 40, description="maximum memory of these decoders together, by picture sizes"
    )
    worker_threads: int = Field(0, ge=0, le=256, description="decoding and results; 0: one per core, at most 8")
    intra_op_threads: int = Field(1, ge=0, le=256, description="ONNX Runtime threads per instance; 0: all cores")
    keepalive_time_s: float = Field(5.0, ge=1, le=86_400, description="a silent connection is pinged after this time")
    keepalive_timeout_s: float = Field(4.0, ge=0.1, le=3600, description="and closed if it does not answer within this")
    min_client_ping_interval_s: Seconds = Field(1.0, description="clients that ping more often are disconnected")
    write_deadline_s: Seconds = Field(10.0, description="a client that takes no result for this long is cut; 0: never")
    heartbeat_interval_s: Seconds = Field(10.0, description="longest silence of the server on a stream; 0: unlimited")
    stream_lifetime_s: Seconds = Field(0.0, description="a stream is asked to reconnect about then; 0: never")
    move_streams: bool = Field(
        default=False, description="with too much to do, ask some streams to go to other servers; for several servers"
    )
    drain_announce_s: Seconds = Field(
        0.0, description="after SIGTERM, time in which only health says so, for balancers to look away; then the drain"
    )
    drain_grace_s: Seconds = Field(20.0, description="time that clients have to half-close, from the drain's beginning")
    log_format: Literal["auto", "json", "console"] = Field("auto", description="auto: console on a terminal")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="lowest level that is logged")

    @field_validator("model_repository", "load_model", "restricted_protocol", mode="before")
    @classmethod
    def _split(cls, value: object, info: ValidationInfo) -> object:
        """Split several values in one string, as in the environment; also as JSON."""
        if not isinstance(value, str):
            return value
        if info.field_name == "restricted_protocol":
            return split_lines(value)
        if value.startswith("["):
            return json.loads(value)
        separator = os.pathsep if info.field_name == "model_repository" else ","
        return tuple(part for part in value.split(separator) if part)

    @field_validator("front_ends", mode="before")
    @classmethod
    def _count(cls, value: object) -> object:
        """Take a number, or `auto`; any other value gets one message."""
        try:
            if value == "auto" or 0 <= int(str(value)) <= MAX_FRONT_ENDS:
                return value if value == "auto" else int(str(value))
        except ValueError:
            pass
        raise ValueError(f"give auto, or a number from 0 to {MAX_FRONT_ENDS}")

    @field_validator("engines", mode="before")
    @classmethod
    def _engine_count(cls, value: object) -> object:
        """Take a number, or `auto`; any other value gets one message."""
        try:
            if value == "auto" or 1 <= int(str(value)) <= MAX_ENGINES:
                return value if value == "auto" else int(str(value))
        except ValueError:
            pass
        raise ValueError(f"give auto, or a number from 1 to {MAX_ENGINES}")

    @model_validator(mode="after")
    def _check_together(self) -> "ServeSettings":
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key go together: give both")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ValueError("tls_client_ca needs tls_cert and tls_key")
        host, separator, port = self.address.rpartition(":")
        if not (separator and host and port.isdigit() and int(port) < 65_536):
            raise ValueError(f"address is {self.address!r}; give host:port, such as 127.0.0.1:8001")
        self._check_admin()
        if self.load_model and self.model_control_mode != "explicit":
            raise ValueError(
                f"load_model needs model_control_mode explicit: with {self.model_control_mode!r} all models are served"
            )
        read_restrictions(self.restricted_protocol)
        if not (self.insecure or self.tls_cert is not None or is_loopback(host)):
            raise ValueError(
                f"address {self.address} can be reached from other machines: give tls_cert and tls_key, or listen "
                "on 127.0.0.1, behind a proxy (docs/security.md)"
            )
        return self

    def _check_admin(self) -> None:
        host, separator, port = self.admin_address.rpartition(":")
        if self.admin_address and not (separator and host and port.isdigit() and int(port) < 65_536):
            raise ValueError(f"admin_address is {self.admin_address!r}; give host:port, such as 127.0.0.1:8002")
        if self.admin_address and not (self.insecure or is_loopback(host)):
            raise ValueError(
                f"admin_address {self.admin_address} can be reached from other machines, and its pages have no "
                "password: give 127.0.0.1, behind a proxy (docs/security.md)"
            )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic's signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags and environment only; `load_settings` adds the file below them."""
        return (init_settings, env_settings)


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """Return one line for each unknown variable that looks like a setting."""
    lines = []
    for key in sorted(environment):
        name = key.removeprefix(ENV_PREFIX).lower()
        if key.startswith(ENV_PREFIX) and name not in ServeSettings.model_fields:
            lines.append(f"{key} is no setting: {_hint(name, ENV_PREFIX)}")
    return lines


def option_hint(option: str, flags: Collection[str], others: Mapping[str, str]) -> str:
    """Return how to mend an unknown option of `forebay serve`, such as `--max-streams`.

    Args:
        option: as it was typed.
        flags: those that exist.
        others: options that other programs have -> the flag for them.
    """
    name = option.lstrip("-").replace("-", "_").lower()
    if name not in ServeSettings.model_fields:
        near = difflib.get_close_matches(option, [*flags, *others], 1)
        lowers_security = bool(near) and _name_of(near[0]) in LOWERS_SECURITY
        if near and not lowers_security:
            return f"did you mean {others.get(near[0], near[0])}?"
        name = _nearest(name)
        if lowers_security or not name:
            return "`forebay serve --help` lists them, and `forebay config schema` all settings"
    return f"the setting {name} has no flag: set {ENV_PREFIX}{name.upper()}, or {name} in the TOML file of --config"


def _name_of(option: str) -> str:
    return option.lstrip("-").replace("-", "_")


def _nearest(name: str) -> str:
    """Return the setting that a mistyped name may mean; empty if none is near."""
    if name in RENAMED:
        return RENAMED[name]
    found = difflib.get_close_matches(name, ServeSettings.model_fields.keys() - LOWERS_SECURITY, n=1)
    return found[0] if found else ""


def _hint(name: str, prefix: str = "") -> str:
    """Return the nearest setting, or the place where they are listed."""
    nearest = _nearest(name)
    if not nearest:
        return "`forebay config schema` lists them"
    return f"did you mean {prefix + (nearest.upper() if prefix else nearest)!r}?"


def default_cache_folder(environment: Mapping[str, str]) -> Path | None:
    """Return the folder of the platform's conventions, or None without a home folder."""
    base = environment.get("XDG_CACHE_HOME", "")
    if not base and not (home := environment.get("HOME", "")):
        return None
    return (Path(base) if base else Path(home) / ".cache") / "forebay"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`. A name other than localhost may belong to any machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """Settings with the source of each."""

    values: ServeSettings
    origins: Mapping[str, Origin]


def load_settings(flags: Mapping[str, Any], config: Path | None, environment: Mapping[str, str]) -> LoadedSettings:
    """Merge flags, environment, TOML file and defaults.

    Args:
        flags: values of the command line, by setting.
        config: TOML file, if one was named.
        environment: os.environ.

    Raises:
        SettingsError: unknown keys, wrong types, values out of range, settings that contradict each other.
    """
    in_file = {} if config is None else _read_toml(config)
    names = ServeSettings.model_fields
    from_environment = {
        key.removeprefix(ENV_PREFIX).lower() for key in environment if key.upper().startswith(ENV_PREFIX)
    } & set(names)
    origins: dict[str, Origin] = dict.fromkeys(names, "default")
    origins.update(dict.fromkeys(in_file, "file"))
    origins.update(dict.fromkeys(from_environment, "environment"))
    origins.update(dict.fromkeys(flags, "flag"))
    below = {name: value for name, value in in_file.items() if name not in from_environment}
    try:
        return LoadedSettings(ServeSettings(**{**below, **flags}), origins)
    except ValidationError as error:
        lines = [_explain(problem, origins) for problem in error.errors()]
        raise SettingsError("\n".join(lines)) from None


def to_environment(settings: ServeSettings, environment: Mapping[str, str]) -> dict[str, str]:
    """Return `environment` with all settings in it, for a server process without other sources."""
    names = {ENV_PREFIX + name.upper() for name in ServeSettings.model_fields}
    found = {key: value for key, value in environment.items() if key.upper() not in names}
    for name, value in settings.model_dump(mode="json").items():
        if value not in (None, "", []):
            found[ENV_PREFIX + name.upper()] = value if isinstance(value, str) else json.dumps(value)
    return found


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text())
    except OSError as error:
        hint = near_file(path, {".toml"}) if isinstance(error, FileNotFoundError) else ""
        raise SettingsError(f"cannot read {path}: {error.strerror}{hint}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SettingsError(f"{path} is not TOML: {error}") from None
    for key in values:
        if key not in ServeSettings.model_fields:
            raise SettingsError(f"{path}: there is no setting {key!r}: {_hint(key)}")
    return values


def _explain(problem: Any, origins: Mapping[str, Origin]) -> str:  # noqa: ANN401 - pydantic's ErrorDetails
    name = ".".join(str(part) for part in problem["loc"][:1])
    message = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"].startswith("bool_"):
        message = "give true or false"
    if not name:
        return message
    where = {
        "flag": f"--{name.replace('_', '-')}",
        "environment": f"{ENV_PREFIX}{name.upper()}",
        "file": f"{name} in the file of --config",
    }.get(origins.get(name, "default"), name)
    return f"{where} is {problem.get('input')!r}: {message}"
