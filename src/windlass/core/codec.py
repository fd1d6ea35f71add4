"""Values as JSON text, and back. Nothing is pickled, and nothing is created by a name found in data.

A value either comes back as it was, or is refused before it is stored, with the path of the guilty part (I24).
What a type looks like in JSON is msgspec's business; the hooks add paths, subclasses of plain types, and pydantic
models (recognised by their methods: pydantic itself is never imported).
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Collection, Iterator
from typing import Any

import msgspec

from windlass.core.duplicates import refuse_duplicates
from windlass.core.errors import PayloadInvalid, PayloadTooLarge


class Limits(msgspec.Struct, frozen=True):
    """How large payloads and results may be, in bytes of UTF-8, and how deeply lists and objects may be nested."""

    payload: int = 256 * 1024
    result: int = 1024 * 1024
    depth: int = 64


def encode(value: Any, where: str) -> str:
    """Return `value` as JSON text; raises PayloadInvalid, naming the path below `where`."""
    try:
        text = _encode(value).decode()
    except RecursionError:
        raise PayloadInvalid(where, "is nested too deeply, or contains itself") from None
    except _UNFIT as error:
        raise PayloadInvalid(*_guilty(value, where, error)) from None
    if _TIME.search(text):
        _refuse_fold(value, where)
    return text


def encode_result(value: Any, limits: Limits, where: str = "result") -> str:
    """Return a handler's result as JSON text; raises PayloadInvalid or PayloadTooLarge, with a path below `where`."""
    text = encode(value, where)
    measure(text, limits.result, limits.depth, where)
    # msgspec writes NaN and infinity as null. Everything else in a result may become what JSON makes of it.
    if "null" in text and value is not None:
        refuse_loss(msgspec.to_builtins(value, enc_hook=_plain, str_keys=True), msgspec.json.decode(text), where)
    # Keys of several types, as 1 and "1", may become the same text. What is read and written again has lost one.
    flat = type(value) is dict and text.count("{") == 1 and {*map(type, value)} == {str}
    if not flat and "{" in text and _encode(_decode(text)).decode() != text:
        refuse_duplicates(text, where)
    return text


def measure(text: str, most: int, depth: int, where: str, *, wrapped: int = 0) -> None:
    """Refuse JSON text of more than `most` bytes or nested more than `depth` deep, `wrapped` levels not counted."""
    size = len(text) if text.isascii() else len(text.encode())
    if size > most:
        raise PayloadTooLarge(where, f"is {size} bytes of JSON, over the limit of {most}; store the data, pass its key")
    # Brackets inside strings count here too: few values have as many as would make the walk worth its time.
    allowed = depth + wrapped
    if text.count("[") + text.count("{") > allowed and _depth(msgspec.json.decode(text), allowed) > allowed:
        raise PayloadInvalid(where, f"is nested more than {depth} deep")


def decoder(annotation: Any) -> Callable[[Any], Any]:
    """A function from JSON (text, bytes or msgspec.Raw) to `annotation`; raises TypeError where JSON cannot hold it."""
    return msgspec.json.Decoder(annotation, dec_hook=_rebuild).decode


def decode(decode_one: Callable[[Any], Any], text: Any, where: str) -> Any:
    """Call a `decoder`; raises PayloadInvalid, with the path below `where`, for what does not fit."""
    try:
        return decode_one(text)
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at `")
        raise PayloadInvalid(path.replace("`", "").replace("$", where, 1) or where, _phrase(problem)) from None
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise PayloadInvalid(where, f"is not JSON that can be read: {error}") from None


def travels(annotation: Any) -> bool:
    """Whether JSON can hold `annotation`: not so a database pool, a logger or a callable."""
    try:
        info = msgspec.inspect.type_info(annotation)
        msgspec.json.Decoder(annotation, dec_hook=_rebuild)
    except (TypeError, NameError):
        return False
    return not isinstance(info, msgspec.inspect.CustomType) or _rebuildable(info.cls)


