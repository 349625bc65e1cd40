# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""The model card of an exported model: README.md, for people and for the hub.

Paths of this machine are cut to their last part: cards are made to be shared.
"""

import dataclasses
import json
import pathlib
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jdistill import (
  checkpoint,
  config_json,
  heldout,
  methods,
  metrics,
  pretrained,
  refs,
)
from jdistill.config import INIT
from jdistill.models.base import num_params

if TYPE_CHECKING:
  from huggingface_hub import EvalResult, ModelCard

_COLUMNS = {
  "kl": "KL to the teacher",
  "ppl": "perplexity",
  "agreement": "agreement",
  "bits_per_byte": "bits per byte",
  "accuracy": "accuracy",
}
_EXPLAINED = (
  "KL(teacher || student) is in nats per target token at temperature 1, "
  "agreement the share of tokens that both find likeliest, accuracy that of "
  "the text's own tokens that the model finds likeliest."
)
_LICENCES = {
  "apache license 2.0": "apache-2.0",
  "apache license, version 2.0": "apache-2.0",
  "apache software license": "apache-2.0",
  "mit license": "mit",
}
"""The hub's names of licences that are often stated in words."""


@dataclasses.dataclass(frozen=True)
class _Run:
  """What a run directory says of the checkpoint of one step.

  `teachers` and `start` (whose weights the student began with) have `ref` and
  `licence` each; `evals` is the table of `heldout.result_of`.
  """

  step: int
  config: dict[str, Any]
  teachers: dict[str, dict[str, Any]]
  start: dict[str, Any] | None
  layers: list[int] | None
  tokens: int | None
  evals: dict[str, dict[str, dict[str, float]]]

  @property
  def sources(self) -> list[dict[str, Any]]:
    """Every model that the student comes from, the nearest first."""
    found = [] if self.start is None else [self.start]
    return found + [t for t in self.teachers.values() if t not in found]


def make(found: pretrained.Found, *, dtype: str) -> "ModelCard":
  """The card of a model, or of a run's student with what the run says of it.

  Args:
    found: the model.
    dtype: of the weights beside the card.
  Returns: a card with the hub's metadata; figures are those of the exported
    step, and left out where it was not evaluated.
  """
  from huggingface_hub import ModelCard, ModelCardData

  run = _read(found) if found.location.kind == "run" else None
  name = re.sub(r"@\w+$", "", found.location.name) or "model"
  own: dict[str, Any] = {"ref": found.ref, "licence": found.location.licence}
  sources = [own] if run is None else run.sources
  models = [hub for s in sources if (hub := _hub(s["ref"]))]
  data = ModelCardData(
    model_name=name,
    library_name="transformers",
    pipeline_tag="text-generation",
    tags=["jdistill"] if run is None else ["distillation", "jdistill"],
    base_model=models[0] if len(models) == 1 else models or None,
    datasets=None if run is None else _hub_datasets(run) or None,
    eval_results=None if run is None else _results(run) or None,
    **licence([source["licence"] for source in sources]),
  )
  size = num_params(found.architecture.shapes())
  body = [f"# {name}", *_about(own, run, size, dtype), *_figures(run), _USE]
  text = "\n\n".join(body)
  return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}\n")


_USE = """\
## Use

```python
from transformers import pipeline

write = pipeline("text-generation", "path/of/this/directory")
print(write("Once upon a time", max_new_tokens=40)[0]["generated_text"])
```"""


def licence(stated: Sequence[str | None]) -> dict[str, Any]:
  """The hub's fields for a model that comes from models with these licences.

  Args:
    stated: of each source, None where it states none.
  Returns: `license`, and `license_name` for what the hub has no name of;
    nothing where a source states no licence.
  """
  if not stated or not all(stated):
    return {}
  names = list(dict.fromkeys(_licence_name(str(one)) for one in stated))
  if len(names) == 1 and re.fullmatch(r"[a-z0-9.+-]+", names[0]):
    return {"license": names[0]}
  slug = re.sub(r"[^a-z0-9.]+", "-", " and ".join(names)).strip("-")
  return {"license": "other", "license_name": slug}


def _licence_name(stated: str) -> str:
  lower = stated.strip().lower()
  return _LICENCES.get(lower, lower)


def _read(found: pretrained.Found) -> _Run:
  path, step = found.location.path, pretrained.run_step(found.location)
  config = checkpoint.read_object(path / "config.json", "teachers", "evals")
  file = path / "models.json"
  models: dict[str, Any]
  if file.is_file():
    models = checkpoint.read_object(file, "teachers", "start", "layers")
  else:  # a run of an earlier version
    models = {
      "teachers": {
        name: {"ref": t["ref"], "licence": None}
        for name, t in config["teachers"].items()
      },
      "start": None,
      "layers": None,
    }
  rows = [row for row in metrics.read(path) if row["step"] <= step]
  evals = heldout.result_of(rows, list(config["evals"]))["evals"]
  here = {
    name: stages
    for name, stages in evals.items()
    if any(r["step"] == step and f"{name}/ce" in r for r in rows)
  }
  tokens = [row["tokens"] for row in rows if "tokens" in row]
  return _Run(
    step, config, tokens=tokens[-1] if tokens else None, evals=here, **models
  )


