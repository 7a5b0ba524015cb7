"""What a check of an artifact says."""

from __future__ import annotations

from dataclasses import dataclass

from core.preflight.rules import Severity, Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that is wrong with an artifact. target: the loader that minds, None where every loader would."""

    file: str
    detail: str
    target: Target | None = None
    severity: Severity = Severity.REFUSE
