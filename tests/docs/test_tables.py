"""Tables of the pages that repeat what the code decides are compared with it."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import torch

from core.configs import BITS, Format, GPTQConfig
from core.formats.gptq import to_gptq_tensors
from core.formats.model_card import ModelCard, model_card_text
from core.preflight.loader_table import TORCH_GROUP_SIZES
from core.preflight.rules import Grid, Target
from core.preflight.targets import loads
from core.report import LinearReport, QuantizationReport
from core.weights import QuantizedWeight
from tests.docs.conftest import ROOT
from tests.docs.pages import blocks

DOCS = ROOT / "docs"
SHAPES = {"model.layers.0.mlp.down_proj": (4096, 4096)}


def rows(page: str, columns: int, section: str = "") -> list[list[str]]:
    """Returns the cells of each line of the page's tables that have this many columns, rules left out; page: in docs.

    section: the heading under which they stand; all of the page where it is empty.
    """
    text = (DOCS / page).read_text()
    if section:
        text = text.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("|") and "---" not in line]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if len(row) == columns]


def numbers(cell: str) -> set[int]:
    return set() if cell == "none" else {int(number) for number in cell.split(",")}


def test_the_table_of_loaders_is_the_one_of_the_code():
    """Every loader with every layout, width, kind of grid and group size."""
    table = {tuple(row[:2]): [numbers(cell) for cell in row[2:]] for row in rows("serving.md", 5)[1:]}
    assert set(table) == {(str(target), str(layout)) for target in Target for layout in Format}
    for (target, layout), (symmetric, asymmetric, sizes) in table.items():
        for sym, widths in ((True, symmetric), (False, asymmetric)):
            for bits in BITS:
                for group_size in TORCH_GROUP_SIZES:
                    grid = Grid(bits=bits, group_size=group_size, sym=sym)
                    expected = bits in widths and group_size in sizes
                    assert loads(Target(target), grid, SHAPES, Format(layout)) == expected, (target, layout, grid)


def joined(text: str) -> str:
    """Returns a text without the spaces and line ends that a formatter decides about."""
    return re.sub(r"\s", "", text)


def test_the_lines_that_load_are_those_of_the_card():
    """Whatever the page shows stands in the card of some artifact."""
    cards = "\n".join(
        model_card_text(
            ModelCard(
                name="artifact",
                base_model="model",
                config=GPTQConfig(sym=sym),
                meta={},
                shapes=SHAPES,
                evidence={},
                layout=layout,
            )
        )
        for layout, sym in ((Format.GPTQ, True), (Format.COMPRESSED_TENSORS, False))
    )
    shown = blocks(DOCS / "serving.md")
    assert len(shown) == 5
    for block in shown:
        assert joined(block.text) in joined(cards), block.text


def test_the_table_of_sizes_follows_its_formula_and_the_formula_packed_bytes():
    """Bits + (16 + bits) / group_size, group indexes left out."""
    header, *lines = rows("choosing.md", 5)
    sizes = [int(re.findall(r"\d+", cell)[0]) for cell in header[1:]]
    for bits, line in zip(BITS, lines, strict=True):
        assert line == [f"{bits} bits", *(f"{bits + (16 + bits) / size:.2f}" for size in sizes)]
    rows_O, inputs_I, size = 32, 4096, 64
    groups = inputs_I // size
    weight = QuantizedWeight(
        codes_OI=torch.zeros(rows_O, inputs_I, dtype=torch.uint8),
        scales_OG=torch.ones(rows_O, groups, dtype=torch.float16),
        zeros_OG=torch.full((rows_O, groups), 4, dtype=torch.uint8),
        g_idx_I=torch.arange(inputs_I, dtype=torch.int32) // size,
        bits=3,
        group_size=size,
        sym=True,
    )
    tensors = to_gptq_tensors("x", weight, None)
    stored = sum(8 * tensors[f"x.{name}"].nbytes for name in ("qweight", "qzeros", "scales"))
    assert stored / (rows_O * inputs_I) == 3 + 19 / size


def explained(section: str) -> set[str]:
    """Returns the names in the first column of a section of docs/report.md."""
    return {name for row in rows("report.md", 2, section) for name in re.findall(r"`(\w+)`", row[0])}


def test_every_field_of_the_report_is_explained():
    """And none that it does not have."""
    derived = {"report_version", "seconds", "mean_relative_loss"}
    assert explained("The run") == {field.name for field in fields(QuantizationReport)} | derived
    assert explained("One linear") == {field.name for field in fields(LinearReport)}


def test_the_figures_of_the_readme_stand_in_the_record():
    """What the README says was measured is what the page that it names has."""
    _, *lines = rows("../README.md", 4, "In numbers")
    assert lines
    for _, measured, record, command in lines:
        (page,) = re.findall(r"\((.+?)\)", record)
        text = (ROOT / page).read_text()
        assert all(figure in text for figure in re.findall(r"[\d.]*\d", measured)), measured
        script = command.strip("`").partition(" --")[0].removeprefix("python ")
        assert script in text, command


def test_every_preset_and_option_of_gptq_that_is_named_exists():
    """docs/accuracy.md speaks of options that the config has."""
    page = Path(DOCS / "accuracy.md").read_text()
    names = {name for row in rows("accuracy.md", 3) for name in re.findall(r"`([a-z_]+)`", row[0])}
    known = {field.name for field in fields(GPTQConfig)} | {"curvature"}
    assert names
    assert names <= known
    assert all(f"`{preset}`" in page for preset in GPTQConfig.presets)
