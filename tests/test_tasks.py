"""Tests of `app.tasks`: no cancellation is lost."""

import asyncio

import pytest

from app import tasks


async def test_end_repeats_a_cancellation_that_the_task_loses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "_PATIENCE_SECONDS", 0.01)
    lost = 0

    async def work() -> None:
        nonlocal lost
        while lost < 3:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                lost += 1
        await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)

    await tasks.end(task)

    assert task.cancelled()
    assert lost == 3


async def test_end_accepts_tasks_that_have_ended_or_fail() -> None:
    async def fail() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError

    done, failing = asyncio.create_task(asyncio.sleep(0)), asyncio.create_task(fail())
    await asyncio.sleep(0.01)

    await tasks.end(done, failing)

    assert done.done()
    assert isinstance(failing.exception(), ValueError)


async def test_cancellation_that_arrives_with_the_event_is_not_lost() -> None:
    for turns in range(5):
        event = asyncio.Event()
        task = asyncio.create_task(tasks.wait_for(event, 60))
        await asyncio.sleep(0)
        event.set()
        for _ in range(turns):
            await asyncio.sleep(0)
        is_late = task.done()
        task.cancel()
        await asyncio.wait([task])

        assert task.cancelled() or is_late


async def test_wait_for_returns_when_the_event_is_set_or_the_time_is_over() -> None:
    event = asyncio.Event()
    await tasks.wait_for(event, 0.001)
    assert not event.is_set()

    event.set()
    await tasks.wait_for(event, 60)
