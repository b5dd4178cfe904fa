"""The configuration of the log, which is the process's: a test that changes it gives it back."""

import sys

import structlog


def forget_configuration():
    """Reset logging to its state before any configuration.

    A logger that was first used under a configuration keeps that one for ever (`cache_logger_on_first_use`), and then
    `structlog.testing.capture_logs` of a later test does not see its events. So loggers of modules are reset too.
    """
    structlog.reset_defaults()
    for name, module in tuple(sys.modules.items()):
        if name.partition(".")[0] == "forebay_server":
            logger = getattr(module, "log", None)
            if isinstance(logger, structlog._config.BoundLoggerLazyProxy):
                vars(logger).pop("bind", None)
