"""I24: any JSON value round-trips, or is refused at enqueue with a named path."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import json
import math
import pathlib
import uuid
from typing import Any, Literal, NewType, TypedDict

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.core import codec
from windlass.core.binding import Binder, pack_unknown
from windlass.core.codec import Limits
from windlass.core.errors import PayloadInvalid, PayloadTooLarge, RegistrationError

LIMITS = Limits()


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


@dataclasses.dataclass
class Point:
    x: int
    when: dt.date | None = None


@dataclasses.dataclass(eq=False)
class Unequal:
    data: Any


class Photo(msgspec.Struct):
    path: str
    tags: set[str] = set()


class Address(TypedDict):
    street: str


class Model:
    """Shaped as a pydantic model is."""

    def __init__(self, n: int) -> None:
        self.n = n

    def model_dump(self, *, mode: str) -> dict[str, Any]:
        assert mode == "json"
        return {"n": self.n}

    @classmethod
    def model_validate(cls, data: Any) -> Model:
        if not isinstance(data.get("n"), int):
            raise ValueError("n must be an int")
        return cls(data["n"])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Model) and other.n == self.n


class Account:
    """Shaped as a pydantic model is that leaves one field out of its JSON, and masks another."""

    model_fields = {"name": 1, "note": 1, "key": 1}  # noqa: RUF012 - as it is in a model

    def __init__(self, name: str, note: str = "", key: str = "***") -> None:
        self.name, self.note, self.key = name, note, key

    def model_dump(self, *, mode: str) -> dict[str, Any]:
        assert mode == "json"
        return {"name": self.name, "key": "***"}

    @classmethod
    def model_validate(cls, data: Any) -> Account:
        return cls(**data)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Account) and vars(other) == vars(self)


class Opaque(Account):
    """One that does not say what its fields are."""

    model_fields = {}  # noqa: RUF012 - as it is in a model
    __hash__ = None  # type: ignore[assignment]


@dataclasses.dataclass
class Holder:
    account: Account


class Index:
    """Shaped as a numeric library's integer is."""

    def __index__(self) -> int:
        return 7

    def __eq__(self, other: object) -> bool:
        return other == 7


class Text(str):
    __slots__ = ()


UserId = NewType("UserId", int)
UTC = dt.UTC


def binder(annotation: Any) -> Binder:
    def task(x: Any) -> None: ...

    return Binder(task, {"x": annotation}, ())


def there_and_back(value: Any, annotation: Any) -> Any:
    one = binder(annotation)
    (args, kwargs) = one.bind(one.pack((value,), {}, LIMITS))
    assert not kwargs
    return args[0]


ROUND_TRIPS = [
    (None, Any), (True, bool), (0, int), (-0.0, float), (2**53 + 1, int), (2**64, int), (-(2**70), Any), (1.5, float),
    (5e-324, float), (1.7976931348623157e308, Any), (1, float), ("", str), ("\0", str), ("a\u2028\U0001f600", Any),
    ("x" * 100_000, str), ([], list[int]), ([[1], []], list[list[int]]), ({}, Any), ({"": {"\0": None}}, Any),
    ({1: "a"}, dict[int, str]), ({"a": 1}, dict[str, int]), ((1, "a"), tuple[int, str]), ({1, 2}, set[int]),
    (frozenset({"a"}), frozenset[str]), (b"\xff\x00", bytes), (bytearray(b"x"), bytearray),
    (dt.datetime(2026, 1, 2, 3, 4, 5, 6), dt.datetime), (dt.datetime(2026, 1, 2, tzinfo=UTC), dt.datetime),
    (dt.date(1, 1, 1), dt.date), (dt.time(23, 59), dt.time), (dt.timedelta(seconds=1.5), dt.timedelta),
    (uuid.UUID(int=7), uuid.UUID), (decimal.Decimal("1.10"), decimal.Decimal), (Colour.RED, Colour), (Level.HIGH, Level),
    (Point(1, dt.date(2026, 1, 1)), Point), ([Point(1)], list[Point]), (Photo("a", {"b"}), Photo),
    ({"street": "x"}, Address), (pathlib.Path("/tmp/x"), pathlib.Path), (None, pathlib.Path | None), (Model(3), Model),
    ([Model(1), Model(2)], list[Model]), (Account("a"), Account), (Holder(Account("b")), Holder),
    (dt.datetime(2026, 10, 25, 2, 30, tzinfo=UTC, fold=1), dt.datetime), ("a", Literal["a", "b"]), (UserId(3), UserId), (Text("x"), str), (Text("y"), Text),
    (Index(), int), (3, int | str), (object, object), (decimal.Decimal("NaN"), decimal.Decimal),
]  # fmt: skip


