"""The command line: `forebay serve | demo | stream | load | bench | engine | ...`.

The topmost layer: only this package may import all others. It imports inside the commands, so that `--help` is quick
and the process is tuned before the first import of grpc. `forebay health` is the quickest: containers call it every
few seconds, on the cores of the server that they watch.
"""

import os
import sys

from forebay_server.service.cli import exit_codes
from forebay_server.service.cli.standard_streams import OutputError, end_of_output, open_standard_streams

GRPC_VERBOSITY = "ERROR"  # as in service.tuning, whose import would cost more than this command line
SILENCE = "NONE"  # of gRPC's own log


def main() -> None:
    """Run the command line. An error that a user can mend is one line and a documented exit code."""
    open_standard_streams()
    # Commands that call servers print none of gRPC's texts; a server takes them over into its log.
    os.environ.setdefault("GRPC_VERBOSITY", GRPC_VERBOSITY if sys.argv[1:2] == ["serve"] else SILENCE)
    try:
        try:
            _run(sys.argv[1:])
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(exit_codes.INTERRUPTED)
    except OutputError as error:
        sys.exit(end_of_output(error))


def _run(words: list[str]) -> None:
    """Run one command. Raises SystemExit with its exit code."""
    if words[:1] == ["health"]:
        from forebay_server.service.cli.health_check import read_words, report_health

        question = read_words(words[1:], os.environ)
        if question is not None:
            sys.exit(report_health(question, os.environ))
    from forebay_server.service.cli.commands import app

    app()
