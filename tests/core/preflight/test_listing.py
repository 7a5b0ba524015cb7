"""What the roots hold is found where a job could name it, and nothing that a job would be refused for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.preflight import listing
from core.preflight.listing import list_models
from core.preflight.roots import resolve_model_path
from tests.core.preflight.folders import make_llama


@pytest.fixture
def roots(tmp_path: Path) -> dict[str, Path]:
    """Two roots with a model each."""
    make_llama(tmp_path / "cache" / "models" / "tiny")
    make_llama(tmp_path / "data" / "own")
    return {"cache": tmp_path / "cache", "data": tmp_path / "data"}


def test_models_are_told_as_a_job_names_them(roots: dict[str, Path]):
    """Root and path lead back to the folder; the size is that of its weights."""
    found = list_models(roots)
    assert [(model.root, model.path, model.model_type) for model in found.models] == [
        ("cache", "models/tiny", "llama"),
        ("data", "own", "llama"),
    ]
    assert found.truncated is False
    for model in found.models:
        name, folder = resolve_model_path(roots[model.root] / model.path, roots)
        assert name == model.root
        assert model.bytes == (folder / "model.safetensors").stat().st_size


def test_what_a_job_would_be_refused_for_is_left_out(roots: dict[str, Path], tmp_path: Path):
    """Quantized models, encoders, code, no weights, broken configs, hidden folders, links, what lies too deep."""
    root = roots["data"]
    for name, changes in {
        "quantized": {"quantization_config": {"quant_method": "gptq"}},
        "encoder": {"model_type": "bert", "architectures": ["BertModel"]},
        "code": {"auto_map": {"AutoModel": "x.Y"}},
    }.items():
        config = make_llama(root / name) / "config.json"
        config.write_text(json.dumps({**json.loads(config.read_text()), **changes}))
    (make_llama(root / "weightless") / "model.safetensors").unlink()
    (make_llama(root / "broken") / "config.json").write_text("{")
    make_llama(root / ".scratch" / "half")
    make_llama(root / "a" / "b" / "c" / "deep")
    make_llama(tmp_path / "outside")
    (root / "link").symlink_to(tmp_path / "outside")
    assert [model.path for model in list_models(roots).models] == ["models/tiny", "own"]


def test_a_root_may_be_a_model_or_be_absent(tmp_path: Path):
    """The first is named by `.`; the second holds nothing."""
    make_llama(tmp_path / "model")
    found = list_models({"one": tmp_path / "model", "none": tmp_path / "nowhere"})
    assert [(model.root, model.path) for model in found.models] == [("one", ".")]


@pytest.mark.parametrize(("limit", "value"), [("ENTRIES_MAX", 3), ("MODELS_MAX", 1)])
def test_large_roots_are_not_looked_through_for_ever(
    roots: dict[str, Path], monkeypatch: pytest.MonkeyPatch, limit: str, value: int
):
    """And the answer says that there may be more."""
    monkeypatch.setattr(listing, limit, value)
    found = list_models(roots)
    assert found.truncated
    assert len(found.models) <= 1
