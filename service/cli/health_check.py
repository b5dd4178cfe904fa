"""The work of `forebay health`: reads the words of the command line, asks, prints, returns the exit code.

Imports no typer and, where the answer is plain, no grpc: a container's health check runs on the cores of the server
that it watches, and must answer while they are busy. `health` is the same command for typer: its help, its completion
and its usage errors.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from forebay_server.service.cli import exit_codes
from forebay_server.service.cli.remote.health import HealthError, TlsFiles, TlsFilesError, check_health
from forebay_server.service.clock import MonotonicClock

DEFAULT_ADDRESS = "127.0.0.1:8001"
RESTRICTED_VARIABLE = "FOREBAY_RESTRICTED_PROTOCOL"
LEAST_TIMEOUT_S, MOST_TIMEOUT_S = 0.1, 60.0
_MORE_THAN_ONE_HOST = frozenset(",/: ")
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
        address: host:port or unix:PATH, several with commas in between; None for that of the settings in the
            environment.
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
    """Ask, print the answer, and return the exit code: 0 yes, 1 no or the call is refused, 2 usage, 69 no answer.

    Of several servers the best answer counts: a client of the list has a place where one of them takes streams.
    """
    try:
        _check(question)
        where = given_or_own(question.address, environment)
        addresses = _addresses(where)
        headers = _headers(question.restricted_protocol)
    except ValueError as error:
        sys.stderr.write(f"forebay: {error}\n")
        return exit_codes.USAGE
    given = TlsFiles(question.ca, question.cert, question.key, question.server_name)
    try:
        answers = _ask(addresses, question, given if any(given) else None, headers)
    except TlsFilesError as error:
        sys.stderr.write(f"forebay: {error}\n")
        return exit_codes.USAGE
    best = min(answers, key=lambda answer: answer.exit_code)
    if question.is_json:
        import json

        report: dict[str, object] = {"address": where, "model": question.model, "status": best.status}
        report["error"] = best.problem
        if len(answers) > 1:
            report["servers"] = [{"address": a.address, "status": a.status, "error": a.problem} for a in answers]
        sys.stdout.write(f"{json.dumps(report)}\n")
        return best.exit_code
    for answer in answers:
        name = f"{answer.address} " if len(answers) > 1 else ""
        if answer.problem is None:
            sys.stdout.write(f"{name}{answer.status}\n")
        else:
            verb = "refuses" if answer.is_refusal else "does not answer"
            sys.stderr.write(f"forebay: {answer.address} {verb}: {answer.problem}\n")
    return best.exit_code


class _Answer(NamedTuple):
    address: str
    status: str | None
    problem: str | None
    is_refusal: bool

    @property
    def exit_code(self) -> int:
        if self.problem is not None and not self.is_refusal:
            return exit_codes.UNAVAILABLE
        return exit_codes.OK if self.status == "SERVING" else exit_codes.FAILED


def _ask(
    addresses: Sequence[str], question: Question, tls: TlsFiles | None, headers: tuple[tuple[str, str], ...]
) -> list[_Answer]:
    """Ask the servers one after the other; each gets a share of the time that is left."""
    clock = MonotonicClock()
    until_ns = clock.now_ns() + int(question.timeout_s * 1e9)
    answers = []
    for index, address in enumerate(addresses):
        seconds = max(LEAST_TIMEOUT_S, (until_ns - clock.now_ns()) / 1e9 / (len(addresses) - index))
        try:
            status = check_health(address, question.model, seconds, tls, headers)
            answers.append(_Answer(address, status, None, is_refusal=False))
        except HealthError as error:
            answers.append(_Answer(address, None, str(error), error.is_refusal))
    return answers


def _addresses(where: str) -> Sequence[str]:
    """Return the servers of a list, or the one address. Raises ValueError, with a line for the user."""
    host, _, port = where.rpartition(":")
    if host and port.isdecimal() and not _MORE_THAN_ONE_HOST & set(host):  # the usual address costs no import
        return (where,)
    from forebay.addresses import parse_addresses

    return parse_addresses(where)[0]


def _check(question: Question) -> None:
    """Raise ValueError, with a line for the user, if the options contradict each other or say nothing."""
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


def given_or_own(address: str | None, environment: Mapping[str, str]) -> str:
    """Return the address that `--address` gives; where it is not given, that of a server with these settings.

    Raises:
        ValueError: the address is empty, as of a variable that is not set, or FOREBAY_ADDRESS is none.
    """
    if address == "":
        raise ValueError("--address is empty; give host:port or unix:PATH")
    return address or address_of(environment)


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
