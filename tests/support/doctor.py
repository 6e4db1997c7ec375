"""The checks of `doctor`, and their findings by name."""

from app.config import Settings
from app.doctor import Doctor, Finding

DOCTOR_CHECKS = [
    "settings",
    "credentials",
    "clock",
    "connection",
    "database",
    "schema",
    "key ring",
    "quota",
    "retrieval",
    "API keys",
    "media owner",
    "media store",
    "disk",
]
"""The checks of `doctor`, in their order."""


async def run_checks(settings: Settings) -> dict[str, Finding]:
    """Returns the findings by the names of their checks."""
    return {finding.check: finding for finding in await Doctor(settings).run_checks()}
