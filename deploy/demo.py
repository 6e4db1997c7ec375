#!/usr/bin/env python3
"""The walk of the compose file's demo: one verification through the proxy, and how to look at it.

Arguments: the address of the proxy from here, and from outside. The key that it makes and prints ends in a day.
"""

import asyncio
import secrets
import sys
from datetime import timedelta

import httpx
from rich.console import Console

from app.config import read_settings
from app.domain.access import Scope
from app.factory import open_services

WAIT_SECONDS = 60


async def main(proxy: str, outside: str) -> int:
    """Walks, tells, and answers the exit code."""
    key, biz_token = await make_key(), f"passed-{secrets.token_hex(4)}"
    verification = f"/v1/verifications/{biz_token}"
    show = Console(soft_wrap=True, highlight=False).print
    headers = {"Authorization": f"Bearer {key}", "X-Purpose": "demo"}
    async with httpx.AsyncClient(base_url=proxy, headers=headers, timeout=2 * WAIT_SECONDS, trust_env=False) as api:
        answer = await api.post("/v1/callbacks", json={"BizToken": biz_token, "RuleId": "1"})
        show(f"POST /v1/callbacks -> {answer.raise_for_status().status_code}", answer.text)
        answer = await api.get(verification, params={"wait": WAIT_SECONDS})
        show(f"GET {verification} -> {answer.raise_for_status().status_code}", answer.text)
        view = answer.json()
        for medium in view["media"]:
            answer = await api.get(medium["href"])
            told = f"{answer.headers['Content-Type']}, {len(answer.content)} of {medium['size_bytes']} bytes"
            show(f"GET {medium['href']} -> {answer.raise_for_status().status_code} {told}")
    show(
        f"\nAPI key, for a day: {key}",
        f"curl -H 'Authorization: Bearer {key}' {outside}{verification}",
        sep="\n",
    )
    return 0 if (view["outcome"], len(view["media"])) == ("passed", 4) else 1


async def make_key() -> str:
    """A key for everything but administration."""
    everything = [scope for scope in Scope if scope is not Scope.ADMIN]
    async with open_services(read_settings()) as services:
        _, text = await services.access.create(
            "compose demo", everything, client="default", valid_for=timedelta(days=1)
        )
    return text


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:])))
