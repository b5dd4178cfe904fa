"""Exit codes of `forebay`, the same for every command; docs/operations.md lists them."""

OK = 0
FAILED = 1  # the command ran and its answer is no (a check failed, frames were lost)
USAGE = 2  # wrong flags or settings
MODEL = 65  # a model or a repository is missing or broken (EX_DATAERR)
NO_INPUT = 66  # nothing can be read from a video, folder or camera (EX_NOINPUT)
UNAVAILABLE = 69  # an address is in use, a server is not there, a library is not installed (EX_UNAVAILABLE)
FATAL = 70  # the device is lost or an engine hangs: start the process anew (EX_SOFTWARE)
GAVE_UP = 71  # `serve --supervise`: the server failed more than 5 times within a minute and stays down (EX_OSERR)
CANNOT_WRITE = 73  # standard output, a ready file, a report or a picture cannot be written (EX_CANTCREAT)
INCOMPLETE = 74  # the video ended early, or the camera stays away; its frames were answered (EX_IOERR)
INTERRUPTED = 130  # Ctrl-C
NO_READER = 141  # the reader of standard output has gone, as `head` does; nothing is said (128 + SIGPIPE)
TERMINATED = 143  # `stream`: SIGTERM; the totals are printed first (128 + SIGTERM)