def named(case: object) -> str:
    """Without addresses: tests that run in several processes must be called the same in each."""
    return repr(case).partition(" object at ")[0]


@pytest.mark.parametrize(("value", "annotation"), [case for case in ROUND_TRIPS if case[0] is not object], ids=named)
def test_a_value_comes_back_as_it_was(value: Any, annotation: Any) -> None:
    back = there_and_back(value, annotation)
    assert back == value or (value != value and back != back)
    assert math.copysign(1, back) == math.copysign(1, value) if isinstance(value, float) else True


def test_an_integer_of_4300_digits_comes_back_and_one_more_is_refused() -> None:
    assert there_and_back(10**4299, int) == 10**4299
    with pytest.raises(PayloadInvalid, match="^x: exceeds the limit"):
        there_and_back(10**4300, int)


def test_a_class_without_equality_is_believed_but_its_parts_are_compared() -> None:
    assert there_and_back(Unequal([1]), Unequal).data == [1]
    with pytest.raises(PayloadInvalid, match=r"^x\.data\[1\]: nan is not a JSON number"):
        there_and_back(Unequal([1, math.nan]), Unequal)


class Picky:
    def __eq__(self, other: object) -> bool:
        raise RuntimeError("ambiguous")


REFUSED = [
    (math.nan, Any, "x: nan is not a JSON number"),
    (math.nan, float, "x: nan is not a JSON number"),
    ([1, {"a": math.inf}], Any, "x[1].a: inf is not a JSON number"),
    ("7", int, "x: expected int, got str"),
    (True, int, "x: expected int, got bool"),
    (1.0, int, "x: expected int, got float"),
    (None, int, "x: expected int, got null"),
    ([1, "2"], list[int], "x[1]: expected int, got str"),
    ({"a": [Point(1), {"x": "y"}]}, dict[str, list[Point]], "x[...][1].x: expected int, got str"),
    ("\ud800", str, "x: holds a lone surrogate, which is no character"),
    ({"a": ["\udfff"]}, Any, "x.a[0]: holds a lone surrogate, which is no character"),
    ({"\ud800": 1}, Any, "x, key '\\ud800': holds a lone surrogate, which is no character"),
    (b"x", Any, "x: bytes would arrive as str; annotate the parameter as bytes, or convert it"),
    (b"x", str, "x: bytes would arrive as str; annotate the parameter as bytes, or convert it"),
    ([uuid.UUID(int=1)], list[str], "x[0]: UUID would arrive as str; annotate the parameter as UUID, or convert it"),
    ({"when": dt.date(2026, 1, 1)}, Any, "x.when: date would arrive as str; annotate the parameter as date, or convert it"),
    ({1, 2}, Any, "x: set would arrive as list; annotate the parameter as set, or convert it"),
    ({1}, list[int], "x: set would arrive as list; annotate the parameter as set, or convert it"),
    ({"a": [frozenset({1})]}, Any, "x.a[0]: frozenset would arrive as list; annotate the parameter as frozenset, or convert it"),
    (Point(1), Any, "x: Point would arrive as dict; annotate the parameter as Point, or convert it"),
    ({1: 2}, Any, "x[1]: a key of type int would arrive as str; annotate the parameter"),
    ({"a": {2.5: 3}}, Any, "x.a[2.5]: a key of type float would arrive as str; annotate the parameter"),
    ({None: 1}, Any, "x: NoneType cannot travel as JSON"),
    ({(1, 2): 1}, Any, "x: tuple cannot travel as JSON"),
    ({"a": [object()]}, Any, "x.a[0]: object cannot travel as JSON"),
    (Photo("a", {1j}), Any, "x.tags[0]: complex cannot travel as JSON"),  # type: ignore[arg-type]
    (lambda: 1, Any, "x: function cannot travel as JSON"),
    ((i for i in ()), Any, "x: generator cannot travel as JSON"),
    (Picky(), Any, "x: Picky cannot travel as JSON"),
    ("c", Literal["a", "b"], "x: invalid enum value 'c'"),
    ({"n": "1"}, Model, "x: n must be an int"),
    (Account("a", note="n"), Account, "x.note: this str would not arrive as it is"),
    (Account("a", key="k"), Account, "x.key: this str would not arrive as it is"),
    ([Holder(Account("a", key="k"))], list[Holder], "x[0].account.key: this str would not arrive as it is"),
    (Opaque("a", key="k"), Opaque, "x: the Opaque would not arrive as it is"),
    (dt.datetime(2026, 10, 25, 2, 30, fold=1), dt.datetime, "x: has fold=1, which JSON cannot say; give it a time zone"),
    ([Point(1), dt.time(2, 30, fold=1)], list[Any], "x[1]: has fold=1, which JSON cannot say; give it a time zone"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "annotation", "said"), REFUSED, ids=[case[2] for case in REFUSED])
