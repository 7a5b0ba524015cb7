"""`bitmill demo`: the product's main job on a real model, through the service, with the proof at the end.

Every line that it prints was measured or checked by it a moment before; nothing is taken from the service's own word
about its artifact.
"""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cli.calibration_text import CalibrationSource
from cli.client import ServiceClient
from cli.demo_service import DemoService
from cli.errors import CliError, ExitCode
from cli.job_text import job_seconds
from cli.jobs import Submission, download, post_job
from cli.options import BudgetOptions, CalibrationOptions, QuantizationOptions
from cli.output import bytes_text, duration_text, err, out, print_json
from cli.progress_view import progress_view
from cli.service.checks import check_port, check_writable, free_port, lock_data_dir
from cli.settings import client_settings
from cli.store_access import store_settings
from cli.watch import follow

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from rich.console import Console

    from core.evaluation.fidelity import Fidelity

BITS = 4
GROUP_SIZE = 64
EVAL_SEQ_LEN = 512
EVAL_WINDOWS = 16
PROMPT = "What is the capital of France?"
USUAL_PORT = 8080


@dataclass(slots=True, kw_only=True)
class Steps:
    """Prints one line per finished step and collects the facts for `--json`."""

    console: Console
    quiet: bool
    facts: dict[str, Any]

    def working(self, what: str) -> AbstractContextManager[object]:
        """Shows a spinner while a step runs."""
        return self.console.status(f"[cyan]{what}[/]", spinner="dots")

    def done(self, label: str, text: str, **facts: object) -> None:
        """Prints a finished step."""
        self.facts[label.lower()] = facts
        if not self.quiet:
            out().print(f"[green]✓[/] [bold]{label:<11}[/] {text}")


def run_demo(*, dst: Path, model: Path | None, port: int | None, keep: bool, as_json: bool) -> None:
    """Runs every step; raises CliError at the first that fails, with the service stopped.

    model: None for SmolLM2-135M-Instruct, which is made first.
    """
    started_at = time.monotonic()
    dst = dst.absolute()
    check_writable(dst)
    steps = Steps(console=err(), quiet=as_json, facts={})
    if not as_json:
        out().print(f"[bold]Bitmill demo[/]: a real model to {BITS} bits, through the service\n")
    model = _prepare_model(steps) if model is None else model.absolute()
    _say_model(steps, model)
    data_dir = dst / "service"
    _remove_old(data_dir)
    with steps.working("starting the service"):
        service = DemoService.start(data_dir, _port(port), models=model.parent, keep=keep)
    try:
        artifact = _through_the_service(steps, service, model, dst)
        _prove(steps, model, artifact)
    except BaseException:
        service.stop()
        raise
    if keep:
        _say_kept(steps, service)
    else:
        _stop(steps, service)
    seconds = time.monotonic() - started_at
    if as_json:
        print_json({**steps.facts, "seconds": round(seconds, 1)})
    else:
        out().print(f"\n[bold green]Done[/] in {duration_text(seconds)}. The artifact is in {artifact}", soft_wrap=True)


def _prepare_model(steps: Steps) -> Path:
    from cli.demo_model import prepare_smollm2

    with steps.working("fetching SmolLM2-135M-Instruct (once)"):
        return prepare_smollm2(store_settings(None).cache_dir)


def _say_model(steps: Steps, model: Path) -> None:
    from core.preflight.source import inspect_source

    facts = inspect_source(model)
    size = f"{facts.parameters / 1e6:.0f} M parameters in {facts.blocks} blocks, {bytes_text(facts.total_bytes)}"
    steps.done("Model", f"{model.name}: {size}", name=model.name, parameters=facts.parameters, blocks=facts.blocks)


def _remove_old(data_dir: Path) -> None:
    """Removes the data of an earlier demo; raises CliError if that demo's service still runs."""
    if data_dir.exists():
        os.close(lock_data_dir(data_dir, "this demo"))
        shutil.rmtree(data_dir)


def _port(wanted: int | None) -> int:
    if wanted is not None:
        check_port("127.0.0.1", wanted)
        return wanted
    try:
        check_port("127.0.0.1", USUAL_PORT)
    except CliError:
        return free_port()
    return USUAL_PORT


