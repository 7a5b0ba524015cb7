"""Liveness, readiness, metrics."""

from __future__ import annotations

from pathlib import Path

from api.settings import ApiSettings
from tests.api.service import Service, serve
from tests.servers import free_port


def test_a_whole_service_is_ready(service_on_each: Service):
    assert service_on_each.client.get("/livez").json() == {"status": "ok"}
    ready = service_on_each.client.get("/readyz")
    assert ready.status_code == 200
    assert ready.json() == {"status": "ready", "database": "ok", "artifacts": "ok", "broker": "ok"}


def test_a_dead_database_is_told_and_survived(settings: ApiSettings):
    """503 with a problem and a time to come back; the process itself lives."""
    dead = settings.model_copy(update={"database_url": f"postgresql+psycopg://u@127.0.0.1:{free_port()}/none"})
    with serve(dead) as service:
        assert service.client.get("/livez").status_code == 200
        ready = service.client.get("/readyz")
        assert (ready.status_code, ready.json()["status"], ready.json()["database"]) == (503, "unavailable", "failing")
        response = service.client.get("/v1/jobs")
        assert (response.status_code, response.json()["code"]) == (503, "storage_unavailable")
        assert response.json()["retryable"]
        assert int(response.headers["retry-after"]) > 0
        assert "none" not in response.json()["detail"]


def test_metrics_count_requests_and_jobs(service: Service):
    """By route template, never by path; unknown paths share one line."""
    service.submit()
    service.client.get("/v1/jobs/job_0")
    service.client.get("/a")
    service.client.get("/b")
    text = service.client.get("/metrics").text
    assert 'bitmill_http_requests_total{method="POST",route="/v1/jobs",status="202"} 1.0' in text
    assert 'bitmill_http_requests_total{method="GET",route="/v1/jobs/{job_id}",status="404"} 1.0' in text
    assert 'bitmill_http_requests_total{method="GET",route="unmatched",status="404"} 2.0' in text
    assert 'bitmill_jobs{state="queued"} 1.0' in text
    assert 'bitmill_jobs_queued{queue_class="default"} 1.0' in text
    assert "job_0" not in text


def test_page_tokens_outlive_a_restart(settings: ApiSettings):
    """The secret is made once, kept with the owner's rights alone, and read again."""
    with serve(settings) as service:
        for _ in range(2):
            service.submit()
        token = service.client.get("/v1/jobs?page_size=1").json()["next_page_token"]
    secret = Path(settings.data_dir / "api-secret")
    assert secret.stat().st_mode & 0o777 == 0o600
    with serve(settings) as service:
        assert service.client.get("/v1/jobs", params={"page_token": token}).status_code == 200
