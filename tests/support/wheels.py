"""The two wheels of this checkout, and environments with them."""

import os
import subprocess
import sys
import venv

from tools.install_size import copy_source

# A user's machine has none of these.
ENVIRONMENT = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "VIRTUAL_ENV"}}


def run(*command, cwd=None, timeout_s=300, **environment):
    """Run a command that must succeed and return its output."""
    result = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=ENVIRONMENT | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def build_wheels(folder, **environment):
    """Build both from a copy of the sources; return the client's and the server's."""
    source = folder / "source"
    source.mkdir(parents=True)
    copy_source(source)
    pip = (sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder / "wheels")
    run(*pip, source / "client", source, **environment)
    (client,) = (folder / "wheels").glob("forebay_client-*.whl")
    (server,) = (folder / "wheels").glob("forebay-*.whl")
    return client, server


def make_environment(folder, *installed):
    """Make a virtual environment, install the named packages with pip, let pip check it, and return its interpreter."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", *installed, timeout_s=900)
    run(python, "-m", "pip", "check")
    return python
