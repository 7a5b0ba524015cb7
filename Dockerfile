# Two images from one file: `api` carries no engine library, `worker` carries torch. Both run as an ordinary user.
#   docker build --target api -t bitmill-api .
#   docker build --target worker -t bitmill-worker .

ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS base
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PATH=/venv/bin:$PATH \
    BITMILL_DATA_DIR=/data \
    BITMILL_CACHE_DIR=/cache
RUN groupadd --gid 10001 bitmill \
 && useradd --uid 10001 --gid bitmill --no-log-init --create-home bitmill \
 && install --directory --owner=bitmill --group=bitmill /data /cache /models

# The packages of one extra, pinned. This layer changes with the lock, not with the code.
FROM base AS packages
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /venv
WORKDIR /src
COPY pyproject.toml constraints.txt README.md ./
COPY web/backend.py web/dashboard.py web/

FROM packages AS api-packages
RUN pip install --constraint constraints.txt '.[api,tracing]'

# PIP_FLAGS: where torch comes from, for a build without CUDA; empty takes the default build.
FROM packages AS worker-packages
ARG PIP_FLAGS=""
RUN pip install ${PIP_FLAGS} --constraint constraints.txt '.[engine,tracing]'

# The page, built with a Node from PyPI, because this image has none.
FROM packages AS dashboard
COPY web web
RUN python web/dashboard.py

# Our own code, installed over the empty package that the layers above left.
FROM api-packages AS api-code
COPY . .
COPY --from=dashboard /src/api/static api/static
RUN pip install --no-deps --force-reinstall .

FROM worker-packages AS worker-code
COPY . .
COPY --from=dashboard /src/api/static api/static
# Kernels are compiled here, not by the first job; from / so that the installed package is the one that is imported.
RUN pip install --no-deps --force-reinstall . && cd / && python -m core.warm_up

FROM base AS api
COPY --from=api-code /venv /venv
USER bitmill
WORKDIR /data
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/readyz', timeout=4)"]
CMD ["uvicorn", "--factory", "api.app:create_app", "--host", "0.0.0.0", "--port", "8080", "--no-access-log"]

FROM base AS worker
COPY --from=worker-code /venv /venv
USER bitmill
WORKDIR /data
HEALTHCHECK --interval=30s --timeout=15s --start-period=60s --retries=3 CMD ["bitmill", "admin", "check"]
CMD ["celery", "-A", "worker.celery_app", "worker", "--pool", "threads", "--concurrency", "1", "-Q", "default"]
