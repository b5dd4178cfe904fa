"""`python -m forebay_server` is `forebay`."""

from forebay_server.service.cli import main

main()
