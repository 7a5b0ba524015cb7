"""A report is read back as it was written, and says nothing that JSON cannot."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import ArtifactInvalidError
from core.report import REPORT_FILE, LinearReport, QuantizationReport

finite = st.floats(0, 1e30)
words = st.text("abcxyz_. ", max_size=12)

linears = st.builds(
    LinearReport,
    block=st.integers(0, 99),
    name=words,
    bits=st.sampled_from((2, 3, 4, 8)),
    group_size=st.sampled_from((-1, 64)),
    loss=st.none() | finite,
    relative_loss=st.none() | finite,
    tokens=st.integers(0, 10**9),
    damp_percent=st.none() | finite,
    order=st.none() | words,
    seconds=finite,
    warnings=st.lists(words, max_size=3).map(tuple),
)
reports = st.builds(
    QuantizationReport,
    config=st.dictionaries(words, st.integers() | words | st.booleans(), max_size=3),
    linears=st.lists(linears, max_size=4).map(tuple),
    blocks=st.integers(0, 99),
    blocks_resumed=st.integers(0, 99),
    bits_per_weight=finite,
    seconds_by_stage=st.dictionaries(words, finite, max_size=3),
    peak_rss_bytes=st.integers(0, 10**12),
    versions=st.dictionaries(words, words, max_size=3),
    calibration_sha256=st.none() | words,
    calibration_samples=st.integers(0, 100),
    calibration_tokens=st.integers(0, 10**6),
    warnings=st.lists(words, max_size=3).map(tuple),
    provenance=st.dictionaries(words, words, max_size=3),
    devices=st.lists(words, max_size=3).map(tuple),
)


def one_report(**changes: object) -> QuantizationReport:
    linear = LinearReport(
        block=0,
        name="self_attn.q_proj",
        bits=4,
        group_size=64,
        loss=1.5,
        relative_loss=0.25,
        tokens=512,
        damp_percent=0.05,
        order="desc_act_static",
        seconds=0.5,
        warnings=("starved",),
    )
    rounded = dataclasses.replace(linear, name="mlp.up_proj", loss=None, relative_loss=None, order=None)
    report = QuantizationReport(
        config={"bits": 4},
        linears=(linear, rounded, dataclasses.replace(linear, relative_loss=0.75)),
        blocks=1,
        blocks_resumed=0,
        bits_per_weight=4.5,
        seconds_by_stage={"quantizing": 2.0, "packing": 0.5},
        peak_rss_bytes=10**9,
        versions={"torch": "2"},
    )
    return dataclasses.replace(report, **changes)


@given(reports)
def test_any_report_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, report: QuantizationReport):
    """Through plain values and through the file, nothing is lost and no type changes."""
    assert QuantizationReport.from_dict(report.to_dict()) == report
    path = tmp_path_factory.mktemp("report") / REPORT_FILE
    report.write(path)
    assert QuantizationReport.read(path) == report


def test_a_report_of_before_there_were_several_devices_is_read():
    values = one_report().to_dict()
    del values["devices"]
    assert QuantizationReport.from_dict(values).devices == ()


def test_totals_are_derived_from_the_parts():
    """Seconds add up; the mean relative loss is over the linears that have one."""
    report = one_report()
    assert report.seconds == 2.5
    assert report.mean_relative_loss == 0.5
    assert one_report(linears=()).mean_relative_loss is None
    values = report.to_dict()
    assert values["seconds"] == 2.5
    assert values["mean_relative_loss"] == 0.5


def test_the_file_opens_with_the_totals():
    """Whoever reads the file by eye meets the totals before the hundreds of linears."""
    names = list(one_report().to_dict())
    assert names[0] == "report_version"
    assert names[-1] == "linears"


def test_every_field_is_written():
    """A field that is added to the classes is in the file."""
    values = one_report().to_dict()
    assert {field.name for field in dataclasses.fields(QuantizationReport)} <= set(values)
    assert {field.name for field in dataclasses.fields(LinearReport)} == set(values["linears"][0])


def test_a_value_that_json_has_no_word_for_is_an_error(tmp_path: Path):
    """NaN in a report would make a file that other programs cannot read."""
    with pytest.raises(ValueError, match="JSON"):
        one_report(bits_per_weight=float("nan")).write(tmp_path / REPORT_FILE)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", json.dumps({"report_version": 99}), json.dumps({**one_report().to_dict(), "extra": 1})],
)
def test_what_is_no_report_is_refused(tmp_path: Path, content: str):
    """Torn, foreign, of another version, or with unknown fields: one error, naming the file."""
    path = tmp_path / REPORT_FILE
    path.write_text(content)
    with pytest.raises(ArtifactInvalidError) as caught:
        QuantizationReport.read(path)
    assert caught.value.file == REPORT_FILE


def test_an_absent_report_is_refused(tmp_path: Path):
    """The same error as for an unreadable one."""
    with pytest.raises(ArtifactInvalidError):
        QuantizationReport.read(tmp_path / REPORT_FILE)
