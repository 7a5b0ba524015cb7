"""A model path leads into an allowed root or nowhere, whatever links and dots it is made of."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import ModelProblem, ModelRefusedError
from core.preflight.roots import resolve_model_path


@pytest.fixture
def roots(tmp_path: Path) -> dict[str, Path]:
    """Two roots, one model in each, and a secret outside."""
    for name in ("cache/models/tiny", "data/own", "outside/model"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "outside" / "secret").write_text("s")
    return {"cache": tmp_path / "cache", "data": tmp_path / "data"}


def refused(path: str | Path, roots: dict[str, Path]) -> str:
    with pytest.raises(ModelRefusedError) as caught:
        resolve_model_path(path, roots)
    assert caught.value.problem == ModelProblem.NOT_FOUND
    return str(caught.value)


def test_every_spelling_of_an_allowed_folder(roots: dict[str, Path]):
    """Absolute, relative to a root, and with the root's name in front."""
    wanted = ("cache", roots["cache"] / "models" / "tiny")
    for spelling in (wanted[1], "models/tiny", "cache/models/tiny", "models/./tiny", "models/other/../tiny"):
        if "other" in str(spelling):
            (roots["cache"] / "models" / "other").mkdir()
        assert resolve_model_path(spelling, roots) == wanted


def test_outside_and_absent_are_answered_alike(roots: dict[str, Path], tmp_path: Path):
    """The two messages differ only in the path that the user gave, so that nobody can probe for files."""
    outside, absent = tmp_path / "outside" / "model", tmp_path / "nowhere" / "model"
    assert refused(outside, roots).replace(str(outside), "") == refused(absent, roots).replace(str(absent), "")


@pytest.mark.parametrize("path", ["../outside/model", "models/../../outside/model", "/", "/etc", "a\0b", "x" * 5000])
def test_ways_out_are_refused(roots: dict[str, Path], path: str):
    """Dots, absolute paths and malformed names lead nowhere."""
    refused(path, roots)


def test_a_link_out_of_the_roots_is_refused(roots: dict[str, Path], tmp_path: Path):
    """The folder itself as a link; and a loop of links."""
    (roots["cache"] / "way-out").symlink_to(tmp_path / "outside" / "model")
    (roots["cache"] / "loop").symlink_to(roots["cache"] / "loop")
    refused("way-out", roots)
    refused("loop", roots)


def test_a_link_within_the_roots_is_followed(roots: dict[str, Path]):
    """The answer is the place behind the link, under the root that holds it."""
    (roots["cache"] / "link").symlink_to(roots["data"] / "own")
    assert resolve_model_path("link", roots) == ("data", roots["data"] / "own")


def test_a_file_in_the_folder_may_not_link_out(roots: dict[str, Path], tmp_path: Path):
    """A model whose config.json is somebody's secret is no model; hub caches link within their root."""
    model = roots["cache"] / "models" / "tiny"
    (roots["cache"] / "blob").write_text("{}")
    (model / "config.json").symlink_to(roots["cache"] / "blob")
    assert resolve_model_path(model, roots)[0] == "cache"
    (model / "tokenizer.json").symlink_to(tmp_path / "outside" / "secret")
    assert "tokenizer.json" in refused(model, roots)


def test_a_file_is_not_a_folder(roots: dict[str, Path]):
    """Pointing at the weights themselves is answered as absent."""
    (roots["cache"] / "model.safetensors").write_text("")
    refused("model.safetensors", roots)


def test_the_innermost_root_names_the_folder(roots: dict[str, Path]):
    """Where roots are nested, the answer is the closest one."""
    nested = roots | {"inner": roots["cache"] / "models"}
    assert resolve_model_path(roots["cache"] / "models" / "tiny", nested)[0] == "inner"


def test_without_roots_nothing_is_allowed(roots: dict[str, Path]):
    """An empty setting opens nothing."""
    assert "none is set" in refused(roots["cache"], {})
