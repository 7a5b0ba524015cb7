"""Checks that no tensor of the source was lost on the way: each is kept, quantized, or dropped for a stated reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from core.errors import ArtifactInvalidError

SUBJECT = "tensor accounting"


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorAccount:
    """What became of each source tensor, by its name in the source.

    kept: written under the same name, unchanged or cast. quantized: the source weight (and bias) to the prefix of the
    linear that now stands for it. dropped: name to reason, for example a head that is tied to the embedding.
    """

    kept: Collection[str]
    quantized: Mapping[str, str]
    dropped: Mapping[str, str] = field(default_factory=dict)

    def check(self, source: Iterable[str], written: Collection[str]) -> None:
        """Raises ArtifactInvalidError where source and account differ or the artifact lacks what the account claims.

        source: all tensor names of the source. written: all tensor names of the artifact.
        """
        accounted = [*self.kept, *self.quantized, *self.dropped]
        _refuse({name for name, count in Counter(accounted).items() if count > 1}, "are accounted for twice")
        _refuse(set(source) - set(accounted), "of the source are not accounted for")
        _refuse(set(accounted) - set(source), "are accounted for, but not in the source")
        _refuse({name for name, reason in self.dropped.items() if not reason.strip()}, "are dropped without a reason")
        _refuse(set(self.kept) - set(written), "are said to be kept, but were not written")
        needed = {f"{prefix}.qweight" for prefix in self.quantized.values()}
        _refuse(needed - set(written), "of quantized linears were not written")


def _refuse(names: set[str], problem: str) -> None:
    if names:
        raise ArtifactInvalidError(SUBJECT, f"{len(names)} tensors {problem}, first {min(names)!r}.")
