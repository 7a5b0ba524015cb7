"""`bitmill run` and `bitmill eval` on a tiny model: artifact, refusals, and a stop that loses nothing."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from cli.errors import ExitCode
from tests.cli.conftest import Bitmill
from tests.ops.service import BITMILL, environment
from tests.worker.models import write_tiny_llama

FORMATS = ("--format", "gptq", "--format", "compressed-tensors")
SMALL = ("--group-size", "32", "--samples", "4", "--seq-len", "64")


@pytest.fixture(scope="module")
def model(models: Path) -> Path:
    return models / "tiny"


@pytest.fixture(scope="module")
def artifact(local: Bitmill, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "artifact"
    done = local("run", "--src", str(model), "--dst", str(folder), *SMALL, *FORMATS, "--json")
    assert done.returncode == ExitCode.OK, done.stderr
    summary = json.loads(done.stdout)
    assert summary["linears"] == 28
    assert set(summary["loss_by_kind"]) >= {"self_attn.q_proj", "mlp.down_proj"}
    return folder


def test_run_leaves_the_artifact_and_no_work_folder(artifact: Path):
    """Complete under its name, the second format a folder in it, finished blocks removed."""
    assert (artifact / "SHA256SUMS").is_file()
    assert (artifact / "compressed-tensors" / "model.safetensors").is_file()
    assert not artifact.with_name("artifact.work").exists()


def test_eval_compares_model_and_artifact(local: Bitmill, model: Path, artifact: Path):
    """Both perplexities, how far apart the two are, and what they weigh, on the same windows; several in one table."""
    options = ("--seq-len", "64", "--max-windows", "4", "--json")
    other = artifact / "compressed-tensors"
    done = local("eval", "--model", str(model), "--artifact", str(artifact), "--artifact", str(other), *options)
    assert done.returncode == ExitCode.OK, done.stderr
    values = json.loads(done.stdout)
    first, second = values["artifacts"]
    ratio = first["perplexity_quantized"] / values["model"]["perplexity"]
    assert first["perplexity_ratio"] == pytest.approx(ratio)
    assert 0 < first["bytes"] < values["model"]["bytes"]
    assert 0 < first["kl_divergence"] < 1
    assert values["tokens"] == 4 * 63
    # The same codes in another layout are the same model.
    assert second["kl_divergence"] == pytest.approx(first["kl_divergence"], rel=1e-5)


def test_eval_sets_nf4_beside_an_artifact(local: Bitmill, model: Path, artifact: Path):
    """Bitsandbytes' rounding of the same model on the same windows, with what it would weigh."""
    options = ("--nf4", "--seq-len", "64", "--max-windows", "4")
    done = local("eval", "--model", str(model), "--artifact", str(artifact), *options, "--json")
    assert done.returncode == ExitCode.OK, done.stderr
    values = json.loads(done.stdout)
    assert len(values["artifacts"]) == 1
    assert 0 < values["nf4"]["kl_divergence"] < 1
    assert 0 < values["nf4"]["bytes"] < values["model"]["bytes"]
    shown = local("eval", "--model", str(model), *options)
    assert f"{model.name} in NF4" in shown.stdout


def test_eval_of_a_model_alone_shows_its_perplexity(local: Bitmill, model: Path):
    """As a table, without anything to compare it with."""
    done = local("eval", "--model", str(model), "--seq-len", "64", "--max-windows", "2")
    assert done.returncode == ExitCode.OK, done.stderr
    assert "PERPLEXITY" in done.stdout
    assert model.name in done.stdout