def _about(
  own: dict[str, Any], run: _Run | None, size: int, dtype: str
) -> list[str]:
  """What the model is, in a sentence and a table."""
  count = f"{size / 1e6:,.1f} M" if size >= 1e5 else f"{size:,}"
  what = f"{count} parameters, {dtype}"
  if run is None:
    said = own["licence"] or "not stated"
    return [
      f"{shown(own['ref'])} as written by jdistill.",
      _table(["", ""], [["Model", what], ["Licence", said]]),
    ]
  rows = [["Student", what], ["Initial weights", _start(run)]]
  for name, teacher in run.teachers.items():
    said = teacher["licence"] or "not stated"
    rows.append([name.capitalize(), f"{shown(teacher['ref'])}, licence {said}"])
  student = run.config["student"]
  if student.get("type", "").endswith(".Lora"):
    names = ", ".join(student["targets"])
    said = f"LoRA of rank {student['rank']} on {names}, merged into the weights"
    rows.append(["Trained", said])
  spec = run.config["data"]
  tokens = f", {run.tokens:,} tokens" if run.tokens else ""
  length = f" of {spec['seq_len']} tokens" if "seq_len" in spec else ""
  rows += [
    ["Method", _method(run.config["method"])],
    ["Data", _data(spec)],
    ["Steps", f"{run.step:,} of {run.config['steps']:,}{tokens}"],
    ["Batch", f"{spec.get('batch_size')} rows{length}"],
    ["Optimizer", f"`{config_json.call(run.config['optimizer'])}`"],
  ]
  by = " and ".join(shown(t["ref"]) for t in run.teachers.values())
  sentence = f"A student distilled from {by}" if by else "A model trained"
  return [f"{sentence} with jdistill.", _table(["", ""], rows)]


def _start(run: _Run) -> str:
  spec = run.config["student"]
  if spec.get("type", "").endswith(".Fresh"):
    return "drawn at random"
  if run.start is None:
    return f"`{config_json.call(spec)}`"
  layers = run.layers
  kept = f"layers {', '.join(map(str, layers))} of " if layers else ""
  said = run.start["licence"] or "not stated"
  return f"{kept}{shown(run.start['ref'])}, licence {said}"


def _method(tree: dict[str, Any]) -> str:
  """The method as one would write it, with the papers that it names."""
  papers: dict[str, None] = {}
  for kind in re.findall(r"jdistill\.methods\.(\w+)", json.dumps(tree)):
    module = sys.modules[getattr(methods, kind).__module__]
    header = (module.__doc__ or "").partition("\nPaper:")[2]
    header = header.partition("\nFidelity:")[0]
    papers |= dict.fromkeys(re.findall(r"arXiv:[\d.]*\d", header))
  said = f" ({', '.join(papers)})" if papers else ""
  return f"`{config_json.call(tree)}`{said}"


def _figures(run: _Run | None) -> list[str]:
  """Tables of held-out figures: the teacher, the start, the exported step."""
  if run is None or not run.config["evals"]:
    return []
  if not run.evals:
    return [
      "## Held-out figures",
      f"Step {run.step:,} was not evaluated during the run.",
    ]
  stages = {
    "teacher": "teacher",
    "start": "student at the start",
    "end": f"student at step {run.step:,}",
  }
  said = ["## Held-out figures", _EXPLAINED]
  for name, table in run.evals.items():
    keys = [k for k in _COLUMNS if any(k in row for row in table.values())]
    rows = [
      [title, *(_number(table[stage].get(key)) for key in keys)]
      for stage, title in stages.items()
      if stage in table
    ]
    said += [
      f"`{name}`, {_data(run.config['evals'][name])}:",
      _table(["", *(_COLUMNS[key] for key in keys)], rows),
    ]
  return said


def _results(run: _Run) -> "list[EvalResult]":
  from huggingface_hub import EvalResult

  return [
    EvalResult(
      task_type="text-generation",
      dataset_type=name,
      dataset_name=_data(run.config["evals"][name]).replace("`", ""),
      metric_type="perplexity" if key == "ppl" else key,
      metric_name=title,
      metric_value=table["end"][key],
    )
    for name, table in run.evals.items()
    for key, title in _COLUMNS.items()
    if key in table["end"]
  ]


def _data_refs(spec: dict[str, Any]) -> list[str]:
  if "sources" in spec:
    return [source["ref"] for source in spec["sources"]]
  return [spec["ref"]] if "ref" in spec else []


def _data(spec: dict[str, Any]) -> str:
  """The references of some data, "in part" where only some files are read."""
  said = []
  for source in spec.get("sources") or [spec]:
    if "ref" in source:
      part = " in part" if source.get("select") else ""
      said.append(shown(source["ref"], source.get("split") or "") + part)
  return " and ".join(said) or f"`{config_json.call(spec)}`"


def _hub_datasets(run: _Run) -> list[str]:
  return [hub for r in _data_refs(run.config["data"]) if (hub := _hub(r))]


def _hub(ref: str) -> str | None:
  """The name on the Hugging Face hub; None for what is not from there."""
  parsed = refs.parse(ref)
  return parsed.target if parsed.scheme == "hf" else None


def shown(ref: str, more: str = "") -> str:
  """A reference in a code span, without digests and directories of a machine.

  Args:
    ref: of a model or of data.
    more: what follows it, such as a split.
  """
  if ref == INIT:
    return "its own start"
  parsed = refs.parse(ref)
  if parsed.scheme == "stage":
    return f"the student of stage `{parsed.target}`"
  if parsed.scheme in ("hf", "pypi", "tfds", "stdlib"):
    return f"`{ref.partition('#')[0]}{more}`"
  name = pathlib.Path(parsed.target).name
  known = "" if parsed.scheme in ("dir", "gguf", "run") else f"{parsed.scheme}:"
  return f"`{known}{name}{more}`"


def _number(value: float | None) -> str:
  if value is None:
    return ""
  return f"{value:,.0f}" if value >= 1e4 else f"{value:,.4g}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  lines = [head, ["---"] * len(head), *rows]
  return "\n".join(
    "| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines
  )


def _cell(text: str) -> str:
  return " ".join(text.split()).replace("|", "\\|")
