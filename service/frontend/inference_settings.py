"""TraceSetting and LogSettings: readable, so that tools which ask get an answer; nothing is changed from afar."""

from typing import Any

import grpc

from forebay.wire import inference_pb2 as pb
from service.frontend.inference_errors import InferenceError
from service.frontend.inference_rpcs import Rpc

TRACE = {
    "trace_level": "OFF",
    "trace_rate": "1000",
    "trace_count": "-1",
    "log_frequency": "0",
    "trace_file": "",
    "trace_mode": "triton",
}
LOG: dict[str, bool | int | str] = {
    "log_file": "",
    "log_info": True,
    "log_warning": True,
    "log_error": True,
    "log_verbose_level": 0,
    "log_format": "default",
}
_TraceValue = pb.TraceSettingResponse.SettingValue
_LogValue = pb.LogSettingsResponse.SettingValue


class SettingsRpcs:
    """See the module. Thread: the event loop's."""

    def rpcs(self) -> dict[str, tuple[Rpc, Any]]:
        """Return the RPCs by name."""
        return {
            "TraceSetting": (self.trace, pb.TraceSettingRequest),
            "LogSettings": (self.log, pb.LogSettingsRequest),
        }

    def trace(self, request: pb.TraceSettingRequest) -> pb.TraceSettingResponse:
        """Tell the trace settings; tracing itself is not switched here."""
        _refuse_changes([key for key, value in request.settings.items() if list(value.value) != [TRACE.get(key)]])
        return pb.TraceSettingResponse(settings={key: _TraceValue(value=[value]) for key, value in TRACE.items()})

    def log(self, request: pb.LogSettingsRequest) -> pb.LogSettingsResponse:
        """Tell the log settings."""
        _refuse_changes([key for key, value in request.settings.items() if _chosen(value) != LOG.get(key)])
        return pb.LogSettingsResponse(settings={key: _log_value(value) for key, value in LOG.items()})


def _chosen(value: pb.LogSettingsRequest.SettingValue) -> object:
    choice = value.WhichOneof("parameter_choice")
    return None if choice is None else getattr(value, choice)


def _log_value(value: bool | int | str) -> pb.LogSettingsResponse.SettingValue:  # noqa: FBT001 - one of three types
    if isinstance(value, bool):
        return _LogValue(bool_param=value)
    return _LogValue(uint32_param=value) if isinstance(value, int) else _LogValue(string_param=value)


def _refuse_changes(keys: list[str]) -> None:
    if keys:
        raise InferenceError(
            grpc.StatusCode.UNIMPLEMENTED, f"setting '{keys[0][:64]}' cannot be changed while the server runs"
        )
