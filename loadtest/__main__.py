"""Makes `python -m forebay_server.loadtest` an alias of `forebay load`."""

from forebay_server.loadtest.cli import main

main()
