"""Worker start and stop hooks, and the resources that they provide."""

from __future__ import annotations

import inspect
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

from windlass.runtime.registry import Registry


class Hooks:
    """Runs the start hooks in order and the stop hooks at the end, whatever happened in between."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._stack = AsyncExitStack()

    async def start(self) -> dict[type, Any]:
        """Run every start hook; what one returns or yields is a resource, known by its own type and its bases."""
        resources: dict[type, Any] = {}
        for hook in self._registry.start_hooks:
            value = await self._enter(hook)
            if value is not None:
                for kind in reversed(type(value).__mro__[:-1]):
                    resources[kind] = value
                # A hook may promise a protocol or an abstract class, of which its value is no subclass.
                resources.update({kind: value for kind, by in self._registry.provides.items() if by is hook})
        return resources

    async def _enter(self, hook: Any) -> Any:
        if inspect.isasyncgenfunction(hook):
            return await self._stack.enter_async_context(asynccontextmanager(hook)())
        if inspect.isgeneratorfunction(hook):
            return self._stack.enter_context(contextmanager(hook)())
        value = hook()
        return await value if inspect.isawaitable(value) else value

    async def stop(self) -> None:
        """Run the stop hooks and the ends of generator hooks, the last started first."""
        for hook in self._registry.stop_hooks:
            self._stack.push_async_callback(_call, hook)
        await self._stack.aclose()


async def _call(hook: Any) -> None:
    value = hook()
    if inspect.isawaitable(value):
        await value
