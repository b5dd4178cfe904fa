"""Settings: flags over environment over file over defaults, and one clear line for each fault."""

import pytest
from pydantic import ValidationError

from forebay_server.service.settings import ServeSettings, SettingsError, is_loopback, load_settings


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch):
    for name in ServeSettings.model_fields:
        monkeypatch.delenv(f"FOREBAY_{name.upper()}", raising=False)


def load(flags=None, config=None, environment=None):
    return load_settings(flags or {}, config, environment or {})


def test_defaults_are_valid_and_stay_on_this_machine():
    loaded = load()
    assert is_loopback(loaded.values.address.rpartition(":")[0])
    assert set(loaded.origins.values()) == {"default"}
    assert set(loaded.origins) == set(ServeSettings.model_fields)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("permits", 0),
        ("permits", 65537),
        ("max_window", 0),
        ("max_window", 1025),
        ("max_streams", 0),
        ("worker_threads", -1),
        ("max_message_bytes", 1023),
        ("max_image_pixels", 0),
        ("heartbeat_interval_s", -0.1),
        ("stream_lifetime_s", float("nan")),
        ("drain_grace_s", float("inf")),
        ("drain_grace_s", "soon"),
    ],
)
def test_a_value_out_of_range_is_refused_by_the_name_of_its_flag(name, value):
    with pytest.raises(SettingsError, match=f"--{name.replace('_', '-')} is"):
        load({name: value})


@pytest.mark.parametrize(
    "flags",
    [
        {"tls_cert": "cert.pem"},
        {"tls_key": "key.pem"},
        {"tls_client_ca": "ca.pem"},
        {"address": "8001"},
        {"address": "127.0.0.1:65536"},
        {"address": "127.0.0.1:http"},
        {"address": "0.0.0.0:8001"},
        {"address": "[::]:8001"},
        {"address": "127.example.com:8001"},
        {"load_model": ("sim",)},
        {"load_model": ("*",), "model_control_mode": "poll"},
    ],
    ids=str,
)
def test_settings_that_contradict_each_other_are_refused(flags):
    with pytest.raises(SettingsError):
        load(flags)


@pytest.mark.parametrize("address", ["127.0.0.1:0", "localhost:8001", "[::1]:8001", "127.9.9.9:1"])
def test_loopback_needs_no_tls(address):
    assert load({"address": address}).values.address == address


def test_another_address_needs_tls_or_a_word():
    assert load({"address": "0.0.0.0:8001", "insecure": True}).values.insecure
    load({"address": "0.0.0.0:8001", "tls_cert": "cert.pem", "tls_key": "key.pem"})


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path, monkeypatch):
    config = tmp_path / "forebay.toml"
    config.write_text("permits = 5\nmax_window = 50\nmax_streams = 4\n")
    environment = {"FOREBAY_PERMITS": "6", "FOREBAY_MAX_WINDOW": "60"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    loaded = load({"permits": 7}, config, environment)
    assert (loaded.values.permits, loaded.values.max_window, loaded.values.max_streams) == (7, 60, 4)
    origins = (loaded.origins[name] for name in ("permits", "max_window", "max_streams", "max_connections"))
    assert tuple(origins) == ("flag", "environment", "file", "default")


@pytest.mark.parametrize("models", ["a,b", '["a", "b"]'])
def test_the_environment_gives_several_values_in_one(monkeypatch, models):
    monkeypatch.setenv("FOREBAY_MODEL_REPOSITORY", "/models:/more models")
    monkeypatch.setenv("FOREBAY_LOAD_MODEL", models)
    monkeypatch.setenv("FOREBAY_MODEL_CONTROL_MODE", "explicit")
    values = load().values
    assert [str(path) for path in values.model_repository] == ["/models", "/more models"]
    assert values.load_model == ("a", "b")


def test_a_list_in_the_environment_that_is_broken_is_one_line(monkeypatch):
    monkeypatch.setenv("FOREBAY_LOAD_MODEL", "[a")
    with pytest.raises(SettingsError, match="FOREBAY_LOAD_MODEL is"):
        load(environment={"FOREBAY_LOAD_MODEL": "[a"})


def test_an_unknown_key_of_the_file_names_the_nearest_one(tmp_path):
    config = tmp_path / "forebay.toml"
    config.write_text("permit = 5\n")
    with pytest.raises(SettingsError, match="'permit': did you mean 'permits'"):
        load(config=config)


@pytest.mark.parametrize("content", [b"permits = = 5\n", b"permits = \xff\n", None], ids=["broken", "bytes", "missing"])
def test_a_file_that_cannot_be_read_is_one_line(tmp_path, content):
    config = tmp_path / "forebay.toml"
    if content is not None:
        config.write_bytes(content)
    with pytest.raises(SettingsError) as refused:
        load(config=config)
    assert "\n" not in str(refused.value)


def test_settings_cannot_change():
    with pytest.raises(ValidationError):
        ServeSettings().permits = 3
