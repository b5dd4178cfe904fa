"""compose.yaml passes on every build argument, and the health check sees the settings of the server."""

import re

import pytest

from tests.support.repository import ROOT

COMPOSE = (ROOT / "compose.yaml").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()
OWN = {"SOURCE_DATE_EPOCH", "VERSION"}
"""Arguments that compose leaves at their defaults."""


def arguments(target):
    block = COMPOSE[COMPOSE.index(f"target: {target}\n") :]
    return set(re.search(r"args: \[([^\]]*)\]", block)[1].split(", "))


@pytest.mark.parametrize(("target", "others"), [("cpu", {"TENSORRT"}), ("gpu", set())])
def test_every_build_argument_can_be_given_by_the_environment(target, others):
    known = set(re.findall(r"^ARG (\w+)", DOCKERFILE, flags=re.MULTILINE))
    assert arguments(target) == known - OWN - others


def test_settings_are_in_the_environment_where_the_health_check_sees_them():
    assert re.findall(r"^  command: (.*)$", COMPOSE, flags=re.MULTILINE) == ['["serve"]']
    assert 'FOREBAY_ADDRESS: "0.0.0.0:8001"' in COMPOSE
    assert 'ports: ["127.0.0.1:8001:8001"]' in COMPOSE


def test_every_file_that_is_mounted_exists():
    mounted = re.findall(r"\./([^:\"]+):/", COMPOSE)
    assert len(mounted) == 4
    assert [path for path in mounted if not (ROOT / path).exists()] == []


def test_the_command_of_the_profile_starts_one_service_on_each_port():
    services = dict(
        re.findall(r"^  ([\w-]+):(?: #.*)?\n((?:    .*\n)+)", COMPOSE[COMPOSE.index("\nservices:\n") :], re.MULTILINE)
    )
    named = re.search(r"`docker compose --profile scale up --scale server=3 ([^`]+)`", COMPOSE)[1].split()
    needed = [name for each in named for name in re.findall(r"depends_on: \[(.+)\]", services[each])]
    assert sorted(named + needed) == ["envoy", "grafana", "prometheus", "server"]
    ports = [port for each in named + needed for port in re.findall(r"127\.0\.0\.1:(\d+):", services[each])]
    assert sorted(ports) == ["3000", "8001", "9090"]
    assert f"--scale server=3 {' '.join(named)}`" in (ROOT / "docs" / "scaling.md").read_text()
    assert "build: *build" in services["server"]


def test_servers_go_by_the_name_that_envoy_and_prometheus_look_up():
    assert "networks: {default: {aliases: [servers]}}" in COMPOSE
    envoy = (ROOT / "deploy" / "envoy" / "envoy-plain.yaml").read_text()
    prometheus = (ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text()
    assert "address: servers, port_value: 8001" in envoy
    assert "names: [servers]" in prometheus
    assert "port: 8002" in prometheus
    assert 'FOREBAY_ADMIN_ADDRESS: "0.0.0.0:8002"' in COMPOSE
    assert 'command: ["--config-path", "/etc/envoy/envoy.yaml"' in COMPOSE