def test_an_existing_destination_is_never_overwritten(local: Bitmill, model: Path, artifact: Path):
    """Refused before any work, naming the option."""
    done = local("run", "--src", str(model), "--dst", str(artifact), *SMALL)
    assert done.returncode == ExitCode.USAGE
    assert "exists already" in done.stderr
    assert "--dst" in done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--bits", "5"), "2, 3, 4 or 8"),
        (("--group-size", "48"), "group_size"),
        (("--method", "rtn", "--no-desc-act"), "desc_act"),
        (("--samples", "0"), "calibration.samples"),
        (("--group-size", "32", "--dynamic", '{"+:lm_head": {"bits": 8}}'), "matches no linear"),
        (("--dynamic", "{"), "not JSON"),
        (("--group-size", "32", "--no-sym", "--target", "vllm"), "vllm"),
    ],
)
def test_what_cannot_work_is_refused_before_the_work(
    local: Bitmill, model: Path, tmp_path: Path, options: tuple[str, ...], words: str
):
    """Exit code 2, the field named, and neither artifact nor work folder made."""
    done = local("run", "--src", str(model), "--dst", str(tmp_path / "out"), *options)
    assert done.returncode == ExitCode.USAGE, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_broken_model_and_a_binary_text_are_named(local: Bitmill, model: Path, tmp_path: Path):
    """The missing file, and the text that is none, are said in a sentence."""
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    (broken / "tokenizer.json").unlink()
    no_tokenizer = local("run", "--src", str(broken), "--dst", str(tmp_path / "out"), *SMALL)
    assert no_tokenizer.returncode == ExitCode.USAGE
    assert "tokenizer" in no_tokenizer.stderr
    text = tmp_path / "binary.txt"
    text.write_bytes(bytes(range(256)) * 10)
    binary = local("run", "--src", str(model), "--dst", str(tmp_path / "out"), "--calib", str(text), *SMALL)
    assert binary.returncode == ExitCode.USAGE
    assert "Traceback" not in binary.stderr


def test_ctrl_c_keeps_the_finished_blocks_and_the_same_command_goes_on(local: Bitmill, cache_dir: Path, tmp_path: Path):
    """Exit code 130 with the remedy; the second run takes the finished blocks over and completes the artifact."""
    model = write_tiny_llama(tmp_path / "long", blocks=60, hidden=128)
    target = tmp_path / "out"
    options = (
        "run",
        "--src",
        str(model),
        "--dst",
        str(target),
        "--group-size",
        "32",
        "--samples",
        "16",
        "--seq-len",
        "256",
    )
    variables = environment(NUMBA_CACHE_DIR=str(cache_dir / "numba"), PYTHONUNBUFFERED="1")
    with subprocess.Popen([*BITMILL, *options], stderr=subprocess.PIPE, text=True, env=variables) as process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if line.startswith("quantizing") and "block 0/" not in line:
                process.send_signal(signal.SIGINT)
                break
        rest = process.stderr.read()
    assert process.returncode == ExitCode.INTERRUPTED, "".join(lines) + rest
    assert "Run the same command again" in rest
    assert not target.exists()
    again = local(*options)
    assert again.returncode == ExitCode.OK, again.stderr
    assert "Going on after" in again.stderr
    assert (target / "SHA256SUMS").is_file()


def test_memory_for_activations_is_a_size(local: Bitmill, model: Path, tmp_path: Path):
    """Units are understood and the bytes are the same under the tightest limit; anything else is refused by name."""
    options = ("run", "--src", str(model), *SMALL, "--json")
    for size in ("1kB", "2GB"):
        done = local(*options, "--dst", str(tmp_path / size), "--activation-memory", size)
        assert done.returncode == ExitCode.OK, done.stderr
        summary = json.loads(done.stdout)
        assert len(summary["seconds_by_block"]) == summary["blocks"]
        assert summary["estimate"]["ram_bytes"] > 10**8
    weights = [(tmp_path / size / "model.safetensors").read_bytes() for size in ("1kB", "2GB")]
    assert weights[0] == weights[1]
    refused = local(*options, "--dst", str(tmp_path / "no"), "--activation-memory", "plenty")
    assert refused.returncode == ExitCode.USAGE
    assert json.loads(refused.stderr)["error"]["field"] == "--activation-memory"
