"""Values that stores have stumbled over."""

from __future__ import annotations

PAYLOADS = (
    '[["a\\u0000b"],{}]',
    '[["\\ud800 \\udfff"],{}]',  # lone surrogates, as an escape: text of a client that checked nothing
    f"[[{10**30},-{10**30}],{{}}]",
    f"[[{'9' * 5_000}],{{}}]",
    "[[9007199254740993,-9223372036854775809,18446744073709551616],{}]",
    "[[-0,-0.0,1e400,1E-7,0.1000],{}]",
    '[[],{"a":1,"a":2,"":3}]',
    '[ [ 1 ,\t2 ] , { "b" : 1 , "a" : 2 } ]',
    '[["é","\\u00e9","e\u0301","\U0001f600","\u2028","\ufeff"],{}]',
    '[["?1 :a $b %s {0} \'; DROP TABLE jobs; --"],{}]',
    f'[["{"x" * 200_000}"],{{}}]',
    f"[{'[' * 1_000}{']' * 1_000},{{}}]",
    '[[""],{}]',
)
"""JSON texts whose meaning changes if anything but a copy is made of them."""

NAMES = (
    "",
    " ",
    "é e\u0301 \U0001f600",
    "'; DROP TABLE jobs; --",
    '"quoted" [brackets] `ticks` {braces}',
    "%s ? :name $1 \\",
    "NULL",
    "a/b:c*d",
    "line\nbreak\ttab",
    "n" * 4_000,
)
"""Queue, task, tenant and key names."""

NUMBERS = (2**31 - 1, 2**31, 2**32, 2**53 - 1, 2**53 + 1, 2**61)
"""Integers that some type on the way would round or refuse."""
