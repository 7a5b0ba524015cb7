"""Submits a job over HTTP, waits for its end, downloads the files and checks them. Needs httpx alone.

python examples/client.py MODEL --bits 4 --group-size 64 --dst artifact

MODEL is a hub id (owner/name) or a folder that the service can read. BITMILL_URL and BITMILL_API_KEY say where to ask.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import httpx

POLL_SECONDS = 1.0
UNFINISHED = ("queued", "running", "cancelling")


class JobEndedBadlyError(Exception):
    """A job that was waited for failed or was cancelled."""


def connect() -> httpx.Client:
    """Returns a client of the service that the environment names."""
    key = os.environ.get("BITMILL_API_KEY")
    return httpx.Client(
        base_url=os.environ.get("BITMILL_URL", "http://127.0.0.1:8080"),
        headers={"Authorization": f"Bearer {key}"} if key else {},
        timeout=30,
        transport=httpx.HTTPTransport(retries=3),
    )


def model_of(name: str) -> dict[str, str]:
    """Returns a request's `model`: a path where it is absolute or a folder here, else a hub id."""
    if Path(name).is_absolute() or Path(name).is_dir():
        return {"source": "path", "path": str(Path(name).absolute())}
    return {"source": "hub", "repo": name}


def post(client: httpx.Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Sends a request that makes something; the key makes a repetition after a broken connection harmless."""
    return answer(client.post(path, json=body, headers={"Idempotency-Key": str(uuid.uuid4())}))


def answer(response: httpx.Response) -> dict[str, Any]:
    """Returns the JSON of an answer; a refusal ends the program with the service's own words."""
    if response.is_error:
        problem = response.json()
        fields = [f"  {error['pointer']}: {error['detail']}" for error in problem.get("errors") or ()]
        raise SystemExit("\n".join([problem["detail"], *fields, problem.get("hint") or ""]).strip())
    body: dict[str, Any] = response.json()
    return body


def wait(client: httpx.Client, job_id: str) -> None:
    """Returns when the job has succeeded; raises JobEndedBadlyError where it did not.

    What has not changed is answered 304, without a body and without work for the service.
    """
    etag = ""
    while True:
        response = client.get(f"/v1/jobs/{job_id}/progress", headers={"If-None-Match": etag})
        if response.status_code != httpx.codes.NOT_MODIFIED:
            progress, etag = answer(response), response.headers["ETag"]
            print(f"{progress['state']}  {progress['fraction']:.0%}", file=sys.stderr)
            if progress["state"] == "succeeded":
                return
            if progress["state"] not in UNFINISHED:
                error = progress["error"] or {"message": "", "hint": ""}
                raise JobEndedBadlyError(f"{job_id} {progress['state']}. {error['message']} {error['hint']}".strip())
        time.sleep(POLL_SECONDS)


def download(client: httpx.Client, job_id: str, folder: Path) -> int:
    """Fetches every file of a finished job into the folder and returns how many; removes one that fails its hash."""
    files = answer(client.get(f"/v1/jobs/{job_id}/artifacts"))["data"]
    for file in files:
        path = folder / file["name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with client.stream("GET", file["content"]) as response, path.open("wb") as out:
            response.raise_for_status()
            for chunk in response.iter_bytes():
                digest.update(chunk)
                out.write(chunk)
        if digest.hexdigest() != file["sha256"]:
            path.unlink()
            raise SystemExit(f"{file['name']} arrived damaged; run it again.")
    return len(files)


def main() -> None:
    """Takes one model all the way."""
    parser = argparse.ArgumentParser(description="Quantize a model through the service.")
    parser.add_argument("model", help="hub id, or a folder that the service can read")
    parser.add_argument("--method", default="gptq")
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--group-size", type=int, default=64)
    parser.add_argument("--dst", type=Path, default=Path("artifact"))
    options = parser.parse_args()
    request = {
        "model": model_of(options.model),
        "method": options.method,
        "bits": options.bits,
        "group_size": options.group_size,
        "labels": {"from": "client.py"},
    }
    with connect() as client:
        job_id = post(client, "/v1/jobs", request)["id"]
        try:
            wait(client, job_id)
        except JobEndedBadlyError as error:
            raise SystemExit(str(error)) from error
        files = download(client, job_id, options.dst)
    print(f"{job_id}: {files} files in {options.dst}")


if __name__ == "__main__":
    main()
