"""The benchmarks measure what they report. The figures depend on the machine, so no limits are asserted."""

from collections.abc import Callable, Sequence
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import attacks, flood, latency, quota
from benchmarks.arrivals import per_second
from benchmarks.figures import Line, page, table


@given(st.lists(st.integers(0, 50), max_size=60).map(lambda tenths: [tenth / 10 for tenth in sorted(tenths)]))
def test_sliding_second_excludes_arrivals_a_second_before(arrivals: Sequence[float]) -> None:
    seconds = [[at for at in arrivals[:end] if at > arrivals[end - 1] - 1] for end in range(1, len(arrivals) + 1)]

    assert per_second(arrivals) == [len(second) for second in seconds]


async def test_quota_figures_add_up_to_the_ledger() -> None:
    report = await quota.run(quota.Options(workers=1, seconds=2, database="sqlite", kill=True))

    figures = report.figures
    assert int(figures["in 2 s"]) + int(figures["else"]) == len(report.arrivals)
    assert 0 < report.most <= len(report.arrivals)
    assert report.peak > 0
    # Two seconds have room for 100 calls.
    assert figures["used"] == f"{report.calls:.1f} %"
    assert quota.table([report, report]).row_count == 2


async def test_latency_parts_add_up() -> None:
    measured = await latency.run(times=3)

    through, direct, added, registered, fetched, rest = measured.values()
    assert [len(values) for values in measured.values()] == [3] * 6
    assert [one - other for one, other in zip(through, direct, strict=True)] == added
    assert [round(sum(parts), 6) for parts in zip(registered, fetched, rest, strict=True)] == [
        round(ms, 6) for ms in through
    ]
    assert latency.table(measured).row_count == 6


async def test_forged_redirects_cause_no_call_to_tencent() -> None:
    report = await flood.run(flood.Options(seconds=2, rate=200))

    assert (len(report.honest), len(report.redirects), report.forged_calls) == (20, 400, 0)
    assert report.calls <= 20
    assert flood.table(report).row_count == 2


@pytest.mark.parametrize("kind", ["redirects", "replays"])
async def test_token_that_is_named_hundreds_of_times_is_called_a_few_times(kind: str) -> None:
    report = await attacks.run(kind, seconds=3)

    assert (len(report.took), report.refused, report.honest_calls) == (15, 0, 15)
    # At 0, 2, 6 and 14 s.
    assert 0 < report.other_calls < 5
    assert f"{kind}: callback to result" in str(report)


@pytest.mark.parametrize("compare", [partial(Line.at_least, least=1), Line.at_most, partial(Line.cheaper, times=1)])
def test_figure_below_one_tick_has_a_ratio(compare: Callable[..., Line]) -> None:
    line = compare("CPU", "s", 0.0, 0.0, "nginx")

    assert line.ratio == 0


# `make bench-smoke` runs the sections.
def test_table_and_page_have_a_line_per_figure() -> None:
    lines = [Line.plain("memory", "MB", 1.5, most=2), Line.at_least("results", "/s", 2.0, 1.0, "the SDK", least=1)]

    assert table(lines).row_count == len(lines)
    assert page(lines, "make bench").count("\n| ") == len(lines) + 2
