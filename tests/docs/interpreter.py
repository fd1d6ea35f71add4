"""The interpreter of one page: runs the blocks that it is sent, one JSON document per line, in one namespace."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import json
import sys
import traceback


def main() -> None:
    space: dict[str, object] = {"__name__": "__main__"}
    answers, sys.stdin = sys.stdout, io.StringIO()
    sys.path.insert(0, "")
    with asyncio.Runner() as runner:
        for line in sys.__stdin__:
            asked = json.loads(line)
            said, problem = io.StringIO(), None
            try:
                # Line numbers are the page's, so a traceback points at it.
                source = "\n" * (asked["line"] - 1) + asked["code"]
                code = compile(source, asked["page"], "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
                with contextlib.redirect_stdout(said):
                    result = eval(code, space)
                    if inspect.iscoroutine(result):
                        runner.run(result)
            except BaseException:
                problem = traceback.format_exc()
            print(json.dumps({"said": said.getvalue(), "problem": problem}), file=answers, flush=True)


if __name__ == "__main__":
    main()
