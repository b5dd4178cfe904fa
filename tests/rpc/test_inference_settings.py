"""TraceSetting and LogSettings: readable values, and the few that can be changed."""

import grpc
import pytest

from forebay.wire import inference_pb2 as pb
from forebay_server.service.log import least_level, set_level
from tests.support.inference import stub_of
from tests.support.loops import on_loop
from tests.support.real_server import real_server, simulated


@pytest.fixture(autouse=True)
def same_level_afterwards():
    before = least_level()
    yield
    set_level(before)


def trace_of(model="", **settings):
    request = pb.TraceSettingRequest(model_name=model)
    for key, values in settings.items():
        request.settings[key].value.extend(values)
    return request


def log_of(**settings):
    request = pb.LogSettingsRequest()
    for key, value in settings.items():
        kind = {bool: "bool_param", int: "uint32_param", str: "string_param"}[type(value)]
        setattr(request.settings[key], kind, value)
    return request


async def error_of(call):
    return await call.code(), await call.details()


@on_loop
async def test_settings_of_traces_can_be_read_and_not_changed(tmp_path):
    simulated(tmp_path)
    async with real_server(tmp_path) as running:
        trace = stub_of(running).TraceSetting
        for request in (trace_of(), trace_of("sim"), trace_of(trace_level=["OFF"]), trace_of(trace_rate=[])):
            assert list((await trace(request)).settings["trace_level"].value) == ["OFF"]
        for request in (trace_of(trace_file=["/etc/x"]), trace_of(trace_level=["TIMESTAMPS"])):
            assert (await error_of(trace(request)))[0] is grpc.StatusCode.UNIMPLEMENTED
        assert (await error_of(trace(trace_of(trace_colour=["red"]))))[0] is grpc.StatusCode.INVALID_ARGUMENT
        code, message = await error_of(trace(trace_of("nobody")))
        assert (code, message) == (grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'nobody' is not found")


@on_loop
async def test_the_log_level_can_be_read_and_changed_and_where_it_goes_cannot(tmp_path):
    simulated(tmp_path)
    async with real_server(tmp_path) as running:
        log = stub_of(running).LogSettings
        set_level("info")
        settings = (await log(log_of())).settings
        assert (settings["log_info"].bool_param, settings["log_verbose_level"].uint32_param) == (True, 0)
        for changes, level in (
            ({"log_verbose_level": 2}, "debug"),
            ({"log_verbose_level": 0}, "info"),
            ({"log_info": False}, "warning"),
            ({"log_warning": False}, "error"),
            ({"log_info": True}, "info"),
        ):
            settings = (await log(log_of(**changes))).settings
            assert least_level() == level
            assert settings["log_info"].bool_param is (level in ("debug", "info"))
        for changes, code, words in (
            (
                {"log_file": "/etc/x", "log_info": True},
                grpc.StatusCode.UNIMPLEMENTED,
                "log file location can not be updated through network protocol",
            ),
            ({"log_file": ""}, grpc.StatusCode.UNIMPLEMENTED, "log file location can not be updated"),
            ({"log_format": "ISO8601"}, grpc.StatusCode.UNIMPLEMENTED, "setting 'log_format' cannot be changed"),
            ({"log_info": "yes"}, grpc.StatusCode.INVALID_ARGUMENT, "expected bool_param"),
            ({"log_infos": True}, grpc.StatusCode.INVALID_ARGUMENT, "unknown setting 'log_infos'"),
            (
                {"log_info": False, "log_warning": False, "log_error": False},
                grpc.StatusCode.INVALID_ARGUMENT,
                "'log_error' cannot be switched off",
            ),
        ):
            got, message = await error_of(log(log_of(**changes)))
            assert (got, words in message) == (code, True), message
            assert least_level() == "info"
