# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Every notebook runs from top to bottom in a kernel of its own."""

import pathlib

import nbclient
import nbformat
import pytest

FOLDER = pathlib.Path(__file__).parents[2] / "colab"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
BADGE = "https://colab.research.google.com/assets/colab-badge.svg"
FIRST = "losses"  # runs by default; the others fetch weights or take minutes


@pytest.mark.parametrize(
  "path",
  [
    pytest.param(p, marks=[] if p.stem == FIRST else [pytest.mark.slow])
    for p in NOTEBOOKS
  ],
  ids=lambda p: p.stem,
)
def test_it_runs(path, tmp_path, monkeypatch):
  monkeypatch.setenv("JDISTILL_SMOKE", "1")
  monkeypatch.delenv("XLA_FLAGS", raising=False)
  notebook = nbformat.read(path, as_version=4)
  client = nbclient.NotebookClient(
    notebook,
    timeout=900,
    kernel_name="python3",
    resources={"metadata": {"path": str(tmp_path)}},
  )
  client.execute()
  shown = [out for cell in notebook.cells for out in cell.get("outputs", [])]
  assert any("image/png" in out.get("data", {}) for out in shown)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_it_opens_in_colab_and_installs_what_it_needs(path):
  notebook = nbformat.read(path, as_version=4)
  first, install, *rest = notebook.cells
  assert first.cell_type == "markdown"
  assert BADGE in first.source
  assert f"/colab/{path.name}" in first.source
  assert "pip install" in install.source
  for cell in [install, *rest]:
    assert not cell.get("outputs"), "committed without outputs"
    assert cell.get("execution_count") is None
