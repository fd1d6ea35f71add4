"""Arguments and signatures: how `[args, kwargs]` becomes the arguments of a handler, of the types that it declares."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec

from windlass.core.codec import Limits, builtins, decode, decoder, encode, measure, refuse_loss, travels
from windlass.core.errors import PayloadInvalid, RegistrationError

Arguments = tuple[list[Any], dict[str, Any]]

EMPTY = "[[],{}]"
"""The payload of a call without arguments."""

_shape = msgspec.json.Decoder(tuple[list[msgspec.Raw], dict[str, msgspec.Raw]]).decode


class Slot(msgspec.Struct, frozen=True):
    """One parameter that arguments from a payload may fill."""

    name: str
    decode: Callable[[Any], Any]
    required: bool
    default: Any
    by_name: bool
    """Passed by keyword even if it was given by position: it stands behind a parameter that the worker fills."""


class Binder:
    """The signature of one handler, without the parameters that its worker provides; cheap to use, dear to make."""

    def __init__(self, handler: Callable[..., Any], hints: Mapping[str, Any], provided: Collection[str]) -> None:
        """Raises RegistrationError, naming the parameter, for a signature that no payload can satisfy."""
        self._positional: list[Slot] = []
        self._named: dict[str, Slot] = {}
        self._rest_name = ""
        self._rest: Callable[[Any], Any] | None = None
        self._extra: Callable[[Any], Any] | None = None
        behind = False
        for index, parameter in enumerate(inspect.signature(handler).parameters.values()):
            if parameter.name not in provided:
                self._add(parameter, hints.get(parameter.name, Any), behind=behind)
            elif index:
                behind = True
                if parameter.kind is parameter.POSITIONAL_ONLY:
                    raise _unreachable(parameter.name)
        slots = {slot.name: slot for slot in (*self._positional, *self._named.values())}
        self._required = [name for name, slot in slots.items() if slot.required]
        self._decoders = [slot.decode for slot in self._positional if not slot.by_name]
        # How many arguments, given by position only, are a whole call; none are where a keyword is required.
        named = [name for name in self._required if name not in {slot.name for slot in self._positional}]
        self._least = 1_000_000 if named else sum(slot.required for slot in self._positional)

    def _add(self, parameter: inspect.Parameter, annotation: Any, *, behind: bool) -> None:
        name, kind = parameter.name, parameter.kind
        if not travels(annotation):
            raise RegistrationError(
                f"parameter {name!r}: {getattr(annotation, '__name__', annotation)} cannot travel as JSON; "
                "annotate it with a type that can, or let an on_worker_start hook return it"
            )
        if behind and kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
            raise _unreachable(name)
        slot = Slot(name, decoder(annotation), parameter.default is parameter.empty, parameter.default, behind)
        if kind is parameter.VAR_POSITIONAL:
            self._rest, self._rest_name = slot.decode, name
        elif kind is parameter.VAR_KEYWORD:
            self._extra = slot.decode
        else:
            if kind is not parameter.KEYWORD_ONLY:
                self._positional.append(slot)
            if kind is not parameter.POSITIONAL_ONLY:
                self._named[name] = slot

    def bind(self, payload: str) -> Arguments:
        """Payload text to arguments of the annotated types; raises PayloadInvalid with the name and path."""
        if payload == EMPTY and not self._required:
            return [], {}
        raw_args, raw_kwargs = decode(_shape, payload, "payload")
        if not raw_kwargs and self._least <= len(raw_args) <= len(self._decoders):
            try:  # almost every call; what is wrong with one is found, and named, below
                return [decode_one(raw) for decode_one, raw in zip(self._decoders, raw_args, strict=False)], {}
            except (msgspec.MsgspecError, UnicodeError, RecursionError):
                pass
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        filled = self._by_position(raw_args, args, kwargs)
        for name, raw in raw_kwargs.items():
            slot = self._named.get(name)
            decode_one = slot.decode if slot else self._extra
            if decode_one is None:
                raise PayloadInvalid(name, f"is no argument of this task, which takes {self._known()}")
            if slot and name in filled:
                raise PayloadInvalid(name, "is given twice, by position and by name")
            kwargs[name] = decode(decode_one, raw, name)
        for name in self._required:
            if name not in filled and name not in kwargs:
                raise PayloadInvalid(name, f"is missing; the task takes {self._known()}")
        return args, kwargs

    def _by_position(self, raw: list[Any], args: list[Any], kwargs: dict[str, Any]) -> Collection[str]:
        filled = []
        for slot, each in zip(self._positional, raw, strict=False):
            filled.append(slot.name)
            value = decode(slot.decode, each, slot.name)
            if slot.by_name:
                kwargs[slot.name] = value
            else:
                args.append(value)
        for index in range(len(filled), len(raw)):
            if self._rest is None:
                raise PayloadInvalid(f"args[{index}]", f"is one too many; the task takes {self._known()}")
            args.append(decode(self._rest, raw[index], f"args[{index}]"))
        return filled

    def pack(self, args: tuple[Any, ...], kwargs: dict[str, Any], limits: Limits) -> str:
        """Arguments to payload text, proven by binding it as a worker will; raises PayloadInvalid, PayloadTooLarge."""
        if not args and not kwargs and not self._required:
            return EMPTY
        payload = _text(args, kwargs, limits, self._label)
        try:
            seen_args, seen_kwargs = self.bind(payload)
        except PayloadInvalid:
            if "null" in payload:  # perhaps it was NaN; then that is the better word
                _refuse_changed(args, kwargs, payload, self._label)
            raise
        if seen_args == list(args) and seen_kwargs == kwargs:
            return payload
        for index, sent in enumerate(args):
            name = self._label(index)
            refuse_loss(sent, seen_args[index] if index < len(seen_args) else seen_kwargs[name], name)
        for name, sent in kwargs.items():
            refuse_loss(sent, seen_kwargs[name], name)
        return payload

    def named(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Arguments that `pack` took, by the names of their parameters, with the defaults of those left out."""
        slots = (*self._positional, *self._named.values())
        found = {slot.name: slot.default for slot in slots if not slot.required}
        found |= {slot.name: value for slot, value in zip(self._positional, args, strict=False)}
        if self._rest is not None:
            found[self._rest_name] = args[len(self._positional) :]
        return found | kwargs

    def _label(self, index: int) -> str:
        return self._positional[index].name if index < len(self._positional) else f"args[{index}]"

    def _known(self) -> str:
        names = dict.fromkeys([*(slot.name for slot in self._positional), *self._named])
        return ", ".join(names) or "no arguments"