def builtins(value: Any, where: str) -> Any:
    """Reduce `value` to what JSON knows; raises PayloadInvalid, with the path, where that is impossible."""
    try:
        return msgspec.to_builtins(value, enc_hook=_plain)
    except RecursionError:
        raise PayloadInvalid(where, "is nested too deeply, or contains itself") from None
    except _UNFIT as error:
        raise PayloadInvalid(*_guilty(value, where, error)) from None


def refuse_loss(sent: Any, seen: Any, where: str) -> None:
    """Raise PayloadInvalid, with the path, where `seen`, read back from JSON, is not what was `sent`.

    Lists and tuples may stand for each other: JSON has one of them. Whatever else would change on the way (NaN into
    null, a set into a list or bytes into text because no annotation says otherwise, a number as a key) is refused now,
    not found later.
    """
    if _same(sent, seen):
        return
    if isinstance(sent, dict) and isinstance(seen, dict):
        for key, value in sent.items():
            path = f"{where}.{key}" if isinstance(key, str) else f"{where}[{_short(key)}]"
            if key not in seen:
                raise PayloadInvalid(path, f"a key of type {_kind(key)} would arrive as str; annotate the parameter")
            refuse_loss(value, seen[key], path)
    elif isinstance(sent, _LISTS) and isinstance(seen, _LISTS) and len(sent) == len(seen):
        for i, (before, after) in enumerate(zip(sent, seen, strict=True)):
            refuse_loss(before, after, f"{where}[{i}]")
    elif type(sent) is type(seen) and not isinstance(sent, _PLAIN):
        _refuse_lost_part(sent, seen, where)
    else:
        raise PayloadInvalid(where, _loss(sent, seen))


def _refuse_lost_part(sent: Any, seen: Any, where: str) -> None:
    """Of two of one class that are unequal, or do not know. What they look like in JSON is asked last: a model may
    leave out a field, or mask it, and both then look the same."""
    names = _fields(sent)
    for name in names:
        refuse_loss(getattr(sent, name, None), getattr(seen, name, None), f"{where}.{name}")
    if names:
        more, came = getattr(sent, "model_extra", None), getattr(seen, "model_extra", None)
        return refuse_loss(more or {}, came or {}, where)
    if hasattr(sent, "model_dump") or (isinstance(sent, _SETS) and any(hasattr(each, "model_dump") for each in sent)):
        raise PayloadInvalid(where, f"the {_kind(sent)} would not arrive as it is")
    return refuse_loss(builtins(sent, where), builtins(seen, where), where)


def _refuse_fold(value: Any, where: str) -> None:
    """ISO 8601 has no word for the second of two hours that a clock shows alike; the first would arrive."""
    if isinstance(value, (dt.datetime, dt.time)):
        if value.fold and value.tzinfo is None:
            raise PayloadInvalid(where, "has fold=1, which JSON cannot say; give it a time zone")
    elif not isinstance(value, _PLAIN):
        for path, child in _children(value, where):
            _refuse_fold(child, path)


_LISTS = (list, tuple)
_SETS = (set, frozenset)
_TIME = re.compile(r':\d\d(?:\.\d+)?"')
"""How a time without a zone ends, and little else."""
_SENTENCES = ("Expected ", "Invalid ", "Object ", "Exceeds ", "Only ", "Integer ", "Number ")
"""How msgspec begins; ours go on behind a colon."""
_PLAIN = (str, bytes, int, float, type(None))
_EXACT: dict[type, Callable[[Any], Any]] = {str: str.__str__, int: int.__int__, float: float.__float__}
_UNFIT = (TypeError, ValueError, OverflowError)  # UnicodeEncodeError, of a lone surrogate, is a ValueError


