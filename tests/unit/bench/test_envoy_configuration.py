"""The deployed configuration of Envoy, with addresses of this machine."""

from pathlib import Path

from forebay_server.bench.envoy import DEPLOYED, configuration, without_block

TEXT = """\
list:
  - gone:
      deep: 1
    stays: 2
  - other: 3
    gone: {x: 1}
end: 4
"""


def test_a_block_goes_with_all_that_is_indented_below_it():
    assert without_block(TEXT, "gone:") == "list:\n  - stays: 2\n  - other: 3\nend: 4\n"


def test_addresses_are_replaced_and_tls_is_left_out():
    text = configuration(DEPLOYED.read_text(), 1234, 5678, Path("/x/servers.json"))
    assert "address: 127.0.0.1, port_value: 1234" in text
    assert "port_value: 5678" in text
    assert "path: /x/servers.json" in text
    for word in ("transport_socket:", "load_assignment", "STRICT_DNS", "0.0.0", "dns_refresh_rate"):
        assert word not in text
    assert "retry_on: connect-failure,refused-stream,retriable-headers" in text
    assert "retry_policy" not in configuration(DEPLOYED.read_text(), 1, 2, Path("/x/y.json"), has_retries=False)


def test_a_proxy_may_cut_streams_of_some_age():
    text = configuration(DEPLOYED.read_text(), 1, 2, Path("/x/y.json"), cut_after_s=10)
    assert "                common_http_protocol_options: {max_stream_duration: 10s}\n" in text
    assert "max_stream_duration" not in configuration(DEPLOYED.read_text(), 1, 2, Path("/x/y.json"))


def test_what_the_numbers_depend_on_is_in_the_deployed_file():
    text = DEPLOYED.read_text()
    for line in ("stream_idle_timeout: 35s", "lb_policy: LEAST_REQUEST", "grpc_health_check: {}", "timeout: 0s"):
        assert line in text


def test_the_file_without_tls_is_otherwise_the_same():
    text = DEPLOYED.read_text()
    plain = DEPLOYED.with_name("envoy-plain.yaml").read_text()
    start = "admin:\n"
    assert plain[plain.index(start) :] == without_block(text[text.index(start) :], "transport_socket:")
