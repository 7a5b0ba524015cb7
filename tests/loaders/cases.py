"""Which artifacts the loaders are tried on: every width and version, and each layout that they treat specially."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One artifact. source: family and dtype of a tiny model, and its vocabulary where that matters. order: of GPTQ;
    None, for another method.

    mixed: with DYNAMIC, other grids for some linears and none for others. head: the output head is packed too.
    embedding: the input embedding is.
    """

    source: str = "llama-bfloat16"
    bits: int
    sym: bool
    group_size: int = 32
    order: str | None = "desc_act_static"
    method: str = "rtn"
    mixed: bool = False
    head: bool = False
    embedding: bool = False

    @property
    def name(self) -> str:
        """Returns the artifact's folder name."""
        version = "v1" if self.sym else "v2"
        how = f"{self.order or self.method}{'-mixed' * self.mixed}{'-head' * self.head}{'-embedding' * self.embedding}"
        return f"{self.source}-{self.bits}bit-{version}-g{self.group_size}-{how}"


DYNAMIC = {
    r"-:model\.layers\.1\.mlp\.": {},
    r"+:.*\.down_proj": {"bits": 8, "group_size": -1},
    r"+:.*\.(k|v)_proj": {"bits": 3},
    r"+:.*\.q_proj": {"sym": True},
}
WIDTHS = tuple(Case(bits=bits, sym=sym) for bits in (2, 3, 4, 8) for sym in (True, False))
LAYOUTS = (
    Case(bits=4, sym=True, order="desc_act"),
    Case(bits=3, sym=False, order="desc_act"),
    Case(bits=4, sym=True, group_size=-1),
    Case(bits=8, sym=False, group_size=-1),
    Case(bits=4, sym=True, group_size=128),
    Case(bits=4, sym=True, group_size=64, order=None),
    Case(bits=4, sym=True, order=None, method="awq"),
    Case(bits=3, sym=False, order=None, method="awq", source="gemma2-float32"),
    Case(bits=4, sym=False, order=None, method="adaround"),
    Case(bits=4, sym=True, source="llama-float16"),
    Case(bits=8, sym=False, source="llama-float32"),
)
FAMILIES = tuple(
    Case(bits=4, sym=sym, source=f"{family}-float32")
    for family in ("mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "phi3", "opt", "bloom", "gpt2", "gpt_neox")
    for sym in (True, False)
)
EXPERTS = tuple(
    Case(bits=4, sym=True, order=None, source=f"{family}-float32")
    for family in ("mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "phimoe", "deepseek_v2", "deepseek_v3", "glm4_moe")
)
# transformers does not read `dynamic`, so these are for GPTQModel alone.
MIXED = tuple(Case(bits=4, sym=sym, mixed=True) for sym in (True, False))
# Nor does it read a packed head: one of its own, and one that was tied to the embedding.
HEADS = tuple(
    Case(bits=4, sym=True, order=None, source=f"{family}-float32-288", head=True) for family in ("llama", "gemma")
)
# Nor a packed embedding: beside a head of its own, and under one that was tied to it.
EMBEDDINGS = tuple(
    Case(bits=bits, sym=sym, order=None, source=f"{family}-float32-288", head=family != "llama", embedding=True)
    for family, bits in (("llama", 4), ("opt", 4), ("gpt2", 3))
    for sym in (True, False)
)
CASES = WIDTHS + LAYOUTS + FAMILIES + EXPERTS
