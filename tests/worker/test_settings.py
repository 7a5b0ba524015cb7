"""Worker settings: what they refuse, and what a child inherits."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from worker.services import open_services
from worker.settings import WorkerSettings, settings_from_env


def test_a_worker_must_give_up_before_its_lease_ends():
    with pytest.raises(ValidationError, match="fence_seconds < lease_seconds"):
        WorkerSettings(lease_seconds=30, fence_seconds=40)


def test_a_stand_in_for_the_engine_needs_a_second_switch(monkeypatch: pytest.MonkeyPatch):
    """One variable set by accident never replaces the engine."""
    monkeypatch.setenv("BITMILL_TEST_ENGINE", "/tmp/engine.py")  # noqa: S108 - a name, no file
    with pytest.raises(ValidationError, match="allow_test_hooks"):
        settings_from_env()
    monkeypatch.setenv("BITMILL_ALLOW_TEST_HOOKS", "1")
    assert settings_from_env().test_engine == Path("/tmp/engine.py")  # noqa: S108


@pytest.mark.parametrize(
    ("device", "kind"), [("cpu", "cpu"), ("cpu,cpu", "cpu"), ("cuda:1", "cuda"), ("cuda:0,cuda:1", "cuda")]
)
def test_a_worker_has_one_device_or_several(device: str, kind: str, tmp_path: Path):
    """The engine gets their names; routing and operators see what kind they are."""
    services = open_services(WorkerSettings(device=device, data_dir=tmp_path))
    assert (services.settings.device, services.capability.device) == (device, kind)


@pytest.mark.parametrize("device", ["auto", "mps", "gpu", "cpu,cuda", "cuda:0,", ""])
def test_other_devices_of_a_worker_are_refused(device: str):
    with pytest.raises(ValidationError, match="device"):
        WorkerSettings(device=device)


def test_the_hubs_token_is_not_printed():
    assert "hf_hidden" not in repr(WorkerSettings(hub_token=SecretStr("hf_hidden")))


def test_only_the_downloader_inherits_the_way_to_the_network(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:1")
    settings = WorkerSettings()
    assert "HTTPS_PROXY" not in settings.child_environment()
    environment = settings.child_environment(network=True)
    assert environment["HTTPS_PROXY"] == "http://proxy:1"
    assert "HF_HUB_OFFLINE" not in environment
