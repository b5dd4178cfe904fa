"""`python -m forebay_server.service` is `forebay`."""

from forebay_server.service.cli import main

main()
