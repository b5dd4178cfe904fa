"""`forebay doctor`: faults of this machine and this set-up, and their remedies."""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forebay_server.service.cli import exit_codes

if TYPE_CHECKING:
    from forebay_server.service.cli.checks import Finding

FORMAT = 1
_SIGNS = {"ok": "ok", "note": "note", "warning": "WARN", "fault": "FAULT"}


def doctor(
    *,
    config: Annotated[Path | None, typer.Option(help="TOML file, as for serve")] = None,
    is_json: Annotated[bool, typer.Option("--json", help="print one JSON object and nothing else")] = False,
) -> None:
    """Look for causes that keep `forebay serve` from working, or from working well, here: 0 none, 1 at least one."""
    findings = list(diagnose(config, Path("/")))
    is_healthy = all(finding.level != "fault" for finding in findings)
    if is_json:
        report = {"format": FORMAT, "is_healthy": is_healthy, "findings": [asdict(finding) for finding in findings]}
        typer.echo(json.dumps(report, indent=1))
    else:
        _print(findings)
    raise typer.Exit(exit_codes.OK if is_healthy else exit_codes.FAILED)


def diagnose(config: Path | None, root: Path) -> "Iterable[Finding]":
    """Make every check, with the settings of this environment.

    Args:
        config: TOML file.
        root: `/`, or a test's replacement of it.
    """
    from forebay_server.service.tuning import tune_process

    tune_process()  # before the first import of grpc
    from forebay_server.service.cli.checks import machine_findings
    from forebay_server.service.cli.checks_setup import load_or_explain, setup_findings
    from forebay_server.service.log import configure_logs
    from forebay_server.service.settings import ServeSettings

    configure_logs("console", "error")
    settings, findings = load_or_explain(config, os.environ)
    defaults = ServeSettings.model_fields["max_streams"].default
    yield from machine_findings(root, defaults if settings is None else settings.max_streams)
    yield from findings
    if settings is not None:
        yield from setup_findings(settings, os.environ)


def _print(findings: "Iterable[Finding]") -> None:
    for finding in findings:
        typer.echo(f"{_SIGNS[finding.level]:<5}  {finding.check}: {finding.detail}")
        if finding.remedy and finding.level != "ok":
            typer.echo(f"       {finding.remedy}")
