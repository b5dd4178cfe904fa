"""config.pbtxt, protobuf text format: file in, message out; every error has its place and the nearest known name.

`service.models.config` decides the meaning of fields; here every field of the message parses.
"""

import difflib
import re

from google.protobuf import text_format
from google.protobuf.descriptor import Descriptor, EnumDescriptor

from forebay.wire import model_config_pb2
from forebay.wire.model_config_pb2 import ModelConfig
from forebay_server.service.models.repository import CONFIG_NAME, ModelEntry, RepositoryError

MAX_CONFIG_BYTES = 1 << 20  # the longest real ones are some tens of KB
MAX_LABELS_BYTES = 4 << 20
_WRAPPER = "model_configuration"
_UNKNOWN_FIELD = re.compile(r'Message type "(?P<scope>[\w.]+)" has no field named "(?P<name>\w+)"')
_UNKNOWN_VALUE = re.compile(r'Enum type "(?P<scope>[\w.]+)" has no value named (?P<name>\w+)')
_BLANK = r"(?:\s|#[^\n]*)*"
_WRAPPED = re.compile(rf"\A(?P<before>{_BLANK}{_WRAPPER}\s*:?\s*\{{)(?P<fields>.*)\}}{_BLANK}\Z", re.DOTALL)
_POSITION = re.compile(r"^\d+:\d+ : ('.*?': )?", re.DOTALL)


class ConfigError(RepositoryError):
    """A configuration cannot be read or cannot be served; the message has the place and the remedy."""


def read_config(entry: ModelEntry, warnings: list[str]) -> ModelConfig | None:
    """Return the configuration of a model as written, or None if there is no file.

    Args:
        entry: the model's folder.
        warnings: the function adds one line for each fault that it mended.

    Raises:
        ConfigError: not text, too long, or not a ModelConfig.
        RepositoryError: the file is a link that leads out of the repository.
    """
    text = read_text(entry, CONFIG_NAME, MAX_CONFIG_BYTES)
    if text is None:
        return None
    if (inner := _unwrapped(text)) is not None:
        warnings.append(f"the fields stand alone in this file: the surrounding '{_WRAPPER} {{ ... }}' is passed over")
        text = inner
    return parse_config(text, entry.config_name)


def parse_config(text: str, filename: str) -> ModelConfig:
    """Parse the text of a configuration.

    Args:
        text: protobuf text format.
        filename: for messages, relative to the repository.

    Raises:
        ConfigError: with line, column and the nearest right name.
    """
    try:
        config: ModelConfig = text_format.Parse(text, ModelConfig())
    except text_format.ParseError as error:
        line, column = error.GetLine() or 1, error.GetColumn() or 1
        raise ConfigError(f"{filename}:{line}:{column}: {_explain(str(error))}") from None
    return config


def read_text(entry: ModelEntry, name: str, limit_bytes: int) -> str | None:
    """Return the text of a file in the model's folder, or None if there is none.

    Raises:
        ConfigError: too long or not UTF-8.
        RepositoryError: not a plain name, or a link that leads out of the repository.
    """
    path = entry.file(name)
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            data = file.read(limit_bytes + 1)
    except OSError as error:
        raise ConfigError(f"{entry.name}/{name}: cannot be read: {error.strerror}") from None
    if len(data) > limit_bytes:
        raise ConfigError(f"{entry.name}/{name}: longer than {limit_bytes} bytes: this cannot be meant")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{entry.name}/{name}:{line}: not UTF-8 text") from None


def _unwrapped(text: str) -> str | None:
    """Return a configuration without the message around it, which some guides show; None if there is none."""
    found = _WRAPPED.match(text)
    if found is None:
        return None
    return re.sub(r"[^\n]", " ", found["before"]) + found["fields"]  # lines and columns stay the same


def _explain(message: str) -> str:
    """Replace the parser's message where a better one is possible."""
    if found := _UNKNOWN_FIELD.search(message):
        if found["name"] == _WRAPPER:
            return f"the fields stand alone in this file: remove the surrounding '{_WRAPPER} {{ ... }}'"
        return f"no field {found['name']!r} in {_short(found['scope'])}{_nearest(found['name'], found['scope'])}"
    if found := _UNKNOWN_VALUE.search(message):
        return f"no value {found['name']!r} in {_short(found['scope'])}{_nearest(found['name'], found['scope'])}"
    return _POSITION.sub("", message).splitlines()[0][:200]


def _nearest(name: str, scope: str) -> str:
    names = _names(_short(scope))
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f": did you mean {close[0]!r}?"
    return f": known are {', '.join(names)}" if names else ""


def _names(path: str) -> list[str]:
    """Return the field names of a message or the value names of an enum; `path` is relative to the package."""
    first, *rest = path.split(".")
    file = model_config_pb2.DESCRIPTOR
    found: Descriptor | EnumDescriptor | None = file.message_types_by_name.get(first) or file.enum_types_by_name.get(
        first
    )
    for part in rest:
        if not isinstance(found, Descriptor):
            return []
        found = found.nested_types_by_name.get(part) or found.enum_types_by_name.get(part)
    if isinstance(found, Descriptor):
        return [field.name for field in found.fields]
    return [value.name for value in found.values] if found is not None else []


def _short(scope: str) -> str:
    return scope.removeprefix("inference.")