def test_what_would_change_is_refused_with_its_path(value: Any, annotation: Any, said: str) -> None:
    with pytest.raises(PayloadInvalid) as refused:
        there_and_back(value, annotation)
    assert str(refused.value) == said


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


def test_depth_is_limited_and_said() -> None:
    assert there_and_back(nested(64), Any) == nested(64)
    with pytest.raises(PayloadInvalid, match="^payload: is nested more than 64 deep"):
        there_and_back(nested(65), Any)
    for value in (nested(100_000), circle()):
        with pytest.raises(PayloadInvalid, match="^x: is nested too deeply, or contains itself"):
            there_and_back(value, Any)


def circle() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def test_brackets_in_text_are_not_depth() -> None:
    assert there_and_back("[{" * 1_000, str) == "[{" * 1_000


def test_size_is_limited_in_bytes() -> None:
    fits = Limits(payload=100)
    assert binder(str).pack(("x" * 91,), {}, fits) == json.dumps([["x" * 91], {}], separators=(",", ":"))
    with pytest.raises(PayloadTooLarge, match="^payload: is 101 bytes of JSON, over the limit of 100"):
        binder(str).pack(("x" * 92,), {}, fits)
    with pytest.raises(PayloadTooLarge):
        binder(str).pack(("é" * 60,), {}, fits)


BAD_TEXT = [
    "", "[", "[[1],{}", "{}", "[[1]]", "[[1],{},1]", "[1,{}]", "[[NaN],{}]", "[[Infinity],{}]", '[["\\ud800"],{}]',
    "[[1],{}]x", "[[1e400],{}]", "[[" + "1" * 4301 + "],{}]", "[[" + "[" * 100_000 + "]" * 100_000 + "],{}]", "\x00",
    '[["' + "x" * 10 + "\x01" + '"],{}]',
]  # fmt: skip


@pytest.mark.parametrize("text", BAD_TEXT, ids=[text[:20] for text in BAD_TEXT])
def test_a_payload_that_cannot_be_read_is_an_error_of_its_own(text: str) -> None:
    """It came from a store that another program wrote to: one bad row must not be more than one bad job (I23)."""
    with pytest.raises(PayloadInvalid):
        binder(Any).bind(text)


def test_duplicate_keys_read_as_the_last() -> None:
    assert binder(Any).bind('[[{"a":1,"a":2}],{}]') == ([{"a": 2}], {})


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4),
    max_leaves=20,
)


@given(json_values)
def test_every_json_value_round_trips(value: Any) -> None:
    assert there_and_back(value, Any) == value
    assert json.loads(codec.encode_result(value, LIMITS)) == value
    (args, _) = msgspec.json.decode(pack_unknown((value,), {}, LIMITS))
    assert args == [value]


