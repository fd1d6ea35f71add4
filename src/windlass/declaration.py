"""One registered function: its options as given, and what its signature says, found out when it is first needed.

Annotations are read late because a module may name a type that it imports further down, and a resource whose hook is
declared in another file; reading them also costs milliseconds that `import` of an application should not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from windlass.core.errors import PayloadInvalid, RegistrationError
from windlass.runtime.context import Context
from windlass.runtime.registry import Mode, TaskDef

if TYPE_CHECKING:
    from windlass.core.binding import Binder
    from windlass.core.codec import Limits

PROVIDED: Any = type("Provided", (), {"__repr__": lambda _: "provided()"})()


def provided() -> Any:
    """The default of a parameter whose value the worker provides: its Context, or a resource of a start hook.

    `def shrink(path: str, ctx: Context = provided()) -> str` lets a type checker accept `shrink.enqueue("a.jpg")`.
    """
    return PROVIDED


class Call(msgspec.Struct, frozen=True):
    """The arguments of one call of a task; made by `task.call(...)`."""

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}


Arguments = Call | Mapping[str, Any] | Sequence[Any] | None
"""Arguments of a task that is named by text: a dict of named ones, a list or tuple of positional ones, or a Call."""


def call_of(arguments: Arguments) -> Call:
    """A Call from Arguments; raises PayloadInvalid for anything else."""
    if arguments is None:
        return Call()
    return as_call(dict(arguments) if isinstance(arguments, Mapping) else arguments, "arguments")


def as_call(given: object, where: str) -> Call:
    """A Call from a Call, a tuple of arguments or a dict of named ones; raises PayloadInvalid for anything else."""
    if isinstance(given, Call):
        return given
    if isinstance(given, (tuple, list)):
        return Call(tuple(given))
    if isinstance(given, dict):
        for name in given:
            if not isinstance(name, str):
                raise PayloadInvalid(f"{where}[{name!a}]", "is not a str; arguments have names")
        return Call((), given)
    kind = type(given).__name__
    raise PayloadInvalid(where, f"is a {kind}, not a tuple of arguments, a dict of named ones, or task.call(...)")


class Signature(msgspec.Struct, frozen=True):
    """What a function's parameters and annotations say."""

    binder: Any
    """A Binder; typed Any because importing it here would make `import windlass` load `inspect`."""
    context: str | int | None
    resources: dict[str, type]
    places: dict[str, int]
    """Position of each provided parameter."""
    returns: Any
    generation: int


