"""Who is answered while there is no login: this machine by its own names, and pages that came from it."""

from __future__ import annotations

import pytest

from tests.web.conftest import Site


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8000", "LOCALHOST", "127.0.0.1", "127.0.0.1:80", "127.8.8.8", "[::1]", "[::1]:8000"]
)
def test_loopback_names_are_answered(site: Site, host: str) -> None:
    async def story(site: Site) -> None:
        assert (await site.http.ask("GET", "/healthz", host=host)).status == 200

    site.play(story)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", "0.0.0.0",
        "[::]", "[::ffff:10.0.0.1]", "", "[", "localhost\x1b[31m", "xn--localhost", None,
    ],
)  # fmt: skip
def test_other_names_are_refused(site: Site, host: str | None) -> None:
    """DNS rebinding: a page whose own name was pointed to 127.0.0.1 says that name in Host."""

    async def story(site: Site) -> None:
        answer = await site.http.ask("GET", "/healthz", host=host)
        assert (answer.status, answer.json["code"]) == (421, "host_refused")
        assert "\x1b" not in answer.body.decode()

    site.play(story)


def test_two_hosts_are_refused(site: Site) -> None:
    async def story(site: Site) -> None:
        answer = await site.http.ask("GET", "/healthz", headers=[("Host", "evil.example")])
        assert answer.status == 421

    site.play(story)


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "", "file://", "http://localhost.evil.example"])
def test_pages_of_other_origins_are_refused(site: Site, origin: str) -> None:
    """A browser sends a request without a body across origins unasked; the Origin header says so."""

    async def story(site: Site) -> None:
        id = await site.enqueue()
        answer = await site.http.ask("POST", f"/api/v1/jobs/{id}/cancel", headers=[("Origin", origin)], kind=None)
        assert (answer.status, answer.json["code"]) == (403, "origin_refused")
        assert (await site.app.aclient.fetch(id)).state == "queued"

    site.play(story)


def test_pages_of_this_machine_are_answered(site: Site) -> None:
    async def story(site: Site) -> None:
        answer = await site.http.ask("GET", "/healthz", headers=[("Origin", "http://localhost:3000")])
        assert answer.status == 200

    site.play(story)
