"""The plan of a run as a table for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lipcert.cli import show

if TYPE_CHECKING:
    from rich.console import RenderableType

    from lipcert.results import PlanResult


def overview(result: PlanResult) -> list[RenderableType]:
    """Return the stages in order: which are in, at which level, why, and what they cost."""
    from rich.text import Text

    from lipcert.report import numbers

    table = show.table()
    for name in ("stage", "level", "batch", "multiplications", "why, and what it costs per sample"):
        table.add_column(name, justify="right" if name in ("batch", "multiplications") else "left", overflow="fold")
    told: dict[str, str] = {}  # reasons that several stages share stand beside the first of them
    for stage in result.stages:
        work = numbers.MISSING if stage.multiplications is None else f"{stage.multiplications:.1e}"
        same = stage.reason in told
        told.setdefault(stage.reason, stage.name)
        reason = f"as '{told[stage.reason]}'" if same else stage.reason
        words = f"{reason}; {stage.cost}" if stage.included else f"left out: {reason}"
        style = None if stage.included else "dim"
        batch = numbers.MISSING if stage.batch_size is None else numbers.count(stage.batch_size)
        table.add_row(stage.name, stage.level or numbers.MISSING, batch, work, words, style=style)
    limits = [
        f"{text} {seconds:g} s"
        for text, seconds in (("time limit", result.time_limit), ("per sample", result.budget_per_sample))
        if seconds is not None
    ]
    eps = ", ".join(map(numbers.eps, result.eps))
    return [
        show.title(f"{result.model.path}, {result.norm}, eps {eps}, level {result.level}: the plan, nothing was run"),
        table,
        Text(f"global bound by '{result.bound_method}': {result.bound_reason}"),
        Text(
            f"{numbers.count(result.samples)} samples on {result.device}, {numbers.count(result.batch_size)} at a time "
            "at first; batches follow the memory and the time that were measured"
        ),
        *([Text(", ".join(limits))] if limits else []),
    ]
