#!/usr/bin/env python3
"""Runs the steps of `faceid-results demo` through the proxy of the compose file, on the deployed services.

Arguments: the address of the proxy inside the composition, and its address from outside.
"""

import asyncio
import sys

from rich.console import Console

from app.cli.demo import GUIDE, create_demo_key, walk
from app.config import read_settings

WAIT_SECONDS = 60


async def main(proxy: str, outside: str) -> int:
    """Runs the walk and returns the exit code."""
    console = Console(soft_wrap=True, highlight=False)
    key = await create_demo_key(read_settings())
    is_complete, biz_token = await walk(console, proxy, key, wait_seconds=WAIT_SECONDS)
    console.print(GUIDE.format(url=outside, key=key, biz_token=biz_token))
    return 0 if is_complete else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:])))
