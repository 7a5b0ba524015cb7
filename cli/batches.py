"""What `bitmill batches` does: many jobs by one request, and the table that compares them while they run."""

from __future__ import annotations

import json
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.batch_text import batch_table, list_table
from cli.batch_view import batch_view
from cli.calibration_text import CalibrationSource
from cli.client import ServiceClient
from cli.compare import print_batch
from cli.errors import CliError, ExitCode
from cli.jobs import labels_of, model_field
from cli.output import err, out, print_json
from cli.settings import client_settings
from cli.watch import TERMINAL, changes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cli.options import CalibrationOptions
    from cli.sweep import SweepBudgets, SweepOptions

BATCHES_PATH = "/v1/batches"
STDIN = "-"
PAGE_SIZE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """What `batches submit` was asked for in options. models: folders, uploads and hub ids, these with `@revision`."""

    models: tuple[str, ...]
    source: CalibrationSource
    options: SweepOptions
    calibration: CalibrationOptions
    budgets: SweepBudgets
    targets: tuple[str, ...]
    formats: tuple[str, ...]
    labels: tuple[str, ...]
    evaluate: bool
    nf4: bool
    priority: int | None
    deadline: int | None

    @property
    def given(self) -> bool:
        """Whether anything was."""
        bundles = (self.options, self.calibration, self.budgets)
        others = (self.models, self.source.name, self.targets, self.formats, self.labels, self.evaluate, not self.nf4)
        numbers = (self.priority, self.deadline)
        return any((*(one.values for one in bundles), *others)) or any(one is not None for one in numbers)

    def request(self, client: ServiceClient) -> dict[str, Any]:
        """Returns the request; uploads the calibration text where there is one. Raises InvalidConfigError, CliError."""
        shared = {
            "targets": list(self.targets),
            "formats": list(self.formats),
            "evaluate": self.evaluate or None,
            "evaluate_nf4": None if self.nf4 else False,
            "priority": self.priority,
            "deadline_s": self.deadline,
        }
        shared = {name: value for name, value in shared.items() if value not in (None, [])}
        calibration = self.calibration.given()
        self.source.check()
        labels = labels_of(self.labels)
        budgets = self.budgets.budgets()
        # What is refused is refused before a text is uploaded for it.
        self.options.configs(shared, calibration, budgets)
        if (name := self.source.set_for(client)) is not None:
            calibration["set"] = name
        return {
            "models": [_model(model) for model in self.models],
            "configs": self.options.configs(shared, calibration, budgets),
            "labels": labels,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """The request in a file, `-` for standard input, or a sweep. name: None for what the file says, if anything."""

    file: str | None
    sweep: Sweep
    name: str | None
    idempotency_key: str | None

    def require_one(self) -> None:
        """Raises CliError where neither is given, or both are."""
        if self.file is not None and self.sweep.given:
            raise CliError(
                ExitCode.USAGE,
                "A file and options that say what to run cannot be given together.",
                hint="Write everything into the file; --name, --wait and --idempotency-key go with both.",
                field="FILE",
            )
        if self.file is None and not self.sweep.models:
            raise CliError(
                ExitCode.USAGE, "No model is named.", hint="Give --model, once for each, or a FILE.", field="--model"
            )

    def post(self, client: ServiceClient) -> dict[str, Any]:
        """Submits, and returns the batch."""
        request = self.sweep.request(client) if self.file is None else read_request(self.file)
        named = request if self.name is None else {**request, "name": self.name}
        # A key per command: a request that is repeated by the network makes no second batch.
        return client.post(BATCHES_PATH, named, Idempotency_Key=self.idempotency_key or str(uuid.uuid4()))


def submit_batch(submission: Submission, *, url: str | None, api_key: str | None, wait: bool, as_json: bool) -> None:
    """Submits, and with `wait` follows the jobs to their ends and exits with the code for them."""
    submission.require_one()
    with ServiceClient(client_settings(url, api_key)) as client:
        batch = submission.post(client)
        if wait:
            if not as_json:
                err().print(f"Submitted {batch['id']}, {len(batch['table'])} jobs.")
            _finish(_follow(client, batch["id"]), as_json=as_json)
        elif as_json:
            print_json(batch)
        else:
            out().print(batch["id"])
            err().print(f"Follow it with: bitmill batches watch {batch['id']}", style="dim")


def read_request(file: str) -> dict[str, Any]:
    """Returns the request in a JSON file, or on standard input; raises CliError where there is none."""
    hint = "Give a JSON file with `models` and `configs`, as POST /v1/batches takes it, or - for standard input."
    try:
        text = sys.stdin.read() if file == STDIN else Path(file).read_text("utf-8")
        request = json.loads(text)
    except (OSError, ValueError) as error:
        raise CliError(ExitCode.USAGE, f"{file} cannot be read: {error}.", hint=hint, field="FILE") from error
    if not isinstance(request, dict):
        raise CliError(ExitCode.USAGE, f"{file} holds no JSON object.", hint=hint, field="FILE")
    return request


def list_batches(limit: int, *, url: str | None, api_key: str | None, as_json: bool) -> None:
    """Prints the newest batches."""
    batches: list[dict[str, Any]] = []
    token: str | None = None
    with ServiceClient(client_settings(url, api_key)) as client:
        while len(batches) < limit:
            size = min(limit - len(batches), PAGE_SIZE)
            page = client.get(BATCHES_PATH, page_size=size, page_token=token)
            batches.extend(page["data"])
            token = page["next_page_token"]
            if token is None:
                break
    if as_json:
        print_json({"batches": batches})
    elif batches:
        out().print(list_table(batches))
    else:
        out().print("There is no batch.")


def show_batch(batch_id: str, *, url: str | None, api_key: str | None, as_json: bool) -> None:
    """Prints a batch's jobs."""
    with ServiceClient(client_settings(url, api_key)) as client:
        batch = client.get(f"{BATCHES_PATH}/{batch_id}")
    if as_json:
        print_json(batch)
        return
    out().print(batch_table(batch) if batch["table"] else "All jobs of this batch were deleted.")
    err().print(f"How good they are: bitmill compare --batch {batch_id}", style="dim")


def watch_batch(batch_id: str, *, url: str | None, api_key: str | None, as_json: bool) -> None:
    """Follows a batch's jobs to their ends and exits with the code for them."""
    with ServiceClient(client_settings(url, api_key)) as client:
        _finish(_follow(client, batch_id), as_json=as_json)


def _model(model: str) -> dict[str, str]:
    name, _, revision = model.partition("@")
    found = model_field(model, None)
    return found if found["source"] == "path" else model_field(name, revision or None)


def _follow(client: ServiceClient, batch_id: str) -> dict[str, Any]:
    """Shows the batch until all of its jobs are over; returns it."""
    with batch_view(err()) as view:
        for batch in changes(client, f"{BATCHES_PATH}/{batch_id}", lambda error: view.complain(error.message)):
            view.show(batch)
            if all(row["state"] in TERMINAL for row in batch["table"]):
                return batch
    raise AssertionError("a watch ends with its batch")


def _finish(batch: Mapping[str, Any], *, as_json: bool) -> None:
    """Prints the jobs side by side and exits with the code of the worst."""
    if as_json:
        print_json(batch)
    else:
        out().print(batch_table(batch))
        out().print()
        print_batch(batch)
    codes = {TERMINAL[row["state"]] for row in batch["table"]}
    for code in (ExitCode.FAILED, ExitCode.CANCELLED):
        if code in codes:
            sys.exit(int(code))
