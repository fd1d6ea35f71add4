"""What an exception means, and how it is written down."""

from __future__ import annotations

import datetime as dt
import urllib.error
from email.message import Message
from email.utils import format_datetime
from typing import Any

import pytest

from windlass import Discard, PayloadInvalid, Retry, Windlass
from windlass.core.errors import PayloadTooLarge
from windlass.core.job import Discarded, Failed
from windlass.runtime.verdict import classify, describe, failure, place, retry_after


class Answer:
    def __init__(self, status: Any, headers: Any) -> None:
        self.status_code, self.headers = status, headers


class HttpxLike(Exception):
    def __init__(self, status: Any, headers: Any) -> None:
        self.response = Answer(status, headers)


class AiohttpLike(Exception):
    def __init__(self, status: Any, headers: Any) -> None:
        self.status, self.headers = status, headers


def urllib_like(status: int, headers: dict[str, str]) -> urllib.error.HTTPError:
    message = Message()
    for name, value in headers.items():
        message[name] = value
    return urllib.error.HTTPError("http://x", status, "", message, None)


@pytest.mark.parametrize("make", [HttpxLike, AiohttpLike, urllib_like])
def test_retry_after_is_honoured(make: Any) -> None:
    """I12, for the two answers that say when."""
    assert retry_after(make(503, {"Retry-After": "7"})) == 7.0
    assert retry_after(make(429, {"Retry-After": " 0 "})) == 0.0
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=100)
    assert 95 < (retry_after(make(503, {"Retry-After": format_datetime(soon, usegmt=True)})) or 0) <= 101
    past = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    assert retry_after(make(503, {"Retry-After": format_datetime(past, usegmt=True)})) == 0.0
    assert retry_after(make(429, {"Retry-After": "99999999"})) == 86_400.0
    for nonsense in ({}, {"Retry-After": ""}, {"Retry-After": "soon"}, {"Retry-After": "-1"}, {"Retry-After": "1.5.2"}):
        assert retry_after(make(429, nonsense)) is None
    assert retry_after(make(404, {"Retry-After": "7"})) is None
    assert retry_after(make(200, {"Retry-After": "7"})) is None


class Hostile(Exception):
    @property
    def response(self) -> Any:
        raise RuntimeError

    @property
    def headers(self) -> Any:
        raise KeyboardInterrupt if False else ValueError

    def __str__(self) -> str:
        raise ValueError("no")


