"""TraceSetting and LogSettings: readable, so that tools which ask get an answer; the log level can be changed.

Clients cannot change paths and formats, nor switch tracing (`forebay trace` does that). The log has one lowest level
here, where Triton has three switches and a number: the lowest requested level holds, and the answer contains the
result.
"""

from typing import Any

import grpc

from forebay.wire import inference_pb2 as pb
from forebay_server.service.frontend.control.rpc import Rpc
from forebay_server.service.frontend.open_inference.errors import InferenceError
from forebay_server.service.frontend.open_inference.lookup import ModelLookup
from forebay_server.service.log import least_level, set_level

TRACE = {
    "trace_level": "OFF",
    "trace_rate": "1000",
    "trace_count": "-1",
    "log_frequency": "0",
    "trace_file": "",
    "trace_mode": "triton",
}
LOG_TYPES = {
    "log_file": "string_param",
    "log_info": "bool_param",
    "log_warning": "bool_param",
    "log_error": "bool_param",
    "log_verbose_level": "uint32_param",
    "log_format": "string_param",
}
FIXED_LOG = {"log_file": "", "log_format": "default"}
NO_LOG_FILE = "log file location can not be updated through network protocol"  # for any value, as in Triton
_TraceValue = pb.TraceSettingResponse.SettingValue
_LogValue = pb.LogSettingsResponse.SettingValue


class SettingsRpcs:
    """See the module. Thread: the event loop's.

    Args:
        lookup: finds versions.
    """

    def __init__(self, lookup: ModelLookup) -> None:
        self._lookup = lookup

    def rpcs(self) -> dict[str, tuple[Rpc, Any]]:
        """Return the RPCs by name."""
        return {
            "TraceSetting": (self.trace, pb.TraceSettingRequest),
            "LogSettings": (self.log, pb.LogSettingsRequest),
        }

    def trace(self, request: pb.TraceSettingRequest) -> pb.TraceSettingResponse:
        """Answer with the trace settings of the server or of one model: they are the same."""
        if request.model_name:
            self._lookup.find(request.model_name, "")
        for key, value in request.settings.items():
            _check_known(key, TRACE)
            if value.value and list(value.value) != [TRACE[key]]:  # none: back to the default, which is set already
                raise _unchangeable(key)
        return pb.TraceSettingResponse(settings={key: _TraceValue(value=[value]) for key, value in TRACE.items()})

    def log(self, request: pb.LogSettingsRequest) -> pb.LogSettingsResponse:
        """Change the lowest logged level, if requested, and answer with the log settings."""
        settings = _log_settings()
        for key, value in request.settings.items():
            _check_known(key, LOG_TYPES)
            if key == "log_file":
                raise InferenceError(grpc.StatusCode.UNIMPLEMENTED, NO_LOG_FILE)
            choice = value.WhichOneof("parameter_choice")
            if choice is None:
                continue
            if choice != LOG_TYPES[key]:
                raise _invalid(f"invalid value type for '{key}' setting, expected {LOG_TYPES[key]}.")
            chosen = getattr(value, choice)
            if FIXED_LOG.get(key, chosen) != chosen:
                raise _unchangeable(key)
            settings[key] = chosen
        if request.settings:
            set_level(_level_of(settings))
        return pb.LogSettingsResponse(
            settings={key: _LogValue(**{LOG_TYPES[key]: value}) for key, value in _log_settings().items()}
        )


def _log_settings() -> dict[str, Any]:
    level = least_level()
    return {
        **FIXED_LOG,
        "log_info": level in ("debug", "info"),
        "log_warning": level != "error",
        "log_error": True,
        "log_verbose_level": int(level == "debug"),
    }


def _level_of(settings: dict[str, Any]) -> str:
    """Return the lowest level that some settings request. Raises InferenceError if they request silence."""
    if settings["log_verbose_level"]:
        return "debug"
    for level in ("info", "warning", "error"):
        if settings[f"log_{level}"]:
            return level
    raise _invalid("setting 'log_error' cannot be switched off")


def _check_known(key: str, known: dict[str, str]) -> None:
    if key not in known:
        raise _invalid(f"unknown setting '{key[:64]}': known are {', '.join(known)}")


def _unchangeable(key: str) -> InferenceError:
    return InferenceError(grpc.StatusCode.UNIMPLEMENTED, f"setting '{key}' cannot be changed while the server runs")


def _invalid(message: str) -> InferenceError:
    return InferenceError(grpc.StatusCode.INVALID_ARGUMENT, message)
