"""The work of `forebay health`: reads the words of the command line, asks, prints, returns the exit code.

Imports no typer and, where the answer is plain, no grpc: a container's health check runs on the cores of the server
that it watches, and must answer while they are busy. `health` is the same command for typer: its help, its completion
and its usage errors.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from forebay_server.service.cli import exit_codes
from forebay_server.service.cli.remote.health import HealthError, TlsFiles, check_health

DEFAULT_ADDRESS = "127.0.0.1:8001"
RESTRICTED_VARIABLE = "FOREBAY_RESTRICTED_PROTOCOL"
LEAST_TIMEOUT_S, MOST_TIMEOUT_S = 0.1, 60.0
_FLAGS = {
    "--address": "address",
    "--model": "model",
    "--tls-ca": "ca",
    "--tls-cert": "cert",
    "--tls-key": "key",
    "--tls-name": "server_name",
    "--restricted-protocol": "restricted_protocol",
}


class Question(NamedTuple):
    """The options of `forebay health`.

    Attributes:
        address: host:port or unix:PATH; None for that of the settings in the environment.
        model: empty for the server.
        timeout_s: for everything.
        ca, cert, key, server_name: see `TlsFiles`.
        restricted_protocol: as the server has it.
        is_json: print one JSON object.
    """

    address: str | None = None
    model: str = ""
    timeout_s: float = 2.0
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    server_name: str | None = None
    restricted_protocol: str | None = None
    is_json: bool = False


def read_words(words: Sequence[str], environment: Mapping[str, str]) -> Question | None:
    """Return what the words after `forebay health` ask; None for words that typer should read, and may refuse."""
    values: dict[str, str | float | bool] = {}
    if restricted := environment.get(RESTRICTED_VARIABLE):
        values["restricted_protocol"] = restricted
    rest = iter(words)
    for word in rest:
        if word == "--json":
            values["is_json"] = True
            continue
        flag, equals, value = word.partition("=")
        text = value if equals else next(rest, None)
        if text is None:
            return None
        if flag == "--timeout-s":
            seconds = _seconds(text)
            if seconds is None:
                return None
            values["timeout_s"] = seconds
        elif flag in _FLAGS:
            values[_FLAGS[flag]] = text
        else:
            return None
    return Question(**values)  # type: ignore[arg-type]  # each of its field's type


def _seconds(text: str) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if LEAST_TIMEOUT_S <= seconds <= MOST_TIMEOUT_S else None


def report_health(question: Question, environment: Mapping[str, str]) -> int:
    """Ask, print the answer, and return the exit code: 0 yes, 1 no or the call is refused, 2 usage, 69 no answer."""
    try:
        _check(question)
        where = question.address or address_of(environment)
        headers = _headers(question.restricted_protocol)
    except ValueError as error:
        sys.stderr.write(f"forebay: {error}\n")
        return exit_codes.USAGE
    given = TlsFiles(question.ca, question.cert, question.key, question.server_name)
    tls = given if any(given) else None
    is_refusal = False
    try:
        status, problem = check_health(where, question.model, question.timeout_s, tls, headers), None
    except HealthError as error:
        status, problem, is_refusal = None, str(error), error.is_refusal
    if question.is_json:
        import json

        report = {"address": where, "model": question.model, "status": status, "error": problem}
        sys.stdout.write(f"{json.dumps(report)}\n")
    elif problem is None:
        sys.stdout.write(f"{status}\n")
    else:
        sys.stderr.write(f"forebay: {where} {'refuses' if is_refusal else 'does not answer'}: {problem}\n")
    if problem is not None and not is_refusal:
        return exit_codes.UNAVAILABLE
    return exit_codes.OK if status == "SERVING" else exit_codes.FAILED


def _check(question: Question) -> None:
    """Raise ValueError, with a line for the user, if the options contradict each other or say nothing."""
    if question.address == "":
        raise ValueError("--address is empty; give host:port or unix:PATH")
    if (question.cert is None) != (question.key is None):
        raise ValueError("--tls-cert and --tls-key belong together; give both or none")
    try:
        question.model.encode()
    except UnicodeEncodeError:  # a byte of the command line that is no text
        raise ValueError(f"--model is not UTF-8: {question.model!a}") from None


def _headers(restricted_protocol: str | None) -> tuple[tuple[str, str], ...]:
    """Return the headers of the call. Raises ValueError, with a line for the user."""
    if not restricted_protocol:
        return ()
    from forebay_server.service.restricted import headers_for

    try:
        return headers_for("health", restricted_protocol)
    except ValueError as error:
        raise ValueError(f"--restricted-protocol: {error}") from None


def address_of(environment: Mapping[str, str]) -> str:
    """Return the address of a server with these settings, as seen from this machine.

    A server on [::] takes IPv4 as well, and is one on 0.0.0.0 where the machine has no IPv6: `localhost` is both.

    Raises:
        ValueError: FOREBAY_ADDRESS is no address; the message is for the user.
    """
    if uds := environment.get("FOREBAY_UDS"):
        return f"unix:{uds}"
    address = environment.get("FOREBAY_ADDRESS", DEFAULT_ADDRESS)
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal()):
        raise ValueError(f"FOREBAY_ADDRESS is {address!r}; give host:port, such as {DEFAULT_ADDRESS}, or unset it")
    return f"{ {'0.0.0.0': '127.0.0.1', '[::]': 'localhost'}.get(host, host) }:{port}"  # noqa: S104 - not for listening
