"""`app.close()` gives back what the application opened, and nothing that somebody else works on."""

from __future__ import annotations

from pathlib import Path

import pytest

from windlass import Windlass


@pytest.mark.parametrize("url", ["memory://", "sqlite:///{}/jobs.db"])
def test_a_handler_may_close_the_application_under_an_embedded_worker(tmp_path: Path, url: str) -> None:
    app = Windlass(url.format(tmp_path))

    @app.task(name="one")
    def one() -> int:
        return 1

    @app.task(name="many")
    async def many() -> list[str]:
        with app:
            first = await one.aenqueue()
        app.close()
        return [first.id, (await one.aenqueue()).id]

    # Who waits does so by an application of its own: what is closed under it is closed for it as well.
    waiting = app if url == "memory://" else Windlass(app.settings.url)
    worker = app.run_embedded()
    try:
        for _ in range(3):
            for each in waiting.job(many.enqueue().id).result(10.0):
                assert waiting.job(each).result(10.0) == 1
    finally:
        assert worker.stop()
        waiting.close()
        app.close()


def test_a_store_in_memory_is_gone_once_no_worker_works_on_it() -> None:
    with Windlass("memory://") as app:

        @app.task(name="one")
        def one() -> int:
            return 1

        worker = app.run_embedded()
        job = one.enqueue()
        assert job.result(10.0) == 1
        assert worker.stop()
        opened = app.opened
        app.close()
        assert app.opened is not opened
