"""The table of `bitmill compare`: the float model and NF4 first, then jobs, with the best of each measure in bold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from cli.job_text import STATE_STYLES, method_text
from cli.output import bytes_text, duration_text

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from cli.compare import Compared

NOT_KNOWN = "-"
# What is measured: the API's field, its heading, how it is written, and whether more of it is better.
MEASURES: tuple[tuple[str, str, Callable[[Any], str], bool], ...] = (
    ("bytes_quantized", "WEIGHTS", bytes_text, False),
    ("perplexity_quantized", "PERPLEXITY", "{:.3f}".format, False),
    ("perplexity_ratio", "x FLOAT", "{:.4f}".format, False),
    ("kl_divergence", "KL, NATS", "{:.5f}".format, False),
    ("top1_agreement", "TOP 1", "{:.2%}".format, True),
)


def compare_table(rows: Sequence[Compared]) -> Table:
    """Returns each model's float row where it was measured, and below it a row per job, named by a letter."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    table.add_column("")
    table.add_column("METHOD", no_wrap=True)
    for heading in (*(heading for _, heading, _, _ in MEASURES), "TIME"):
        table.add_column(heading, justify="right")
    for model in dict.fromkeys(row.model for row in rows):
        of_model = [(at, row) for at, row in enumerate(rows) if row.model == model]
        for method, figures in _references([row for _, row in of_model]):
            table.add_row("", method, *figures)
        best = _best([row for _, row in of_model])
        for at, row in of_model:
            table.add_row(letter(at), *_cells(row, best))
    return table


def legend(rows: Sequence[Compared]) -> Table:
    """Returns which job each letter stands for, and what became of it."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for width in (1, len(rows[0].job_id)):
        table.add_column(no_wrap=True, min_width=width)
    for at, row in enumerate(rows):
        size = "" if row.artifact_bytes is None else f"{bytes_text(row.artifact_bytes)} in all"
        state = Text(f"{row.state}: {row.error}" if row.error else row.state, style=STATE_STYLES.get(row.state, ""))
        table.add_row(Text(letter(at), style="bold"), row.job_id, state, size, row.model)
    return table


def letter(at: int) -> str:
    """Returns A, B, ... Z, A2, ...: a job's mark, the same as on the dashboard."""
    return chr(ord("A") + at % 26) + (str(at // 26 + 1) if at >= 26 else "")  # noqa: PLR2004 - letters


def not_measured(rows: Sequence[Compared]) -> list[str]:
    """Returns what workers lacked to measure NF4, with the remedy, where none of them could."""
    found = [nf4 for row in rows if row.evaluation and (nf4 := row.evaluation.get("nf4"))]
    missing = dict.fromkeys(nf4["missing"] for nf4 in found if nf4.get("missing"))
    return list(missing) if len(missing) and all(nf4.get("missing") for nf4 in found) else []


def _references(rows: Sequence[Compared]) -> list[tuple[str, tuple[str, ...]]]:
    """Returns the rows of the float model and of NF4; more than one of each where jobs measured on other texts."""
    evaluations = [row.evaluation for row in rows if row.evaluation is not None]
    whole = [("float", (_figure(one, "bytes_float", bytes_text), _perplexity(one))) for one in evaluations]
    nf4 = [("NF4", _nf4_figures(one["nf4"])) for one in evaluations if one.get("nf4")]
    measured = [row for row in nf4 if set(row[1]) != {NOT_KNOWN}]
    return list(dict.fromkeys([*whole, *(measured or nf4)]))


def _perplexity(evaluation: dict[str, Any]) -> str:
    return _figure(evaluation, "perplexity_float", "{:.3f}".format)


def _nf4_figures(nf4: dict[str, Any]) -> tuple[str, ...]:
    """Returns the figures in the order of the measures, under NF4's names for them."""
    names = {"bytes_quantized": "bytes", "perplexity_quantized": "perplexity"}
    return tuple(_figure(nf4, names.get(field, field), write) for field, _, write, _ in MEASURES)


def _best(rows: Sequence[Compared]) -> dict[str, str]:
    """Returns each measure's best figure as it is written, where there is something to choose from."""
    best = {}
    for field, _, write, more_is_better in MEASURES:
        values = [row.evaluation[field] for row in rows if row.evaluation and row.evaluation.get(field) is not None]
        if len(values) > 1:
            best[field] = write(max(values) if more_is_better else min(values))
    return best


def _cells(row: Compared, best: dict[str, str]) -> list[str | Text]:
    from rich.text import Text

    spec = {"method": row.method, "bits": row.bits, "group_size": row.group_size, "sym": row.sym}
    cells: list[str | Text] = [method_text(spec)]
    for field, _, write, _ in MEASURES:
        text = _text(row, field, write)
        cells.append(Text(text, style="bold green" if text == best.get(field) else ""))
    cells.append(NOT_KNOWN if row.seconds is None else duration_text(row.seconds))
    return cells


def _text(row: Compared, field: str, write: Callable[[Any], str]) -> str:
    return _figure(row.evaluation or {}, field, write)


def _figure(values: dict[str, Any], field: str, write: Callable[[Any], str]) -> str:
    value = values.get(field)
    return NOT_KNOWN if value is None else write(value)
