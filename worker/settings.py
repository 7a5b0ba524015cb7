"""Reads how a worker behaves (lease times, patience, hub) from BITMILL_* variables, once, beside the store's settings.

The only module of this package that looks at the environment.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from pydantic import ByteSize, Field, SecretStr, field_validator, model_validator

from core.calibration.hub import DEFAULT_ENDPOINT
from core.configs.devices import device_kind, split_devices
from core.errors import InvalidConfigError
from store.settings import StoreSettings
from worker.faults import read_plan
from worker.kernels import kernel_folder

# What a child may inherit: where programs are, how many threads to use, which device. No secret, no address.
INHERITED = (
    "PATH",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "LD_LIBRARY_PATH",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
    "SYSTEMROOT",
)
# What the downloader needs on top: the way to the hub.
INHERITED_FOR_NETWORK = (
    *(name.upper() for name in ("http_proxy", "https_proxy", "no_proxy")),
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
)
PACKAGE_ROOT = Path(__file__).resolve().parent.parent


def _is_folder(artifacts_url: str) -> bool:
    return artifacts_url.startswith("file:")


class WorkerSettings(StoreSettings):
    """Times are seconds.

    lease_seconds: how long a claim holds without renewal. heartbeat_seconds: between renewals. fence_seconds: without
    a renewal the supervisor kills its child and writes nothing more; it must lie below lease_seconds.
    poll_seconds: between looks for a cancel. sweep_seconds: between sweeps and wake-ups. stop_grace_seconds: from a
    stop request to TERM. kill_grace_seconds: from TERM to KILL. drain_seconds: how long a drain waits for the end of
    a block. silence_limit_seconds: a child that sends not even a tick is frozen. stall_limit_seconds: a child that
    ticks but reports no work is stuck. retry_base_seconds, retry_cap_seconds: backoff between attempts.
    idle_exit_seconds: a worker that starts nothing while work waits ends, so that its process manager restarts it.
    upload_tries: how often one file is put before the attempt fails. blob_grace_seconds: how long uploaded bytes that
    no row refers to are kept; it must exceed the longest upload of a whole artifact.
    artifact_days, calibration_days, model_days: how long files of finished jobs, uploaded texts and uploaded models are
    kept; None: for ever. model_cache_bytes: of uploaded models that this machine keeps at hand; those in use stay.
    expiry_notice_hours: how long before something goes its owner is warned.
    device: what this worker's jobs run on, one device or several, as in cuda:0,cuda:1; operators and routing see which
    kind it is.
    activation_memory: what a job's calibration batches may hold in memory, such as 2GB; None: half of what is free.
    hub_endpoint, hub_token: where models come from. share_checkpoints: put finished blocks into the artifact store, for
    a worker on another machine to go on with; by default where that is a bucket. test_engine: a Python file whose
    `quantize_checkpoint` stands in for the engine. test_faults, test_faults_dir: see `worker.faults`. These three are
    refused without allow_test_hooks.
    """

    lease_seconds: float = Field(default=60.0, gt=0)
    heartbeat_seconds: float = Field(default=10.0, gt=0)
    fence_seconds: float = Field(default=40.0, gt=0)
    poll_seconds: float = Field(default=1.0, gt=0)
    sweep_seconds: float = Field(default=2.0, gt=0)
    stop_grace_seconds: float = Field(default=15.0, ge=0)
    kill_grace_seconds: float = Field(default=5.0, ge=0)
    drain_seconds: float = Field(default=300.0, ge=0)
    silence_limit_seconds: float = Field(default=120.0, gt=0)
    stall_limit_seconds: float = Field(default=1800.0, gt=0)
    retry_base_seconds: float = Field(default=5.0, ge=0)
    retry_cap_seconds: float = Field(default=300.0, ge=0)
    idle_exit_seconds: float = Field(default=30.0, gt=0)
    upload_tries: int = Field(default=4, ge=1)
    blob_grace_seconds: float = Field(default=86_400.0, gt=0)
    artifact_days: float | None = Field(default=None, gt=0)
    calibration_days: float | None = Field(default=None, gt=0)
    model_days: float | None = Field(default=None, gt=0)
    model_cache_bytes: ByteSize = ByteSize(100_000_000_000)
    expiry_notice_hours: float = Field(default=24.0, ge=0)
    device: str = "cpu"
    share_checkpoints: bool = Field(default_factory=lambda values: not _is_folder(values.get("artifacts_url", "")))
    activation_memory: ByteSize | None = None
    hub_endpoint: str = DEFAULT_ENDPOINT
    hub_token: SecretStr | None = None
    test_engine: Path | None = None
    test_faults: str = ""
    test_faults_dir: Path | None = None
    allow_test_hooks: bool = False

    @field_validator("device")
    @classmethod
    def _check_device(cls, names: str) -> str:
        try:
            split_devices(names)
        except InvalidConfigError as error:
            raise ValueError(str(error)) from error
        if device_kind(names) not in {"cpu", "cuda"}:
            raise ValueError("a worker runs on cpu or cuda")
        return names

    @model_validator(mode="after")
    def _check_times(self) -> Self:
        if not self.heartbeat_seconds < self.fence_seconds < self.lease_seconds:
            raise ValueError(
                "heartbeat_seconds < fence_seconds < lease_seconds must hold: a worker fences itself first"
            )
        if (self.test_engine is not None or self.test_faults) and not self.allow_test_hooks:
            raise ValueError("test_engine and test_faults are for tests only; allow_test_hooks must be set with them")
        read_plan(self.test_faults)
        return self

    @property
    def work_root(self) -> Path:
        """Returns where the work folders of running jobs lie."""
        return self.data_dir / "work"

    @property
    def folder_names(self) -> Mapping[Path, str]:
        """Returns what the folders of this machine are called where users read of them."""
        roots = {root.path: root.name for root in self.model_roots}
        ours = {self.work_root: "work", self.data_dir: "data", self.cache_dir: "cache", PACKAGE_ROOT: "bitmill"}
        return {Path(sys.prefix): "python", **ours, **roots}

    def child_environment(self, *, network: bool = False) -> dict[str, str]:
        """Returns the whole environment of a child: nothing of the service's addresses, keys and secrets is in it."""
        inherited = INHERITED + (INHERITED_FOR_NETWORK if network else ())
        environment = {name: os.environ[name] for name in inherited if name in os.environ}
        return {**environment, **self._child_folders(), **({} if network else OFFLINE)}

    def _child_folders(self) -> Mapping[str, str]:
        return {
            "HOME": str(self.cache_dir / "home"),
            "HF_HOME": str(self.cache_dir / "huggingface"),
            "NUMBA_CACHE_DIR": str(kernel_folder(self.cache_dir)),
            "XDG_CACHE_HOME": str(self.cache_dir),
            "PYTHONPATH": str(PACKAGE_ROOT),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }


OFFLINE: Mapping[str, str] = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


def settings_from_env() -> WorkerSettings:
    """Returns the settings as the environment says; raises pydantic.ValidationError naming each wrong field."""
    return WorkerSettings()


def python_command(module: str) -> tuple[str, ...]:
    """Returns the command that runs one of our modules in this interpreter, its working folder not on the path."""
    return (sys.executable, "-P", "-m", module)
