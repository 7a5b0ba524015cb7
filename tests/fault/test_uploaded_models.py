"""R1, R17 while an uploaded model is fetched; R1 while one is being uploaded."""

from __future__ import annotations

import socket
from pathlib import Path

import httpx
import pytest

from store.jobs import Job, JobState
from store.models import UploadedModel
from tests.conftest import Bucket
from tests.core.preflight.archives import folder_files, pack
from tests.fault.checker import check
from tests.fault.conftest import Deploy
from tests.fault.deployment import OWNER, Deployment, wait_for
from tests.servers import free_port
from tests.worker.uploads import put_model, source_of_upload
from worker.faults import FaultPoint

PLACE = FaultPoint.MODEL_FILE


def uploaded(deployment: Deployment, tiny_model: Path) -> UploadedModel:
    """Stores the tiny model."""
    return put_model(deployment.database, deployment.services.artifacts, tiny_model, OWNER)


def submit(deployment: Deployment, model: UploadedModel, queue: str) -> Job:
    """Stores a job on it."""
    return deployment.add(source_of_upload(model), plan={}, queue=queue)


@pytest.mark.queues("undisturbed", "killed")
def test_r1_a_worker_killed_while_it_fetches_a_model(deployment: Deployment, tiny_model: Path, tmp_path: Path):
    """At its second file: the first one is not fetched again, and the job ends in the bytes of one on another machine
    that has never seen the files.
    """
    model = uploaded(deployment, tiny_model)
    job = submit(deployment, model, "killed")
    worker = deployment.worker("killed", faults=f"{PLACE}@2=hold")
    deployment.reached("killed", PLACE)
    worker.kill()
    cached = deployment.settings.cache_dir / "uploads" / model.sha256
    [whole] = cached.iterdir()
    inode = whole.stat().st_ino
    deployment.worker("killed")
    ended = deployment.wait(job)
    assert ended.state is JobState.SUCCEEDED, ended.error
    assert ended.attempt > 1
    assert whole.stat().st_ino == inode
    calm = submit(deployment, model, "undisturbed")
    deployment.worker("undisturbed", cache_dir=tmp_path / "elsewhere")
    assert deployment.wait(calm).state is JobState.SUCCEEDED
    check(deployment, [job, calm], deployment.published(calm))


@pytest.mark.queues("cancelled")
def test_r17_a_cancel_while_a_model_is_fetched(deployment: Deployment, tiny_model: Path):
    """The fetch ends at the next piece, and what was whole stays for another job."""
    model = uploaded(deployment, tiny_model)
    job = submit(deployment, model, "cancelled")
    deployment.worker("cancelled", faults=f"{PLACE}@2=hold")
    deployment.reached("cancelled", PLACE)
    deployment.cancel(job)
    # Its lease renews itself while the fetch hangs; the second time it has seen what the first one answered.
    version = deployment.job(job.id).version
    deployment.wait(job, lambda found: found.version >= version + 2)
    (deployment.marks("cancelled") / "go").touch()
    ended = deployment.wait(job)
    assert (ended.state, ended.attempt) == (JobState.CANCELLED, 1)
    wait_for(lambda: not deployment.work_folder(job).exists(), "the work folder is left")
    assert len(list((deployment.settings.cache_dir / "uploads" / model.sha256).iterdir())) == 1
    check(deployment, [job], {})


def test_r1_an_api_killed_in_the_middle_of_an_upload(deploy: Deploy, tiny_model: Path, bucket: Bucket):
    """Nothing of it is left: no file on the disk, no row, no blob; the next upload is whole, and a job runs on it."""
    deployment = deploy(artifacts_url=bucket.url, s3_endpoint=bucket.endpoint)
    content = pack(folder_files(tiny_model), "tar.gz")
    port = free_port()
    api = deployment.api(port)
    address = f"http://127.0.0.1:{port}"
    wait_for(lambda: answers(address), "the API does not answer")
    head = f"POST /v1/uploaded-models HTTP/1.1\r\nHost: localhost\r\nContent-Length: {2 * len(content)}\r\n"
    form = b'--cut\r\nContent-Disposition: form-data; name="file"; filename="a.tar"\r\n\r\n'
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(head.encode() + b"Content-Type: multipart/form-data; boundary=cut\r\n\r\n" + form + content)
        uploads = deployment.settings.data_dir / "uploads"
        wait_for(uploads.exists, "the upload has not begun")
        api.kill()
    assert list(uploads.iterdir()) == []
    assert deployment.stored_blobs() == set()
    port = free_port()
    deployment.api(port)
    address = f"http://127.0.0.1:{port}"
    wait_for(lambda: answers(address), "the API does not answer")
    assert httpx.get(f"{address}/v1/uploaded-models").json()["data"] == []
    answer = httpx.post(f"{address}/v1/uploaded-models", files={"file": ("tiny.tar.gz", content)}, timeout=60)
    assert answer.status_code == 201, answer.text
    request = {"model": {"source": "upload", "id": answer.json()["id"]}, "method": "rtn", "group_size": 32}
    job_id = httpx.post(f"{address}/v1/jobs", json=request, timeout=60).json()["id"]
    deployment.worker()
    job = deployment.wait(deployment.job(job_id))
    assert job.state is JobState.SUCCEEDED, job.error
    check(deployment, [job], deployment.published(job))


def answers(address: str) -> bool:
    """Whether an API is ready there."""
    try:
        return httpx.get(f"{address}/livez", timeout=5).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
