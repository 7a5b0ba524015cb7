"""The rows of the accuracy table: what `bitmill run` is told beside bits and group size."""

from __future__ import annotations

from dataclasses import dataclass

PLAIN = (
    *("--method", "gptq", "--order", "natural", "--scale-search", "minmax", "--no-signed-scales"),
    *("--mismatch-alpha", "0", "--stream-beta", "0", "--refine-rounds", "0"),
)
"""GPTQ as in the paper: columns left to right, groups on the range of their live weights, no float path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """title: what the table says. options: of `bitmill run`."""

    title: str
    options: tuple[str, ...]


def _plain_but(title: str, *options: str) -> Row:
    """Returns a row of plain GPTQ with these options; the command line takes the last value of each."""
    return Row(title=title, options=(*PLAIN, *options))


ROWS = {
    "rtn": Row(title="RTN", options=("--method", "rtn")),
    "awq": Row(title="AWQ", options=("--method", "awq")),
    "adaround": Row(title="AdaRound", options=("--method", "adaround")),
    "plain": _plain_but("plain GPTQ"),
    "order": _plain_but("plain, desc_act with static groups", "--order", "desc_act_static"),
    "hessian": _plain_but("plain, search weighted by diag H", "--scale-search", "hessian"),
    "curvature": _plain_but("plain, search weighted by 1/U_jj^2", "--scale-search", "curvature"),
    "signed": _plain_but("plain, searched signed scales", "--scale-search", "curvature", "--signed-scales"),
    "aware": _plain_but("plain, act_group_aware", "--order", "act_group_aware"),
    "auto": _plain_but("plain, order auto", "--order", "auto"),
    "refined": _plain_but("plain, 4 rounds of refinement", "--refine-rounds", "4"),
    "mismatch": _plain_but("plain, mismatch-aware target", "--mismatch-alpha", "0.75"),
    "stream": _plain_but("plain, mismatch and stream", "--mismatch-alpha", "0.75", "--stream-beta", "0.75"),
    "fast": Row(title="Bitmill, fast", options=("--preset", "fast")),
    "default": Row(title="Bitmill, default", options=("--preset", "default")),
    "best": Row(title="Bitmill, best", options=("--preset", "best")),
}
