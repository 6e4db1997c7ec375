"""The program `faceid-results`: the command line, which starts faster without garbage collection."""

import gc
from typing import NoReturn


def main() -> NoReturn:
    """Imports the command line and runs it. Later collections skip the objects of its modules, which always exist."""
    gc.disable()
    from app import cli

    gc.freeze()
    gc.enable()
    cli.main()
