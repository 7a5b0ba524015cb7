"""examples/ do what they say, against a real service with a tiny model."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import httpx
import pytest
import yaml

from core.checkpoint.checksums import SUMS_FILE
from tests.docs.conftest import ROOT, Shell
from tests.docs.test_tables import explained
from tests.ops.service import RunningService

EXAMPLES = ROOT / "examples"
PNG = b"\x89PNG\r\n\x1a\n"
EXPRESSION = re.compile(r"\$\{\{ (\S+) \}\}")


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The scripts can be imported, as they import each other, and are forgotten afterwards."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield
    for name in ("client", "sweep", "training_hook"):
        sys.modules.pop(name, None)


def test_curl(shell: Shell):
    """Every command succeeds, and the downloaded files match their checksums."""
    printed = shell(f"bash {EXAMPLES}/curl.sh")
    assert re.search(r"job_\w+ succeeded\n", printed)
    assert "model.safetensors: OK" in printed


def test_the_sweep_draws_its_front(shell: Shell, service: RunningService, models: Path, tmp_path: Path):
    """Each config is a row with size and perplexity, and both pictures hold them; docs/report.md explains the rest."""
    draw = "--samples 8 --seq-len 64"
    printed = shell(f"python {EXAMPLES}/sweep.py {models}/tiny --bits 3 8 --group-sizes 64 {draw} --out out/pareto")
    rows = re.findall(r"(\d) bits, group 64 +(\d+\.\d) MB  (\d+\.\d+)\n", printed)
    assert [row[0] for row in rows] == ["3", "8"]
    assert float(rows[0][1]) < float(rows[1][1])
    newest = httpx.get(f"{service.url}/v1/jobs?page_size=1", trust_env=False).json()["data"][0]
    assert set(newest["evaluation"]) == explained("The evaluation")
    assert (tmp_path / "out" / "pareto.png").read_bytes().startswith(PNG)
    words = "".join(ET.parse(tmp_path / "out" / "pareto.svg").getroot().itertext())  # noqa: S314 - written just now
    assert all(word in words for word in ("3/64", "8/64", "Pareto front", "float model", "artifact, MB"))


def test_the_front_holds_what_nothing_else_beats(importable: None):
    """Of equal sizes the better one, of larger ones only those that are better."""
    import sweep  # noqa: PLC0415 - importable only here

    points = [sweep.Point(name, *at) for name, at in {"a": (3, 9), "b": (1, 9), "c": (2, 5), "d": (2, 6)}.items()]
    assert [point.label for point in sweep.pareto_front(points)] == ["b", "c"]


def test_a_training_script_has_its_result_quantized(shell: Shell, models: Path):
    """A script that saves a model and calls the hook ends with the artifact beside it."""
    script = f"""
import shutil, sys
sys.path.append("{EXAMPLES}")
output_folder = "{models}/trained"
shutil.copytree("{models}/tiny", output_folder)

from pathlib import Path
from training_hook import quantize_if_asked
print(quantize_if_asked(Path(output_folder)))
"""
    asked = {"QUANT_METHOD": "rtn", "PTQ_TARGET_WEIGHTS_BITS": "8", "PTQ_TARGET_GROUP_SIZE": "32"}
    printed = shell(f"python - <<'END'\n{script}\nEND", **asked)
    artifact = models / "trained-rtn-w8-g32"
    assert printed.splitlines()[-1] == str(artifact)
    config = json.loads((artifact / "quantize_config.json").read_text())
    assert (config["bits"], config["group_size"]) == (8, 32)
    assert (artifact / SUMS_FILE).exists()


def test_the_hook_does_nothing_unasked_and_names_what_is_wrong(importable: None, tmp_path: Path):
    """Neither needs a service: nothing is asked of one before the variables are known to be right."""
    from training_hook import quantize_if_asked  # noqa: PLC0415 - importable only here

    assert quantize_if_asked(tmp_path, {"QUANT_METHOD": ""}) is None
    with pytest.raises(ValueError, match="PTQ_TARGET_GROUP_SIZE is 'all'"):
        quantize_if_asked(
            tmp_path, {"QUANT_METHOD": "gptq", "PTQ_TARGET_WEIGHTS_BITS": "4", "PTQ_TARGET_GROUP_SIZE": "all"}
        )


def test_a_refusal_is_told_in_the_service_s_words(shell: Shell, models: Path):
    """The field and what is allowed, instead of a traceback."""
    printed = shell(f"python {EXAMPLES}/client.py {models}/tiny --bits 5 2>&1 && exit 1 || true")
    assert "bits" in printed
    assert "Traceback" not in printed


def test_the_workflow_quantizes_verifies_and_keeps(shell: Shell, models: Path, tmp_path: Path):
    """Its shell steps, run in turn as a runner does, leave the verified files that the last step uploads."""
    workflow = yaml.safe_load((EXAMPLES / "github-action.yml").read_text())
    (job,) = workflow["jobs"].values()
    inputs = workflow[True]["workflow_dispatch"]["inputs"]  # YAML 1.1 reads the key `on` as a truth value
    given = {
        "inputs.model": str(models / "tiny"),
        "inputs.bits": "4",
        "inputs.group_size": inputs["group_size"]["default"],
        "vars.BITMILL_URL": "",
        "secrets.BITMILL_API_KEY": "",
    }
    (tmp_path / "examples").symlink_to(EXAMPLES)
    printed = [
        shell(step["run"], cwd=tmp_path / step.get("working-directory", "."), **environment_of(step, given))
        for step in job["steps"]
        if "run" in step
    ]
    assert len(printed) == 3
    assert "model.safetensors: OK" in printed[-1]
    assert (tmp_path / job["steps"][-1]["with"]["path"] / "model.safetensors").exists()
    assert set(EXPRESSION.findall((EXAMPLES / "github-action.yml").read_text())) == set(given)
    assert set(job["env"]) == {"BITMILL_URL", "BITMILL_API_KEY"}


def environment_of(step: dict[str, Any], given: dict[str, str]) -> dict[str, str]:
    """Returns a step's variables with its expressions filled in."""
    return {name: EXPRESSION.sub(lambda match: given[match[1]], value) for name, value in step.get("env", {}).items()}


def test_every_example_stands_in_the_index():
    """And nothing that is not there."""
    index = (EXAMPLES / "README.md").read_text()
    named = set(re.findall(r"^\| \[([\w.-]+)\]", index, re.MULTILINE))
    assert named == {path.name for path in EXAMPLES.iterdir() if path.is_file()} - {"README.md"}
