#!/usr/bin/env python3
"""Runs the steps of `faceid-results demo` through the proxy of the compose file, on the deployed services.

Arguments: the address of the proxy inside the composition, and its address from outside.
"""

import asyncio
import sys

from rich.console import Console

from app.cli.demo import create_demo_key, walk
from app.cli.runtime import run_until_stopped
from app.config import read_settings
from app.errors import ServiceError

WAIT_SECONDS = 60
SETTLE_SECONDS = 1

GUIDE = """
The service runs on {url} and is described on {url}/docs.
API key: {key}
To read the first result again:
curl -H "Authorization: Bearer {key}" {url}/v1/verifications/{biz_token}

Press Ctrl-C to stop. `docker compose --profile demo down -v` removes everything."""


async def main(proxy: str, outside: str) -> int:
    """Runs the walk and returns the exit code."""
    console = Console(soft_wrap=True, highlight=False)
    try:
        key = await create_demo_key(read_settings())
    except ServiceError as error:
        console.print(f"The demo could not begin. {error.detail}")
        return 1
    is_complete, biz_token = await walk(console, proxy, key, wait_seconds=WAIT_SECONDS)
    # Compose mixes the output of all services. The lines about these requests must not follow the guide.
    await asyncio.sleep(SETTLE_SECONDS)
    if not is_complete:
        console.print("The demo failed. The lines above say what is missing; `docker compose logs worker` may say why.")
        return 1
    console.print(GUIDE.format(url=outside, key=key, biz_token=biz_token))
    return 0


if __name__ == "__main__":
    # The first process of a container ignores signals that it does not handle.
    sys.exit(run_until_stopped(lambda: main(*sys.argv[1:])))