def _through_the_service(steps: Steps, service: DemoService, model: Path, dst: Path) -> Path:
    """Submits, watches and downloads; returns the artifact's folder."""
    steps.done("Service", f"{service.url}  (API and one worker; SQLite, files; nothing else)", url=service.url)
    with ServiceClient(client_settings(service.url)) as client:
        job = post_job(client, _submission(model))
        steps.done("Submitted", f"{job['id']}  over HTTP: GPTQ, {BITS} bits, groups of {GROUP_SIZE}", job=job["id"])
        with progress_view(steps.console) as view:
            job = follow(client, job["id"], view)
        _require_success(job)
        blocks = job["progress"]["blocks_total"]
        seconds = job_seconds(job)
        steps.done("Quantized", f"{blocks} blocks in {duration_text(seconds)}", blocks=blocks, seconds=seconds)
        artifact = dst / f"{model.name}-GPTQ-w{BITS}-g{GROUP_SIZE}"
        shutil.rmtree(artifact, ignore_errors=True)
        files, verified = download(client, job["id"], artifact)
    size = sum(file.size_bytes for file in files)
    steps.done("Downloaded", f"{len(files)} files, {bytes_text(size)}", files=len(files), size_bytes=size)
    steps.done("Verified", f"SHA256SUMS: {verified} of {verified} files match", files=verified)
    return artifact


def _submission(model: Path) -> Submission:
    return Submission(
        model=str(model),
        revision=None,
        source=CalibrationSource(None),
        quantization=QuantizationOptions(values={"bits": BITS, "group_size": GROUP_SIZE}),
        calibration=CalibrationOptions(),
        budget=BudgetOptions(),
        targets=("transformers", "gptqmodel"),
        formats=(),
        labels=("from=demo",),
        priority=None,
        deadline=None,
        evaluate=False,
        nf4=False,
        idempotency_key=None,
    )


def _require_success(job: dict[str, Any]) -> None:
    if job["state"] != "succeeded":
        error = job["error"] or {}
        raise CliError(
            ExitCode.FAILED,
            f"The job {job['state']}: {error.get('message', 'no reason given')}",
            hint=error.get("hint", ""),
            code=error.get("code", "job_failed"),
        )


def _prove(steps: Steps, model: Path, artifact: Path) -> None:
    """Measures both models on held-out text and lets the downloaded one speak."""
    with steps.working("loading the engine"):
        from cli.local_eval import compare
        from core.calibration.builtin import builtin_text
        from core.calibration.windows import consecutive_windows
        from core.evaluation.generate import generate_sentence
        from core.evaluation.loading import load_model, load_tokenizer

    tokenizer = load_tokenizer(artifact)
    windows = consecutive_windows(builtin_text("evaluation"), tokenizer, EVAL_SEQ_LEN, EVAL_WINDOWS)
    with progress_view(steps.console) as view:
        (fidelity,) = compare(model, [artifact], windows, view)
    _say_fidelity(steps, fidelity)
    with steps.working("generating"):
        answer = generate_sentence(load_model(artifact), tokenizer, PROMPT)
    steps.done("Generated", f'"{PROMPT}"  →  "{answer}"', prompt=PROMPT, answer=answer)


def _say_fidelity(steps: Steps, fidelity: Fidelity) -> None:
    before, after, ratio = fidelity.perplexity_float, fidelity.perplexity_quantized, fidelity.perplexity_ratio
    steps.done(
        "Perplexity",
        f"float [bold]{before:.2f}[/], {BITS}-bit [bold]{after:.2f}[/] (x {ratio:.3f}), on "
        f"{fidelity.tokens:,} tokens that were not used for calibration",
        float=before,
        quantized=after,
        ratio=ratio,
        tokens=fidelity.tokens,
    )
    steps.done(
        "Agreement",
        f"same next token for {fidelity.top1_agreement:.1%}, KL divergence {fidelity.kl_divergence:.4f} nats per token",
        top1_agreement=fidelity.top1_agreement,
        kl_divergence=fidelity.kl_divergence,
    )


def _say_kept(steps: Steps, service: DemoService) -> None:
    steps.done("Kept up", f"{service.url}  stop it with: kill {service.pid}", url=service.url, pid=service.pid)


def _stop(steps: Steps, service: DemoService) -> None:
    with steps.working("stopping the service"):
        left = service.stop()
    if left:
        raise CliError(ExitCode.FAILED, f"{left} processes of the service are left.", code="orphans")
    steps.done("Stopped", "no process is left", processes_left=left)
