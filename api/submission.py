"""Turns a validated request into the row that is stored: config, resolved model, calibration set, preflight.

All of a request that can be refused without torch, a tokenizer or the network is refused here, before a job exists.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from api.calibration_facts import draw_warnings
from api.deps import Principal
from api.errors import HubTokenMissingError, InvalidRequestError
from api.model_sources import hub_spec, located
from api.preflight import budget_config, check_options
from api.problems import FieldProblem
from api.schemas.requests import BUILTIN_SET, HubModel, JobOptions, JobRequest
from api.services import Services
from core.calibration.hub import PREFIX as HUB_PREFIX
from core.calibration.hub import SELF_SET, parse_hub
from core.configs import (
    CONFIG_CLASSES,
    ORDER_FLAGS,
    CalibrationConfig,
    QuantizationConfig,
    all_options,
    config_from_dict,
    parse_formats,
)
from core.errors import InvalidConfigError
from core.preflight.resources import Estimate
from store.errors import NotFoundError
from store.jobs import CalibrationSet, NewJob
from store.workers import Needs

CONFIG_OPTIONS = {*all_options(), "preset", *ORDER_FLAGS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What is stored, and what the user should know before it runs. estimate: None for a model that is not here yet."""

    job: NewJob
    warnings: tuple[str, ...]
    estimate: Estimate | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _CheckedModel:
    """The stored form of a model, and what the check of it found."""

    spec: dict[str, Any]
    uploaded_model_id: str | None = None
    warnings: tuple[str, ...] = ()
    estimate: Estimate | None = None


def prepare_submission(
    request: JobRequest, services: Services, principal: Principal, idempotency_key: str | None
) -> Submission:
    """Returns the job to store; raises an error of core or of the API, naming the field, where it cannot run."""
    config = quantization_config(request)
    drawn, budget = calibration_config(request), budget_config(request)
    model = _checked_model(request, config, drawn, services, principal)
    stored = None if drawn is None else _calibration_set(request, services, principal)
    calibration = None
    if drawn is not None:
        calibration = {"set": request.calibration.set if stored is None else stored.id, **drawn.to_dict()}
    spec = {
        "model": model.spec,
        "quantization": config.to_dict(),
        "calibration": calibration,
        "formats": [str(layout) for layout in parse_formats(request.formats)],
        "targets": list(request.targets),
        "evaluate": request.evaluate,
        **({"evaluate_nf4": False} if request.evaluate and not request.evaluate_nf4 else {}),
        **_publish_to(request, services, principal),
        "needs": request.needs.model_dump(exclude_none=True),
        **({} if budget is None else {"budget": budget.to_dict()}),
    }
    job = NewJob(
        owner_key_id=principal.owner_id,
        spec=spec,
        calibration_set_id=None if stored is None else stored.id,
        uploaded_model_id=model.uploaded_model_id,
        queue_class=_queue_class(request, services),
        needs=_needs(request, model.estimate),
        priority=request.priority,
        max_attempts=request.max_attempts,
        deadline_seconds=request.deadline_s,
        labels=dict(request.labels),
        idempotency_key=idempotency_key,
        request_sha256=_request_hash(request, spec),
    )
    told = model.warnings
    if stored is not None and drawn is not None and request.calibration.set != BUILTIN_SET:
        told += tuple(draw_warnings(services.calibration_facts.of(stored), drawn))
    return Submission(job=job, warnings=told, estimate=model.estimate)


def _publish_to(request: JobRequest, services: Services, principal: Principal) -> dict[str, Any]:
    """Raises HubTokenMissingError now rather than when the work is done."""
    if request.publish_to is None:
        return {}
    with services.database.reading() as repository:
        if repository.hub_token(principal.owner_id) is None:
            raise HubTokenMissingError
    return {"publish_to": request.publish_to.model_dump()}


def _queue_class(request: JobRequest, services: Services) -> str:
    known, wanted = services.settings.queue_classes, request.needs.queue_class
    if wanted is None:
        return known[0]
    if wanted not in known:
        raise InvalidConfigError("needs.queue_class", wanted, "no queue class of this service", ", ".join(known))
    return wanted


def _needs(request: JobRequest, guess: Estimate | None) -> Needs:
    """A hub model's memory is not known before a worker has it; such a job goes to any worker of its class."""
    asked = request.needs.memory_bytes
    estimated = None if guess is None else guess.ram_bytes
    return Needs(device=request.needs.device, memory_bytes=estimated if asked is None else asked)


def quantization_config(request: JobOptions) -> QuantizationConfig:
    """Returns the config of the options that were given; what was left out takes the config's own default.

    Raises InvalidConfigError on a value out of range and on an option that the method does not have.
    """
    options = {name: getattr(request, name) for name in CONFIG_OPTIONS & request.model_fields_set}
    return config_from_dict({"method": request.method, **options})


def _checked_model(
    request: JobRequest,
    config: QuantizationConfig,
    calibration: CalibrationConfig | None,
    services: Services,
    principal: Principal,
) -> _CheckedModel:
    """Checks a local folder or an upload here; a hub model is checked by the worker before it fetches it."""
    if isinstance(request.model, HubModel):
        return _CheckedModel(spec=hub_spec(request.model))
    model = located(request.model, services, principal)
    facts = services.model_facts.of(model.folder)
    warnings, needed = check_options(request, config, calibration, facts, services.machine.rates())
    return _CheckedModel(
        spec=model.spec, uploaded_model_id=model.uploaded_model_id, warnings=tuple(warnings), estimate=needed
    )


def calibration_config(request: JobOptions) -> CalibrationConfig | None:
    """Returns None where the method takes no calibration; raises InvalidConfigError where one is given all the same."""
    options = request.calibration
    if CONFIG_CLASSES[request.method].needs_calibration:
        return CalibrationConfig.from_dict(options.model_dump(exclude={"set"}))
    if "calibration" in request.model_fields_set:
        reason = f"{request.method} takes no calibration"
        raise InvalidConfigError("calibration", options.set, reason, "nothing, or use gptq")
    return None


def _calibration_set(request: JobRequest, services: Services, principal: Principal) -> CalibrationSet | None:
    """Returns the stored text that is drawn from; None where the worker fetches it, or the model writes it.

    Raises InvalidConfigError on a name that is no data set's, InvalidRequestError on a set that is not there.
    """
    name = request.calibration.set
    if name == BUILTIN_SET:
        return services.builtin_set.for_owner(principal.owner_id)
    if name == SELF_SET:
        return None
    if name.startswith(HUB_PREFIX):
        parse_hub(name)
        return None
    try:
        with services.database.reading() as repository:
            return repository.get_calibration_set(name, principal.sees)
    except NotFoundError as error:
        problem = FieldProblem(pointer="#/calibration/set", detail=str(error))
        raise InvalidRequestError(
            "calibration_set_unknown", str(error), problem, hint="Upload the text first, or use 'builtin'."
        ) from error


def _request_hash(request: JobRequest, spec: dict[str, Any]) -> str:
    """Two requests that mean the same job have the same hash, however they spell it."""
    rest = {"labels": request.labels, "priority": request.priority, "max_attempts": request.max_attempts}
    if request.deadline_s is not None:
        rest["deadline_s"] = request.deadline_s
    canonical = json.dumps({"spec": spec, **rest}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
