"""The words that options choose from: methods, presets, orders, scale searches, formats, widths."""

from __future__ import annotations

from enum import StrEnum

BITS = (2, 3, 4, 8)


class Method(StrEnum):
    """The algorithms that a config class stands for."""

    GPTQ = "gptq"
    RTN = "rtn"
    AWQ = "awq"
    ADAROUND = "adaround"


class Preset(StrEnum):
    """Three points between time and accuracy; what each sets stands in the method's config class."""

    FAST = "fast"
    DEFAULT = "default"
    BEST = "best"


class Order(StrEnum):
    """In which order a linear's columns are solved, and where its group scales come from."""

    NATURAL = "natural"
    """Left to right; a group's scales are taken from the live, already compensated weights."""
    NATURAL_STATIC = "natural_static"
    """Left to right; all scales are fixed before the first column is solved."""
    DESC_ACT = "desc_act"
    """By falling Hessian diagonal, groups formed along that order: `g_idx` is not monotone, inference gathers."""
    DESC_ACT_STATIC = "desc_act_static"
    """By falling Hessian diagonal within fixed, contiguous groups: free at inference."""
    ACT_GROUP_AWARE = "act_group_aware"
    """Whole groups by mean Hessian diagonal, inputs in each by their own; live scales, free at inference."""
    AUTO = "auto"
    """Those that are free at inference and sort, per linear the one with the lower loss on held-out tokens."""

    @classmethod
    def from_flags(cls, *, desc_act: bool, static_groups: bool) -> Order:
        """Returns the order that the two flags of other tools spell."""
        if desc_act:
            return cls.DESC_ACT_STATIC if static_groups else cls.DESC_ACT
        return cls.NATURAL_STATIC if static_groups else cls.NATURAL

    @property
    def tried(self) -> tuple[Order, ...]:
        """Returns the orders that are solved in; the best on held-out tokens is kept."""
        return (Order.DESC_ACT_STATIC, Order.ACT_GROUP_AWARE) if self is Order.AUTO else (self,)

    @property
    def sorts_columns(self) -> bool:
        """Whether columns are solved in another order than the checkpoint's."""
        return self in {Order.DESC_ACT, Order.DESC_ACT_STATIC, Order.ACT_GROUP_AWARE}

    @property
    def fixes_groups(self) -> bool:
        """Whether scales are fixed before the first column is solved."""
        return self in {Order.NATURAL_STATIC, Order.DESC_ACT_STATIC}

    @property
    def keeps_layout(self) -> bool:
        """Whether groups are runs of neighbouring inputs, which costs nothing at inference."""
        return self is not Order.DESC_ACT


class ScaleSearch(StrEnum):
    """How a group's scale is chosen from its weights."""

    MINMAX = "minmax"
    """The range of the weights, as in the paper."""
    HESSIAN = "hessian"
    """Shrink factors, squared rounding differences weighted by the Hessian's diagonal."""
    CURVATURE = "curvature"
    """Shrink factors, weighted by 1/U_jj², the exact cost of a rounding difference in GPTQ."""


class Format(StrEnum):
    """The checkpoint layouts that one run can be written in; the codes are the same in each."""

    GPTQ = "gptq"
    """GPTQ version 1 for symmetric grids, version 2 for asymmetric ones."""
    COMPRESSED_TENSORS = "compressed-tensors"
    """`pack-quantized`: no gather at inference, hence no desc_act without static groups."""


class Packing(StrEnum):
    """How documents become windows."""

    PACKED = "packed"
    """All documents in a row, cut into adjacent windows: no token is left over but at the ends."""
    DOCUMENT = "document"
    """Each window from one document, at a place that the seed chooses; documents that are too short are left out."""


DEFAULT_FORMATS = (Format.GPTQ,)
"""The first format is the artifact folder itself; each further one is a folder in it, named after the format."""
