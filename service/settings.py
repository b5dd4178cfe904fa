"""Every setting of `forebay serve`: name with unit, default, range, meaning. Nothing else reads the environment.

Precedence: flags, then environment (`FOREBAY_...`), then the TOML file, then the defaults here.
"""

import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

Count = Annotated[int, Field(ge=1)]


class ServeSettings(BaseSettings):
    """Settings of one server process."""

    model_config = SettingsConfigDict(env_prefix="FOREBAY_", extra="forbid", frozen=True)

    address: str = Field("127.0.0.1:8001", description="host:port to listen on; port 0 takes a free one")
    uds: Path | None = Field(None, description="also listen on this unix socket")
    model_repository: tuple[Path, ...] = Field((), description="model repositories; empty: the bundled one")
    ready_file: Path | None = Field(None, description="written with one JSON line once the server is ready")
    permits: Count = Field(256, le=65536, description="frames held before execution, all streams together")
    default_window: Count = Field(16, le=1024, description="frames in flight of a stream that does not ask")
    max_window: Count = Field(256, le=1024, description="most frames in flight that a stream may ask for")
    max_streams: Count = Field(1024, description="most open streams")
    worker_threads: int = Field(0, ge=0, le=256, description="decoding and results; 0: one per core, at most 8")
    max_message_bytes: int = Field(16 << 20, ge=1024, description="largest message accepted")
    max_image_pixels: Count = Field(50_000_000, description="largest picture accepted, width times height")
    heartbeat_interval_s: float = Field(10.0, ge=0, description="longest silence of the server on a stream; 0: any")
    stream_lifetime_s: float = Field(0.0, ge=0, description="a stream is asked to reconnect after this; 0: never")
    drain_grace_s: float = Field(20.0, ge=0, description="time that clients have to half-close after SIGTERM")
    intra_op_threads: int = Field(1, ge=0, le=256, description="ONNX Runtime threads per model instance; 0: all cores")


def read_toml(path: Path) -> dict[str, object]:
    """Return the settings of a TOML file. Raises ValueError with one line if it cannot be read."""
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path}: {error}") from None
