"""Packages that only some tests need, installed from PyPI and npm into folders of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def do(*command: str | Path, folder: Path, **variables: str) -> str:
    """Runs a command that must succeed; returns its output."""
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | variables
    # The registries of this machine, if it has its own.
    environment |= {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "npm_", "NPM_"))}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def install(*command: str | Path, folder: Path) -> None:
    """Runs a command that installs packages. Skips the test if it fails, because the registry may be out of reach."""
    try:
        do(*command, folder=folder)
    except AssertionError as error:
        pytest.skip(f"cannot install from the registry: {str(error).strip().splitlines()[-1]}")


def environment_with(package: str, folder: Path) -> Path:
    """Creates a virtual environment with a package; returns its folder of programs."""
    do(sys.executable, "-m", "venv", "venv", folder=folder)
    programs = folder / "venv" / "bin"
    install(
        programs / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", package, folder=folder
    )
    return programs
