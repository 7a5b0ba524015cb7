"""Tries configs on a model without storing anything: a submit's checks, with each refusal as part of the answer."""

from __future__ import annotations

from api.deps import Principal
from api.errors import ApiError
from api.model_sources import hub_spec, located
from api.preflight import budget_config, check_options
from api.refusals import refusal_of
from api.schemas.models import ConfigCheckView, InspectionView, InspectRequest, ModelFactsView, RefusalView
from api.schemas.requests import HubModel, JobOptions
from api.services import Services
from api.submission import calibration_config, quantization_config
from api.views import estimate_view
from core.errors import CoreError, ModelRefusedError
from core.preflight.rates import MachineRates
from core.preflight.source import ModelFacts

COMMON_GROUP_SIZES = (16, 32, 64, 128, 256)


def inspect_model(request: InspectRequest, services: Services, principal: Principal) -> InspectionView:
    """Returns the preflight; raises only where a path lies outside the roots or there is no such upload."""
    if isinstance(request.model, HubModel):
        checks = [_check(options, None, None) for options in request.configs]
        return InspectionView(
            model=hub_spec(request.model),
            accepted=any(check.accepted for check in checks),
            refusal=None,
            facts=None,
            configs=checks,
        )
    model = located(request.model, services, principal)
    try:
        facts = services.model_facts.of(model.folder)
    except ModelRefusedError as error:
        return InspectionView(model=model.spec, accepted=False, refusal=_refusal(error), facts=None, configs=[])
    rates = services.machine.rates()
    checks = [_check(options, facts, rates) for options in request.configs]
    accepted = any(check.accepted for check in checks) or not checks
    return InspectionView(model=model.spec, accepted=accepted, refusal=None, facts=_facts_view(facts), configs=checks)


def _check(options: JobOptions, facts: ModelFacts | None, rates: MachineRates | None) -> ConfigCheckView:
    """Checks one config; without facts, as far as the options alone can tell."""
    try:
        config, calibration = quantization_config(options), calibration_config(options)
        budget_config(options)
        if facts is None:
            return ConfigCheckView(accepted=True, refusal=None, warnings=[], estimate=None)
        warnings, needed = check_options(options, config, calibration, facts, rates)
    except (CoreError, ApiError) as error:
        return ConfigCheckView(accepted=False, refusal=_refusal(error), warnings=[], estimate=None)
    return ConfigCheckView(accepted=True, refusal=None, warnings=warnings, estimate=estimate_view(needed))


def _refusal(error: Exception) -> RefusalView:
    refusal = refusal_of(error)
    pointers = [problem.pointer for problem in refusal.errors]
    return RefusalView(
        code=refusal.code, detail=refusal.detail, hint=refusal.hint, pointer=pointers[0] if pointers else None
    )


def _facts_view(facts: ModelFacts) -> ModelFactsView:
    inputs = {columns for _, columns in facts.linears.values()}
    fitting = [size for size in COMMON_GROUP_SIZES if all(columns % size == 0 for columns in inputs)]
    return ModelFactsView(
        architecture=facts.architecture,
        model_type=facts.model_type,
        blocks=facts.blocks,
        hidden_size=facts.hidden_size,
        parameters=facts.parameters,
        total_bytes=facts.total_bytes,
        dtype=facts.dtype,
        linears=len(facts.linears),
        experts=facts.experts,
        tied_head=facts.tied_head,
        max_positions=facts.max_positions,
        group_sizes=[*fitting, -1],
    )