class Declaration:
    """A function as `@app.task` got it."""

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        version: int,
        mode: Mode,
        offers: Callable[[], tuple[int, Mapping[Any, Any]]],
        limits: Limits,
    ) -> None:
        """`offers` answers which resource types start hooks provide, with a number that changes when they do."""
        self.function = function
        self.name = name
        self.version = version
        self.mode = mode
        self.limits = limits
        self.transient: tuple[type[BaseException], ...] = ()
        self.permanent: tuple[type[BaseException], ...] = ()
        self.exclusive = False
        self.upcasters: dict[int, Callable[..., Any]] = {}
        self._offers = offers
        self._signature: Signature | None = None
        self._old: dict[int, Binder] = {}

    @property
    def signature(self) -> Signature:
        """Raises RegistrationError, naming task and parameter, for what cannot work."""
        known = self._signature
        generation, resources = self._offers()
        if known is None or known.generation != generation:
            known = self._signature = _read(self.function, self.name, generation, resources)
        return known

    def pack(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """Arguments to payload text, checked as a worker will; raises PayloadInvalid, PayloadTooLarge."""
        return self.signature.binder.pack(args, kwargs, self.limits)  # type: ignore[no-any-return]

    def named(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Arguments that were packed, by the names of their parameters, with the defaults of those left out."""
        return self.signature.binder.named(args, kwargs)  # type: ignore[no-any-return]

    def bind(self, payload: str, version: int) -> tuple[list[Any], dict[str, Any]]:
        """Payload text of this version, or an older one, to the handler's arguments; raises PayloadInvalid."""
        while version < self.version:
            payload = self._upcast(payload, version)
            version += 1
        arguments: tuple[list[Any], dict[str, Any]] = self.signature.binder.bind(payload)
        return arguments

    def encode(self, result: Any) -> str:
        """A result to JSON text; raises PayloadInvalid, PayloadTooLarge."""
        from windlass.core.codec import encode_result

        return encode_result(result, self.limits)

    def decode(self, result: str) -> Any:
        """JSON text of a result to what the function says that it returns; raises PayloadInvalid."""
        from windlass.core.codec import decode, decoder, travels

        returns = self.signature.returns
        return decode(decoder(returns if travels(returns) else Any), result, "result")

    def taskdef(self) -> TaskDef:
        """What a worker needs."""
        signature = self.signature
        return TaskDef(
            name=self.name,
            version=self.version,
            handler=self.function,
            mode=self.mode,
            bind=self.bind,
            encode=self.encode,
            context=signature.context,
            resources=signature.resources,
            transient=self.transient,
            permanent=self.permanent,
            exclusive=self.exclusive,
        )

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the function here and now, with a detached Context if it wants one."""
        signature = self.signature
        for name in signature.resources:
            if name not in kwargs and len(args) <= signature.places[name]:
                raise TypeError(f"{self.name}() needs {name}=...: outside a worker nobody provides it")
        if signature.context == 0 and not (args and isinstance(args[0], Context)):
            first = next(iter(signature.places))
            return self.function(*args, **kwargs) if first in kwargs else self.function(Context(), *args, **kwargs)
        if isinstance(signature.context, str) and len(args) <= signature.places[signature.context]:
            kwargs.setdefault(signature.context, Context())
        return self.function(*args, **kwargs)

    def _upcast(self, payload: str, version: int) -> str:
        upcaster = self.upcasters.get(version)
        if upcaster is None:
            raise PayloadInvalid("payload", f"is of version {version}, for which {self.name} has no upcaster")
        from windlass.core.binding import Binder
        from windlass.core.codec import encode

        binder = self._old.get(version)
        if binder is None:
            binder = self._old[version] = Binder(upcaster, hints(upcaster, self.name), ())
        args, kwargs = binder.bind(payload)
        call = as_call(upcaster(*args, **kwargs), f"the answer of the upcaster from version {version}")
        return encode((call.args, call.kwargs), "payload")


class Remote:
    """A task known by its name only: its code is elsewhere."""

    def __init__(self, name: str, version: int, limits: Limits) -> None:
        self.name = name
        self.version = version
        self.limits = limits

    def pack(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """As Declaration.pack, but unaware of annotations: see pack_unknown."""
        from windlass.core.binding import pack_unknown

        return pack_unknown(args, kwargs, self.limits)

    def named(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """As Declaration.named, but of those given by position nobody here knows the names."""
        return kwargs

    def decode(self, result: str) -> Any:
        """JSON text of a result to plain values."""
        return msgspec.json.decode(result)


def _read(function: Callable[..., Any], name: str, generation: int, offered: Mapping[Any, Any]) -> Signature:
    import inspect

    from windlass.core.binding import Binder

    known = hints(function, name)
    context: str | int | None = None
    resources: dict[str, type] = {}
    places: dict[str, int] = {}
    for place, parameter in enumerate(inspect.signature(function).parameters.values()):
        annotation = known.get(parameter.name)
        if _is_context(annotation):
            if context is not None:
                raise RegistrationError(f"task {name}: parameter {parameter.name!r} is a second Context")
            first = place == 0 and parameter.kind is not parameter.KEYWORD_ONLY
            context = 0 if first else parameter.name
        elif parameter.default is PROVIDED or (annotation in offered and parameter.default is parameter.empty):
            if annotation is None:
                raise RegistrationError(f"task {name}: parameter {parameter.name!r} is provided(), but of which type?")
            resources[parameter.name] = annotation
        else:
            continue
        places[parameter.name] = place
    try:
        binder = Binder(function, known, places)
    except RegistrationError as error:
        raise RegistrationError(f"task {name}: {error}") from None
    return Signature(binder, context, resources, places, known.get("return", Any), generation)


def _is_context(annotation: Any) -> bool:
    if annotation is Context:
        return True
    return Context in getattr(annotation, "__args__", ()) and type(None) in annotation.__args__


def hints(function: Callable[..., Any], name: str) -> dict[str, Any]:
    """Annotations as types; raises RegistrationError for one that cannot be read."""
    from typing import get_type_hints

    try:
        return get_type_hints(function, include_extras=True)
    except NameError as error:
        raise RegistrationError(
            f"task {name}: an annotation cannot be read: {error}. It is needed when the program runs, so it must be "
            "imported then, not only under TYPE_CHECKING"
        ) from None
    except TypeError as error:
        raise RegistrationError(f"task {name}: an annotation cannot be read: {error}") from None
