"""`forebay config show` and `forebay config schema`: the existing settings, and their current values."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

config_app = typer.Typer(
    name="config",
    help="Show the settings of `forebay serve`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)
Config = Annotated[Path | None, typer.Option("--config", help="TOML file")]


@config_app.command()
def show(
    *,
    config: Config = None,
    origin: Annotated[bool, typer.Option("--origin", help="say where each value comes from")] = False,
    is_json: Annotated[bool, typer.Option("--json", help="print one JSON object and nothing else")] = False,
) -> None:
    """Print the settings of this environment, as a TOML file that `--config` accepts."""
    from forebay_server.service.cli.serve import settings_or_exit

    loaded = settings_or_exit({}, config)
    values = loaded.values.model_dump(mode="json")
    if is_json:
        report = {name: {"value": value, "origin": loaded.origins[name]} for name, value in values.items()}
        typer.echo(json.dumps(report, indent=1) if origin else json.dumps(values, indent=1))
        return
    for name, value in values.items():
        line = f"# {name} is not set" if value is None else f"{name} = {_toml(value)}"
        typer.echo(f"{line:<48}  # {loaded.origins[name]}" if origin else line)


@config_app.command()
def schema() -> None:
    """Print every setting with type, default, range and meaning, as a JSON schema of the TOML file."""
    from forebay_server.service.settings import ServeSettings

    typer.echo(json.dumps(ServeSettings.model_json_schema(), indent=1))


def _toml(value: Any) -> str:  # noqa: ANN401 - the value of any setting
    """Return a value as TOML, which equals JSON for these types."""
    return json.dumps(value)
