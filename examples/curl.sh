#!/usr/bin/env bash
# The whole way over HTTP, with curl. It writes artifact.zip and artifact/ into the current folder.
# BITMILL_URL: the service. BITMILL_MODEL: a model folder that it can read. BITMILL_API_KEY: only where a key is needed.
set -euo pipefail

URL=${BITMILL_URL:-http://127.0.0.1:8080}
MODEL=${BITMILL_MODEL:-$HOME/.cache/bitmill/models/SmolLM2-135M-Instruct}
ask() { curl -sSf ${BITMILL_API_KEY:+-H "Authorization: Bearer $BITMILL_API_KEY"} "$@"; }
field() { python3 -c "import json, sys; print(json.load(sys.stdin)['$1'])"; }

# Is it ready?
ask "$URL/readyz"

# Submit. The answer is 202 with the job; the same Idempotency-Key never makes a second one.
JOB=$(ask "$URL/v1/jobs" \
  -H 'Content-Type: application/json' -H "Idempotency-Key: walk-through-$$-$(date +%s)" \
  -d '{"model": {"source": "path", "path": "'"$MODEL"'"}, "bits": 4, "group_size": 64,
       "calibration": {"samples": 8, "seq_len": 128}, "targets": ["transformers"], "labels": {"from": "curl"}}' | field id)

# Follow it. An answer that has not changed costs nothing: send its ETag back and get 304.
STATE=queued
while [ "$STATE" = queued ] || [ "$STATE" = running ]; do
  sleep 1
  STATE=$(ask "$URL/v1/jobs/$JOB/progress" | field state)
done
echo "$JOB $STATE"

# What it did, linear by linear, and what happened on the way.
ask "$URL/v1/jobs/$JOB/linears?page_size=2"
ask "$URL/v1/jobs/$JOB/events?page_size=2"

# All files as one archive, checked.
ask "$URL/v1/jobs/$JOB/archive.zip" -o artifact.zip
python3 -m zipfile -e artifact.zip artifact
(cd artifact/* && sha256sum -c SHA256SUMS)

# One file, or a part of it.
ask "$URL/v1/jobs/$JOB/artifacts"
ask "$URL/v1/jobs/$JOB/SHA256SUMS"
