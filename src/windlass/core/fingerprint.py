"""What makes two dead letters one cause: the task, the class of the exception, and the place in the user's own code."""

from __future__ import annotations

import msgspec

from windlass.core.job import ErrorInfo

LENGTH = 12
"""Hexadecimal digits: short enough to be typed, and of a million causes hardly two would share one."""


class _Kept(msgspec.Struct):
    fingerprint: str = ""


def marked(task: str, error: ErrorInfo) -> ErrorInfo:
    """`error` with the fingerprint of its cause in a job of `task`. Message and line number play no part: they differ
    between jobs, and between releases, that failed for one reason."""
    from hashlib import blake2b

    text = f"{task}\0{error.kind}\0{error.place}"
    digest = blake2b(text.encode(errors="surrogatepass"), digest_size=LENGTH // 2).hexdigest()
    return msgspec.structs.replace(error, fingerprint=digest)


def kept(error: str | None) -> str:
    """The fingerprint in the text of an ErrorInfo; empty where there is none."""
    try:
        return msgspec.json.decode(error or "{}", type=_Kept).fingerprint
    except (msgspec.DecodeError, UnicodeError):  # one row that cannot be read must not hide the others (I23)
        return ""


def is_beginning(text: str) -> bool:
    """Whether a fingerprint could begin like this: no job's id does."""
    return 0 < len(text) <= LENGTH and all(digit in "0123456789abcdef" for digit in text)
