"""A shared value is started once, ends after its last user, and can be started again."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.support.sharing import shared


def test_value_is_started_once_and_ends_after_its_last_user(tmp_path: Path) -> None:
    place, history = tmp_path / "value", list[str]()

    @contextmanager
    def start() -> Iterator[str]:
        history.append("started")
        yield f"value {len(history)}"
        history.append("ended")

    first, second = ExitStack(), ExitStack()
    assert first.enter_context(shared(place, str, start)) == "value 1"
    assert second.enter_context(shared(place, str, start)) == "value 1"
    with ThreadPoolExecutor() as threads:
        left = threads.submit(first.close)
        # Long enough for one that does not wait to be noticed.
        assert not wait([left], timeout=0.2).done
        history.append("second leaves")
        second.close()
        left.result()

    with shared(place, str, start) as value:
        assert value == "value 4"
    assert history == ["started", "second leaves", "ended", "started", "ended"]
