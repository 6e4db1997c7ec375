"""The command that counts verifications."""

from datetime import datetime
from typing import Annotated

import typer

from app.cli.output import AsJson, examples, print_json, print_table
from app.cli.runtime import load_settings, operator, run_with
from app.domain.counts import Dimension, day_of
from app.factory import Services
from app.routers.stats import Stats, StatsQuery

app = typer.Typer()

_DAY = ["%Y-%m-%d"]


@app.command(
    epilog=examples(
        "faceid-results stats",
        "faceid-results stats --from 2026-11-01 --to 2026-11-30 --by outcome --by err_code --json",
    )
)
def stats(
    start: Annotated[datetime | None, typer.Option("--from", formats=_DAY, help="The first day.")] = None,
    end: Annotated[datetime | None, typer.Option("--to", formats=_DAY, help="The last day; by default today.")] = None,
    by: Annotated[list[Dimension] | None, typer.Option(help="Count by this; several are possible.")] = None,
    client: Annotated[str | None, typer.Option(help="Only this client.")] = None,
    as_json: AsJson = False,
) -> None:
    """Count verifications by the day on which they were accepted, in Beijing time.

    Without --from 30 days are counted, and without --by the outcomes of each day.
    """
    wanted = StatsQuery.model_validate(
        {
            "from": start and start.date(),
            "to": end and end.date(),
            "by": by or [Dimension.DAY, Dimension.OUTCOME],
            "client": client,
        }
    )
    found = run_with(load_settings(), lambda services: _count(services, wanted)).model_dump(
        mode="json", by_alias=True, exclude_unset=True
    )
    if as_json:
        print_json(found)
    else:
        rows = [
            ["-" if item[name] is None else str(item[name]) for name in (*wanted.by, "count")]
            for item in found["items"]
        ]
        print_table([*wanted.by, "count"], rows)


async def _count(services: Services, wanted: StatsQuery) -> Stats:
    chosen = wanted.filter(day_of(services.clock()))
    return Stats.of(chosen, list(await services.counts.count(operator(), chosen, wanted.by)))
