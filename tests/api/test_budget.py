"""A budget over HTTP: checked before a job exists, kept with the job, its plan read back."""

from __future__ import annotations

import pytest

from core.budget.plan import BudgetPlan, CurvePoint, PlannedUnit
from core.configs import GPTQConfig
from tests.api.service import Service, job_request

POINT = {"bits": 3.5, "divergence": 0.1, "grid": ""}
UNIT = PlannedUnit(
    block=0,
    family="mlp.down_proj",
    linears=1,
    weights=8192,
    bits=4,
    group_size=32,
    divergence=0.1,
    relative_loss=0.01,
)
PLAN = BudgetPlan(
    key="0" * 64,
    config=GPTQConfig(group_size=32),
    limit_bytes=5000,
    quantized_bytes=4900,
    bits=3.5,
    divergence=0.1,
    units=(UNIT,),
    curve=(CurvePoint(bits=3.5, divergence=0.1),),
    uniform=(CurvePoint(bits=4.7, divergence=0.2, grid="4 bits, groups of 32"),),
    mixed=True,
    tokens=128,
    seconds=1.5,
)


def test_a_budget_is_checked_at_the_submit(service: Service):
    """Its estimate is of a model of that size; the group size of the options, which is not used, may be any."""
    small, large = (
        service.client.post("/v1/jobs?validate_only=true", json=job_request(group_size=7, budget={"bits": bits})).json()
        for bits in (5.0, 9.0)
    )
    assert small["estimate"]["artifact_bytes"] < large["estimate"]["artifact_bytes"]
    job = service.submit(budget={"bits": 5.0})
    assert job["spec"]["budget"] == {"bits": 5.0, "bytes": 0, "lowest_bits": 3, "windows": 8}
    assert "budget" not in service.submit()["spec"]


@pytest.mark.parametrize(
    ("budget", "pointer"),
    [
        ({"bits": 1.0}, "#/budget/bits"),
        ({"bytes": 1000}, "#/budget/bytes"),
        ({}, "#/budget/bits"),
        ({"bits": 4.0, "lowest_bits": 5}, "#/budget/lowest_bits"),
        ({"bits": 40.0}, "#/budget/bits"),
    ],
)
def test_a_budget_that_cannot_be_met_is_refused(service: Service, budget: dict[str, object], pointer: str):
    """With the field, before a job exists."""
    answer = service.client.post("/v1/jobs", json=job_request(budget=budget))
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["pointer"] == pointer
    assert service.client.get("/v1/jobs").json()["data"] == []


def test_the_plan_is_read_where_it_is(service: Service):
    """Absent before the job was planned; then whole, and not repeated in the job."""
    job_id = service.submit(budget={"bits": 5.0})["id"]
    path = f"/v1/jobs/{job_id}/budget"
    assert service.client.get(path).status_code == 404
    claimed = service.claim()
    with service.services.database.transaction() as repository:
        repository.set_resolved(claimed.id, claimed.lease_token, {"budget_plan": PLAN.to_dict(), "fingerprint": "f"})
    found = service.client.get(path).json()
    assert found["curve"] == [POINT]
    assert found["units"][0]["bits"] == 4
    assert found["uniform"][0]["grid"] == "4 bits, groups of 32"
    assert service.client.get(f"/v1/jobs/{job_id}").json()["resolved"] == {"fingerprint": "f"}
