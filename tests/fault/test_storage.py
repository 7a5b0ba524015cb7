"""R15, R16: an object store that fails, is slow, loses parts, lies, or cannot be reached."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest

from store.artifacts import PART_BYTES, ArtifactStore
from store.errors import LeaseLostError, NotFoundError, StorageUnavailableError
from store.jobs import JobState
from tests.conftest import Bucket
from tests.fault.checker import check
from tests.fault.conftest import Deploy
from tests.fault.deployment import wait_for
from tests.fault.faulty_s3 import FaultyS3, faulty_s3
from tests.fault.proxy import proxied


@pytest.fixture
def faulty(bucket: Bucket) -> Iterator[FaultyS3]:
    """A proxy that misbehaves, in front of the bucket."""
    with faulty_s3(bucket.endpoint) as server:
        yield server


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A file of three parts."""
    path = tmp_path / "large.bin"
    path.write_bytes(os.urandom(2 * PART_BYTES + 12345))
    return path


def uploads_open(bucket: Bucket) -> bool:
    """Whether an upload in parts was begun and neither completed nor given up."""
    name = bucket.url.removeprefix("s3://").partition("/")[0]
    return "<UploadId>" in httpx.get(f"{bucket.endpoint}/{name}?uploads").text


@pytest.mark.parametrize("fault", ["500", "503", "slow", "cut"])
def test_r16_a_part_that_fails_is_sent_again(bucket: Bucket, faulty: FaultyS3, large: Path, fault: str):
    """One part is repeated, not the file; what is stored afterwards is the file."""
    store = ArtifactStore(bucket.url, s3_endpoint=faulty.endpoint)
    faulty.rule(fault, having="partNumber=2")
    sha256, _ = store.put_file(large)
    assert faulty.unused == 0
    begun = [request for request in faulty.seen if request.startswith("POST") and "uploads" in request]
    assert len(begun) == 1
    assert hashlib.sha256(b"".join(store.open(sha256))).hexdigest() == sha256
    assert not uploads_open(bucket)


def test_r16_a_wrong_etag_is_no_upload(bucket: Bucket, faulty: FaultyS3, large: Path):
    """A part whose tag is not the server's own cannot be completed: an error, no blob; the next try stores it."""
    store = ArtifactStore(bucket.url, s3_endpoint=faulty.endpoint)
    faulty.rule("etag", having="partNumber=2")
    with pytest.raises(StorageUnavailableError):
        store.put_file(large)
    sha256 = hashlib.sha256(large.read_bytes()).hexdigest()
    assert not store.exists(sha256)
    assert store.put_file(large)[0] == sha256
    assert store.exists(sha256)


def test_a_lost_lease_gives_an_upload_up(bucket: Bucket, large: Path):
    """Between two parts the upload ends, and the store keeps nothing of it."""
    store = ArtifactStore(bucket.url, s3_endpoint=bucket.endpoint)
    parts = 0

    def lose_at_the_third() -> None:
        nonlocal parts
        parts += 1
        if parts == 3:
            raise LeaseLostError("job_1", 1)

    with pytest.raises(LeaseLostError):
        store.put_file(large, lose_at_the_third)
    wait_for(lambda: not uploads_open(bucket), "the parts are left")
    assert not store.exists(hashlib.sha256(large.read_bytes()).hexdigest())


def test_a_signed_url_gives_the_blob_to_anybody(bucket: Bucket, tmp_path: Path):
    """The bucket itself answers, without our credentials; a folder has no such URL, a missing blob neither."""
    store = ArtifactStore(bucket.url, s3_endpoint=bucket.endpoint)
    sha256, _ = store.put_bytes(b"for anybody")
    url = store.signed_url(sha256, 60)
    assert url is not None
    assert httpx.get(url).content == b"for anybody"
    assert "X-Amz-Expires=60" in url
    with pytest.raises(NotFoundError):
        store.signed_url("0" * 64, 60)
    assert ArtifactStore(f"file://{tmp_path}/store").signed_url(sha256, 60) is None


def test_r16_a_job_over_a_store_that_fails_now_and_then(
    deploy: Deploy, bucket: Bucket, faulty: FaultyS3, undisturbed: Mapping[str, str]
):
    """Errors and cuts under checkpoints and artifact cost time and nothing else; the bucket ends at its baseline."""
    deployment = deploy(artifacts_url=bucket.url, s3_endpoint=faulty.endpoint)
    for fault in ("500", "cut", "503", "slow"):
        faulty.rule(fault, 2)
    job = deployment.submit(block_seconds=0.1)
    deployment.worker()
    ended = deployment.wait(job)
    assert (ended.state, ended.failures) == (JobState.SUCCEEDED, 0), ended.error
    assert faulty.unused == 0
    check(deployment, [ended], undisturbed)


def test_r15_a_worker_cut_off_from_its_storage(deploy: Deploy, bucket: Bucket, undisturbed: Mapping[str, str]):
    """A job whose artifact has nowhere to go is tried again later, without solving a block again."""
    host, port = bucket.endpoint.removeprefix("http://").split(":")
    with proxied((host, int(port))) as proxy:
        endpoint = f"http://127.0.0.1:{proxy.port}"
        deployment = deploy(artifacts_url=bucket.url, s3_endpoint=bucket.endpoint)
        proxy.cut()
        job = deployment.submit(max_attempts=9)
        deployment.worker(s3_endpoint=endpoint, upload_tries=1)
        deployment.wait(job, lambda found: found.failures >= 1)
        proxy.mend()
        ended = deployment.wait(job)
        assert ended.state is JobState.SUCCEEDED
        assert sorted(deployment.solved_blocks(job)) == list(range(8))
        check(deployment, [ended], undisturbed)