def pack_unknown(args: tuple[Any, ...], kwargs: dict[str, Any], limits: Limits) -> str:
    """Arguments for a task whose code is elsewhere to payload text: only what JSON cannot say is refused.

    What it says in its own way (a date as text, a set as a list) may pass: the task's annotations, which nobody here
    knows, may make of it what it was."""
    payload = _text(args, kwargs, limits, _numbered)
    _refuse_changed(args, kwargs, payload, _numbered)
    return payload


def _refuse_changed(
    args: tuple[Any, ...], kwargs: dict[str, Any], payload: str, label: Callable[[int], str]
) -> None:
    """Refuse what JSON itself cannot say; what it says in its own way (a date as text) may pass."""
    seen_args, seen_kwargs = msgspec.json.decode(payload)
    for index, sent in enumerate(args):
        refuse_loss(builtins(sent, label(index)), seen_args[index], label(index))
    for name, sent in kwargs.items():
        refuse_loss(builtins(sent, name), seen_kwargs[name], name)


def _text(args: tuple[Any, ...], kwargs: dict[str, Any], limits: Limits, label: Callable[[int], str]) -> str:
    try:
        payload = encode((args, kwargs), "payload")
    except PayloadInvalid:
        for index, value in enumerate(args):  # which one? It is named as the caller knows it
            encode(value, label(index))
        for name, value in kwargs.items():
            encode(value, name)
        raise
    measure(payload, limits.payload, limits.depth, "payload", wrapped=2)
    return payload


def _numbered(index: int) -> str:
    return f"args[{index}]"


def _unreachable(name: str) -> RegistrationError:
    return RegistrationError(f"parameter {name!r} cannot be passed by name, and follows one that the worker fills")