def _plain(value: Any) -> Any:
    """What msgspec does not know by itself; it calls this and goes on with the answer."""
    kind = type(value)
    for plain, exact in _EXACT.items():  # of which it accepts no subclasses
        if isinstance(value, plain):
            return exact(value)
    if hasattr(kind, "model_dump"):
        return value.model_dump(mode="json")
    if hasattr(kind, "__fspath__"):
        return value.__fspath__()
    if hasattr(kind, "__index__") and not hasattr(kind, "__len__"):  # integers of numeric libraries
        return value.__index__()
    raise TypeError(f"{_kind(value)} cannot travel as JSON")


def _rebuildable(cls: Any) -> bool:
    if cls is object or hasattr(cls, "model_validate") or hasattr(cls, "__fspath__"):
        return True
    return isinstance(cls, type) and issubclass(cls, (str, int, float))


def _rebuild(cls: Any, value: Any) -> Any:
    """The way back from `_plain`, for an annotated class that msgspec does not know."""
    if cls is object:
        return value
    plain: Any
    if hasattr(cls, "model_validate"):
        return cls.model_validate(value)
    if hasattr(cls, "__fspath__") and isinstance(value, str):
        return cls(value)
    for plain in _EXACT:
        if isinstance(cls, type) and issubclass(cls, plain) and type(value) is plain:
            return cls(value)
    raise TypeError(f"Expected `{getattr(cls, '__name__', cls)}`, got `{_kind(value)}`")


_encode = msgspec.json.Encoder(enc_hook=_plain).encode
_decode = msgspec.json.Decoder().decode


def _guilty(value: Any, where: str, error: Exception) -> tuple[str, str]:
    """The deepest part of `value` that cannot be encoded by itself, and why."""
    for path, child in _children(value, where):
        try:
            _encode(child)
        except _UNFIT as inner:
            return _guilty(child, path, inner)
    if isinstance(error, UnicodeEncodeError):
        return where, "holds a lone surrogate, which is no character"
    return where, _phrase(str(error))


def _children(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, child in value.items():
            if isinstance(key, str):
                yield f"{where}, key {_short(key)}", key
            yield f"{where}.{key}" if isinstance(key, str) else f"{where}[{_short(key)}]", child
    elif isinstance(value, (list, tuple, set, frozenset)):
        yield from ((f"{where}[{i}]", child) for i, child in enumerate(value))
    else:
        yield from ((f"{where}.{name}", getattr(value, name)) for name in _fields(value) if hasattr(value, name))


def _fields(value: Any) -> Collection[str]:
    """The names of what a struct, a dataclass, an attrs class or a pydantic model holds; none for anything else."""
    kind = type(value)
    for table in ("__struct_fields__", "__dataclass_fields__", "model_fields"):
        if names := getattr(kind, table, ()):
            return tuple(names)
    return tuple(each.name for each in getattr(kind, "__attrs_attrs__", ()))


def _depth(value: Any, most: int) -> int:
    """Levels of nesting, counted no further than `most` + 1."""
    level, depth = [value], 0
    while depth <= most:
        level = [part for part in level if isinstance(part, (list, dict))]
        if not level:
            break
        depth += 1
        level = [child for part in level for child in (part.values() if isinstance(part, dict) else part)]
    return depth


def _same(sent: Any, seen: Any) -> bool:
    try:
        return bool(sent == seen)
    except Exception:  # a user's `__eq__` may raise anything; then the parts are compared
        return False


def _loss(sent: Any, seen: Any) -> str:
    if seen is None and isinstance(sent, float):
        return f"{_short(sent)} is not a JSON number"
    if type(sent) is type(seen):  # not what they are: it may be kept out of JSON because it is a secret
        return f"this {_kind(sent)} would not arrive as it is"
    return f"{_kind(sent)} would arrive as {_kind(seen)}; annotate the parameter as {_kind(sent)}, or convert it"


def _kind(value: Any) -> str:
    return type(value).__name__


def _short(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _phrase(message: str) -> str:
    text = message.replace("`array`", "a list").replace("`object`", "a dict").replace("`", "")  # in Python's words
    return text[:1].lower() + text[1:] if text.startswith(_SENTENCES) else text
