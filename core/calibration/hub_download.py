"""Fetches one file of a data set of the hub into the cache and writes its documents as calibration text.

The data set stays at the commit that is found or given; what was fetched once is not fetched again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import HfApi
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from core.calibration.rows import write_documents
from core.errors import CalibrationProblem, CalibrationRefusedError

if TYPE_CHECKING:
    from core.calibration.hub import HubDataset


@dataclass(frozen=True, slots=True, kw_only=True)
class Hub:
    """Where data sets come from. endpoint: the hub or a mirror. token: for gated ones. cache_dir: its client's."""

    endpoint: str
    cache_dir: Path
    token: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedDataset:
    """What was fetched. commit: of the data set. file: its path there. documents: how many were written."""

    commit: str
    file: str
    documents: int


def fetch_dataset(dataset: HubDataset, hub: Hub, out: Path) -> FetchedDataset:
    """Writes the data set's documents to `out` as JSON Lines.

    Raises CalibrationRefusedError (DATASET_UNUSABLE) where it is not there, may not be read or holds no text, and the
    errors of huggingface_hub and httpx where the hub does not answer as it should.
    """
    api = HfApi(endpoint=hub.endpoint, token=hub.token or False)
    try:
        info = api.dataset_info(dataset.repo, revision=dataset.revision)
    except GatedRepoError as error:
        raise _refused(f"{dataset.repo} is gated", "Accept its terms and set BITMILL_HUB_TOKEN.") from error
    except RevisionNotFoundError as error:
        raise _refused(f"{dataset.repo} has no revision {dataset.revision}", "Give a commit, branch or tag.") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise _refused(
            f"The hub has no data set {dataset.repo!r}, or it is private", "Check the name, or set BITMILL_HUB_TOKEN."
        ) from error
    commit = str(info.sha)
    file = dataset.choose([sibling.rfilename for sibling in info.siblings or ()])
    path = api.hf_hub_download(
        dataset.repo, file, repo_type="dataset", revision=commit, cache_dir=hub.cache_dir, token=hub.token or False
    )
    documents = write_documents(Path(path), replace(dataset, revision=commit), out)
    return FetchedDataset(commit=commit, file=file, documents=documents)


def _refused(detail: str, hint: str) -> CalibrationRefusedError:
    return CalibrationRefusedError(CalibrationProblem.DATASET_UNUSABLE, f"{detail}.", hint)
