"""The Grafana dashboard, the alert rules and their pages agree with what /metrics really serves."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from store.jobs import JobProgress, NewJob
from tests.api.service import WORKER, Service
from tests.conformance.samples import SPEC, worker_facts

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations"
METRIC = re.compile(r"\bbitmill_[a-z_]+")
LABEL = re.compile(r"(\w+)(?:=~|!~|!=|=)\"")


def alerts() -> list[dict[str, Any]]:
    """Returns the alert rules."""
    document = yaml.safe_load((OPERATIONS / "alerts.yml").read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


def dashboard_expressions() -> list[str]:
    """Returns what the dashboard asks Prometheus."""
    document = json.loads((OPERATIONS / "grafana-dashboard.json").read_text())
    return [target["expr"] for panel in document["panels"] for target in panel["targets"]]


def served(service: Service) -> str:
    """Returns /metrics of a service in which something of each kind has happened."""
    for _ in range(2):
        service.submit()
    job = service.claim()
    service.progress(job, JobProgress())
    service.fail(job)
    done = service.claim()
    service.succeed(done, {"a.bin": b"12345"})
    service.submit()
    with service.services.database.transaction() as repository:
        repository.register_worker(worker_facts(WORKER))
    return service.client.get("/metrics").text


def test_what_is_asked_is_served(service: Service):
    """Every metric and label of the dashboard, the rules and the guide exists."""
    text = served(service)
    served_names = set(METRIC.findall(text))
    served_labels = {label for labels in re.findall(r"\{(.*?)\}", text) for label in LABEL.findall(labels)}
    asked = " ".join([*dashboard_expressions(), *(rule["expr"] for rule in alerts())])
    assert set(METRIC.findall(asked)) <= served_names
    assert set(LABEL.findall(asked)) - {"job"} <= served_labels
    guide = (OPERATIONS / "monitoring.md").read_text()
    assert set(METRIC.findall(guide)) <= served_names


def test_the_figures_are_those_of_the_database(service: Service):
    """One failed, one succeeded with five bytes, one waiting, a worker with two free slots, no silent worker."""
    text = served(service)
    assert 'bitmill_job_failures{code="numerical_error"} 1.0' in text
    assert "bitmill_artifact_bytes 5.0" in text
    with service.services.database.reading() as repository:
        texts = repository.list_calibration_sets()
    (text_bytes,) = re.findall(r"^bitmill_calibration_bytes (\S+)", text, re.MULTILINE)
    assert float(text_bytes) == sum(one.size_bytes for one in texts) > 0
    assert "bitmill_model_bytes 0.0" in text
    assert 'bitmill_jobs_queued{queue_class="default"} 1.0' in text
    assert 'bitmill_free_slots{queue_class="default"} 2.0' in text
    assert "bitmill_leases_overdue 0.0" in text
    (waited,) = re.findall(r'bitmill_jobs_waiting_seconds\{queue_class="default"\} (\S+)', text)
    assert 0 <= float(waited) < 60


def test_a_silent_worker_is_counted_until_the_sweep(service_on_each: Service):
    """On both databases: a lease that ran out shows, and is gone once the job was taken back."""
    with service_on_each.services.database.transaction() as repository:
        repository.add_job(NewJob(owner_key_id="key", spec=SPEC, calibration_set_id=None))
        repository.claim("wrk_dead", "default", lease_seconds=-1)
    assert "bitmill_leases_overdue 1.0" in service_on_each.client.get("/metrics").text
    with service_on_each.services.database.transaction() as repository:
        repository.rescue_expired()
    assert "bitmill_leases_overdue 0.0" in service_on_each.client.get("/metrics").text


def test_every_alert_has_its_page():
    """Named after the alert, linked from it, and no page without an alert."""
    names = {rule["alert"] for rule in alerts()}
    pages = {page.stem for page in (OPERATIONS / "runbook").glob("*.md")}
    assert names == pages
    for rule in alerts():
        assert rule["annotations"]["runbook"] == f"docs/operations/runbook/{rule['alert']}.md"
        page = (OPERATIONS / "runbook" / f"{rule['alert']}.md").read_text()
        assert page.startswith(f"# {rule['alert']}\n")
        assert "**Look" in page
        assert "**Do" in page