@pytest.mark.parametrize(
    "error",
    [Hostile(), HttpxLike("503", {"Retry-After": "7"}), HttpxLike(503, None), HttpxLike(503, ["x"]), HttpxLike(503, {"Retry-After": b"7"}),
     Exception("Retry-After: 7"), OSError(503, "x"), SystemExit(503)],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_what_is_no_http_answer_says_nothing(error: BaseException) -> None:
    assert retry_after(error) is None


def test_the_task_decides_and_the_nearest_class_wins(memory: Windlass) -> None:
    @memory.task(permanent=(OSError, KeyError), transient=(ConnectionError, LookupError, PayloadInvalid))
    def task() -> None: ...

    verdict = {
        OSError(): True, ConnectionError(): False, ConnectionResetError(): False, FileNotFoundError(): True,
        KeyError(): True, IndexError(): False, LookupError(): False, PayloadInvalid("x", "y"): False,
        PayloadTooLarge("x", "y"): True, RuntimeError(): False,
    }  # fmt: skip
    assert {error: classify(error, task.taskdef())[0] for error in verdict} == verdict


def test_without_a_word_from_the_task_only_payload_errors_are_permanent(memory: Windlass) -> None:
    definition = memory.task(name="t")(lambda: None).taskdef()
    for error in (TypeError(), ValueError(), TimeoutError(), ConnectionError(), MemoryError(), urllib_like(500, {})):
        assert classify(error, definition) == (False, None)
    assert classify(PayloadInvalid("x", "y"), definition) == (True, None)
    assert classify(urllib_like(429, {"Retry-After": "3"}), definition) == (False, 3.0)


def test_an_exception_is_written_as_text() -> None:
    try:
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise Hostile from error
    except Hostile as error:
        info = describe(error)
    assert info.kind == f"{__name__}.Hostile" and info.message == "<its __str__ raised ValueError>"
    assert "KeyError: 'inner'" in info.trace and "test_verdict.py" in info.trace
    assert describe(ValueError("x")).kind == "ValueError"


def test_an_exception_is_never_too_long_and_never_no_text() -> None:
    """I24 for exceptions: surrogates, NUL and megabytes end as text that every store takes."""
    info = describe(ValueError("é" * 10_000 + "\ud800"))
    assert len(info.message.encode()) <= 8 * 1024 and info.message.endswith("é...")
    assert len(info.trace.encode()) <= 32 * 1024
    assert describe(ValueError("a\ud800\0b")).message == "a\\ud800\0b"
    long = describe(ValueError("x" * 100_000))
    assert long.trace.startswith("...x") and len(long.trace.encode()) == 32 * 1024
    try:
        deep(0)
    except RecursionError as error:
        assert describe(error).kind == "RecursionError" and len(describe(error).trace.encode()) <= 32 * 1024


def deep(n: int) -> int:
    return deep(n + 1) + 1


def test_an_error_whose_class_is_odd_is_described_all_the_same() -> None:
    odd = type("é" * 600, (Exception,), {"__module__": "m"})
    assert len(describe(odd()).kind.encode()) <= 512
    assert describe(ExceptionGroup("several", [ValueError(1), KeyError(2)])).message == "several (2 sub-exceptions)"


def raised(call: Any) -> BaseException:
    with pytest.raises(Exception) as caught:
        call()
    return caught.value


class Bank:
    def pay(self) -> None:
        raise LookupError("no card")

    def parse(self) -> None:
        import json

        json.loads("{")


def test_the_place_is_in_the_users_own_code() -> None:
    """The innermost of their functions, not of a library that they called; and no line."""
    here = f"{__name__}:Bank"
    assert place(raised(Bank().pay)) == f"{here}.pay"
    assert place(raised(Bank().parse)) == f"{here}.parse"
    assert describe(raised(Bank().pay)).place == f"{here}.pay"


def test_a_place_in_installed_code_is_the_second_best(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An application may be installed like a library; then all there is to tell is the innermost function."""
    package = tmp_path / "lib" / "site-packages"
    package.mkdir(parents=True)
    (package / "shop_of_test.py").write_text("def outer(f):\n    return f()\ndef inner():\n    raise ValueError\n")
    monkeypatch.syspath_prepend(str(package))
    import shop_of_test

    assert place(raised(lambda: shop_of_test.outer(shop_of_test.inner))).endswith("<lambda>")
    error = raised(shop_of_test.inner)
    error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
    assert place(error) == "shop_of_test:inner"


def test_an_error_that_was_never_raised_has_no_place() -> None:
    assert place(ValueError("x")) == ""
    assert place(PayloadInvalid("x", "y")) == ""


class Exits(Exception):
    """Ends the interpreter when it is asked anything."""

    @property
    def response(self) -> Any:
        raise SystemExit(7)

    def __str__(self) -> str:
        raise SystemExit(7)


def masked(*args: Any) -> Exception:
    """Of a class that does not even say where it is from; made here, as who collects tests asks every class."""

    class Shy(type):
        def __getattribute__(cls, name: str) -> Any:
            raise SystemExit(7)

    class Masked(Exception, metaclass=Shy):
        pass

    return Masked(*args)


def test_an_error_whose_own_code_exits_is_described_all_the_same(memory: Windlass) -> None:
    info = describe(Exits())
    assert (info.kind, info.message) == (f"{__name__}.Exits", "<its __str__ raised SystemExit>")
    assert describe(masked("x")).kind.endswith("Masked")
    assert describe(masked("x")).message == "x"
    definition = memory.task(name="t")(lambda: None).taskdef()
    for error in (Exits(), masked(), Retry(Exits()), Discard(Exits())):  # type: ignore[arg-type]
        assert isinstance(failure(definition, error), Failed | Discarded)
