"""`windlass ledger`: what processes wrote down as it happened, checked offline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from windlass.cli.common import answers
from windlass.cli.exits import FAILED, OK, USAGE, Refused
from windlass.cli.output import Output
from windlass.core.words import count

if TYPE_CHECKING:
    from windlass.testing.ledger import Report

SHOWN = 20
"""Problems listed in words; with --json, all are."""


@click.group()
def ledger() -> None:
    """Check ledgers: what a test run's processes wrote down."""


@ledger.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@answers
def check(directory: Path, as_json: bool) -> int:
    """Hold the ledgers in DIR (*.jsonl) against each other and against the rules; no store is asked.

    Nothing acknowledged is lost; whatever ran more than once is explained by a failure of its own or by a fault that
    was written down; nothing stale took effect; no tick twice; limits and unique keys held. Exits with 1 if not, with
    2 for a folder without ledgers or a damaged line.
    """
    from windlass.testing.ledger import DamagedLedger, History
    from windlass.testing.ledger import check as examine

    try:
        report = examine(History.of(directory))
    except DamagedLedger as error:
        raise Refused(str(error), USAGE) from None
    except OSError as error:
        raise Refused(f"{error.filename} cannot be read: {error.strerror}", USAGE) from None
    output = Output(as_json=as_json)
    if as_json:
        output.document({"ok": report.ok, **msgspec.to_builtins(report)})
    else:
        _say(output, report)
    return OK if report.ok else FAILED


def _say(output: Output, report: Report) -> None:
    output.facts([(name, f"{number:,}") for name, number in report.counts.items()])
    for name, figures in (
        ("states", report.states),
        ("faults", report.faults),
        ("ran again after", report.explained),
        ("most at once", report.crowds),
    ):
        if figures:
            said = [f"{what} {number:,}" for what, number in figures.items()]
            rest = [f"and {len(said) - SHOWN} more"] if len(said) > SHOWN else []
            output.say(f"{name}: {', '.join(said[:SHOWN] + rest)}")
    for problem in report.problems[:SHOWN]:
        output.say(str(problem))
    if len(report.problems) > SHOWN:
        output.say(f"and {len(report.problems) - SHOWN:,} more (--json lists all)")
    output.say(count(len(report.problems), "problem") if report.problems else "every rule holds")