@given(st.recursive(
    st.none() | st.floats() | st.text(st.characters(categories=["Cs", "L"])) | st.binary() | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.integers() | st.text(), inner, max_size=3),
    max_leaves=8,
))  # fmt: skip
def test_what_is_not_json_round_trips_or_is_refused_and_nothing_else(value: Any) -> None:
    try:
        back = there_and_back(value, Any)
    except PayloadInvalid as refused:
        assert refused.field.startswith("x")
    else:
        assert back == value


# --- without a signature -------------------------------------------------------------------------------------------------


def test_a_task_known_by_name_takes_what_json_can_say() -> None:
    packed = pack_unknown((1, dt.date(2026, 1, 1)), {"when": [dt.date(2026, 1, 2)]}, LIMITS)
    assert packed == '[[1,"2026-01-01"],{"when":["2026-01-02"]}]'


@pytest.mark.parametrize(
    ("args", "kwargs", "said"),
    [
        ((math.nan,), {}, r"args[0]: nan is not a JSON number"),
        ((1, [object()]), {}, "args[1][0]: object cannot travel as JSON"),
        ((), {"a": {1: 2}}, "a[1]: a key of type int would arrive as str; annotate the parameter"),
        ((), {"\ud800": 2}, "payload[1], key '\\ud800': holds a lone surrogate, which is no character"),
        ((circle(),), {}, "args[0]: is nested too deeply, or contains itself"),
    ],
)
def test_and_refuses_what_json_cannot(args: Any, kwargs: Any, said: str) -> None:
    with pytest.raises(PayloadInvalid) as refused:
        pack_unknown(args, kwargs, LIMITS)
    assert str(refused.value) == said


# --- results -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"), ("null", '"null"'), ({"a": None}, '{"a":null}'), ((1, {2}), "[1,[2]]"), (b"x", '"eA=="'),
        ({1: None}, '{"1":null}'), (Point(1), '{"x":1,"when":null}'), (dt.date(2026, 1, 1), '"2026-01-01"'),
        ([Model(1), None], '[{"n":1},null]'),
    ],
)  # fmt: skip
def test_a_result_becomes_what_json_makes_of_it(value: Any, text: str) -> None:
    assert codec.encode_result(value, LIMITS) == text


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (math.nan, "result: nan is not a JSON number"),
        ([None, {"loss": -math.inf}], "result[1].loss: -inf is not a JSON number"),
        ({"a": object()}, "result.a: object cannot travel as JSON"),
        ("\ud800", "result: holds a lone surrogate, which is no character"),
        ({1: "a", "1": "b"}, "result.1: is given twice"),
        ({"é": [{"x": {1.5: 0, "1.5": 1}}]}, "result.é[0].x.1.5: is given twice"),
        (dt.datetime(2026, 10, 25, 2, 30, fold=1), "result: has fold=1, which JSON cannot say; give it a time zone"),
        ({"at": [dt.time(2, fold=1)]}, "result.at[0]: has fold=1, which JSON cannot say; give it a time zone"),
        (nested(65), "result: is nested more than 64 deep"),
        (nested(100_000), "result: is nested too deeply, or contains itself"),
    ],
)
def test_a_result_that_cannot_be_stored_says_so(value: Any, said: str) -> None:
    with pytest.raises(PayloadInvalid) as refused:
        codec.encode_result(value, LIMITS)
    assert str(refused.value) == said


def test_a_large_result_is_too_large() -> None:
    with pytest.raises(PayloadTooLarge, match="^result: is 1048577 bytes of JSON, over the limit of 1048576"):
        codec.encode_result("x" * (1024 * 1024 - 1), LIMITS)


# --- annotations ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("annotation", [list[int] | set[int], pathlib.Path | str, type, json.JSONDecoder, Any.__class__])
def test_an_annotation_that_json_cannot_hold_is_refused_at_registration(annotation: Any) -> None:
    with pytest.raises(RegistrationError, match="^parameter 'x': .* cannot travel as JSON"):
        binder(annotation)


def test_object_takes_anything() -> None:
    assert there_and_back({"a": [1]}, object) == {"a": [1]}
