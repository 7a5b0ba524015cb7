"""R22: a slice of the soak in every run of the tests; ten minutes of it with `make soak`."""

from __future__ import annotations

import os
from collections.abc import Mapping

import pytest

from tests.fault.deployment import Deployment
from tests.fault.soak import soak

SEED = int(os.environ.get("SEED", "20"))


def test_r22_a_slice_of_the_soak(deployment: Deployment, undisturbed: Mapping[str, str]):
    """Fourteen jobs and a fault every two seconds: each job ends once, in the right bytes, and nothing is left."""
    run = soak(deployment, SEED, jobs=14, seconds=16, undisturbed=undisturbed)
    assert len(run.happened) >= 5


@pytest.mark.soak
@pytest.mark.timeout(2400)
def test_r22_the_soak(deployment: Deployment, undisturbed: Mapping[str, str]):
    """A hundred jobs on each deployment over five minutes, a fault every two seconds. SEED chooses another hail."""
    run = soak(deployment, SEED, jobs=100, seconds=300, undisturbed=undisturbed)
    print(f"seed {SEED}: {len(run.happened)} faults: {sorted(set(run.happened))}")  # noqa: T201 - what a person reads
