# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""A run directory as a report reads it."""

import dataclasses
import math
import pathlib
import re
from typing import Any

import numpy as np

from jdistill import (
  checkpoint,
  config_json,
  heldout,
  metrics,
  pretrained,
  run_models,
  types,
  workdir,
)
from jdistill.models.base import num_params
from jdistill.report import page
from jdistill.surgery import cut

_NO_TERMS = (
  "step",
  "loss",
  "grad_norm",
  "bad_steps",
  "lr",
  "seconds",
  "cpu_seconds",
  "tokens",
  "tokens_per_s",
  "data_wait",
)


@dataclasses.dataclass
class RunRecord:
  """What a run directory says.

  `config` is its JSON, `evals` the table of `result.json` and `samples` what
  was written of each evaluation, oldest first. `teacher` is None where its
  reference cannot be found any more, `size` (the student's parameters) where
  it was a module of the user's own. `layout` is what `placement.of_run` said.
  """

  path: pathlib.Path
  name: str
  config: dict[str, Any]
  rows: list[dict[str, Any]]
  evals: dict[str, dict[str, dict[str, float]]]
  samples: dict[str, list[dict[str, Any]]]
  continuations: list[dict[str, str]]
  size: int | None
  teacher: pretrained.Found | None
  layout: dict[str, Any] | None = None

  @property
  def step(self) -> int:
    """The last step that the run has told anything of."""
    return max((row["step"] for row in self.rows), default=0)

  @property
  def terms(self) -> list[str]:
    """Parts of the loss that are not the loss itself."""
    apart = {*self.config["evals"], *self.config.get("audits", ()), "rollout"}
    names = [
      key
      for key in dict.fromkeys(k for row in self.rows for k in row)
      if key not in _NO_TERMS
      and key.partition("/")[0] not in apart
      and not key.endswith("_seconds")  # of the phases of a step
    ]
    _, loss = self.series("loss")
    return [name for name in names if not self._is_loss(name, loss)][:6]

  def _is_loss(self, name: str, loss: list[float]) -> bool:
    _, values = self.series(name)
    return len(values) == len(loss) and np.allclose(values, loss, rtol=1e-3)

  @property
  def speed(self) -> float | None:
    """Tokens per second; the median, as some steps compile."""
    _, values = self.series("tokens_per_s")
    return float(np.median(values)) if values else None

  @property
  def share(self) -> float | None:
    """The student's parameters as a part of the teacher's."""
    if self.teacher is None or self.size is None:
      return None
    return self.size / num_params(self.teacher.architecture.shapes())

  @property
  def teacher_name(self) -> str:
    teachers = list(self.config["teachers"].values())
    if not teachers:
      return "no teacher"
    if self.teacher is not None and self.teacher.location.name:
      return self.teacher.location.name
    return re.sub(r"^\w+:|#.*$", "", _model(teachers[0]))

  @property
  def student_name(self) -> str:
    if self.size is None:
      return "a module of one's own"
    large = self.size >= 1e5
    unit = f"{self.size / 1e6:,.1f} M" if large else f"{self.size:,}"
    return f"a student of {unit} parameters"

  def series(self, key: str) -> tuple[list[int], list[float]]:
    """Steps and values of one metric; without those that are no numbers."""
    pairs = [(r["step"], r[key]) for r in self.rows if r.get(key) is not None]
    return [s for s, _ in pairs], [float(v) for _, v in pairs]

  def data_of(self, name: str) -> str:
    """The text or examples of an evaluation, in words."""
    return _data(self.config["evals"].get(name, {}))

  def facts(self) -> dict[str, str]:
    """What was trained, from what and how, as HTML by name."""
    config = self.config
    optimizer = config["optimizer"]
    found = {}
    facts = f", {page.text(self._teacher_facts())}"  # of the first one
    for name, teacher in config["teachers"].items():
      ref = f"<code>{page.text(_model(teacher).split('#')[0])}</code>"
      found[name.capitalize()], facts = f"{ref}{facts}", ""
    found["Student"] = page.text(self._student_facts())
    found["Method"] = (
      f"<code>{page.text(config_json.call(config['method']))}</code>"
    )
    found["Data"] = page.text(_data(config["data"]))
    found["Optimizer"] = (
      f"<code>{page.text(config_json.call(optimizer))}</code>"
    )
    tokens = [row["tokens"] for row in self.rows if "tokens" in row]
    seen = f", {tokens[-1]:,} tokens" if tokens else ""
    rows = config["data"].get("batch_size")
    length = config["data"].get("seq_len")
    batch = f"{rows} rows" + (f" of {length} tokens" if length else "")
    found["Budget"] = f"{self.step:,} steps{seen}, batches of {batch}"
    if (self.path / "command.txt").is_file():
      command = (self.path / "command.txt").read_text().strip()
      found["Command"] = f"<code>{page.text(command)}</code>"
    found["Directory"] = f"<code>{page.text(self.path)}</code>"
    return found

  def _teacher_facts(self) -> str:
    if self.teacher is None:
      return "not to be found here any more"
    architecture = self.teacher.architecture
    size = num_params(architecture.shapes())
    layers = getattr(architecture, "num_layers", None)
    parts = [f"{size / 1e6:,.1f} M parameters"]
    parts += [f"{layers} layers"] if layers else []
    licence = self.teacher.location.licence
    return ", ".join([*parts, f"licence {licence or 'not stated'}"])

  def _student_facts(self) -> str:
    spec = self.config["student"]
    kind = spec.get("type", "").rpartition(".")[2]
    parts = ["a module of one's own"]
    if self.size is not None:
      parts = [f"{self.size / 1e6:,.1f} M parameters"]
    if kind == "Lora":
      parts.append(f"LoRA of rank {spec['rank']}")
      spec = spec["base"]
      kind = spec["type"].rpartition(".")[2]
    if kind == "Cut":
      layers = spec["layers"]
      whole = getattr(
        getattr(self.teacher, "architecture", None), "num_layers", None
      )
      if isinstance(layers, int) and whole and not spec.get("ref"):
        layers = cut.evenly_spaced(whole, layers)
      if isinstance(layers, int):
        parts.append(f"keeps {layers} layers")
      else:
        listed = ", ".join(map(str, layers))
        of = f" of {whole}" if whole and not spec.get("ref") else ""
        parts.append(f"keeps {len(layers)}{of} layers: {listed}")
    elif kind == "Pretrained":
      parts.append(f"starts from {spec['ref'].split('#')[0]}")
    elif kind == "Fresh":
      parts.append("drawn at random")
    return ", ".join(parts)


def read_run(path: pathlib.Path) -> RunRecord:
  """Reads a run directory, finished or not; of several stages the last.

  Raises: UserError if it is none.
  """
  path = path.absolute()
  if several := workdir.stages(path):
    path /= several[-1]
  if not (path / "config.json").is_file():
    raise types.UserError(f"{path} is no run directory: it has no config.json")
  config = checkpoint.read_object(
    path / "config.json", "evals", "teachers", "data", "optimizer", "student"
  )
  rows = metrics.read(path)
  evals = heldout.result_of(rows, list(config["evals"]))["evals"]
  evals = {name: stages for name, stages in evals.items() if stages.get("end")}
  written = path / "samples" / "continuations.json"
  layout = path / "shardings.json"
  return RunRecord(
    path=path,
    name=f"{path.parent.name}/{path.name}"
    if workdir.stages(path.parent)
    else path.name,
    config=config,
    rows=rows,
    evals=with_teacher_bits(evals),
    samples=_samples(path, list(config["evals"])),
    continuations=checkpoint.read_json(written) if written.is_file() else [],
    size=_student_size(path),
    teacher=_find_teacher(path),
    layout=checkpoint.read_json(layout) if layout.is_file() else None,
  )


def with_teacher_bits(
  evals: dict[str, dict[str, dict[str, float]]],
) -> dict[str, dict[str, dict[str, float]]]:
  """The same table with the teacher's bits per byte, where they follow.

  They are to the student's as the logarithms of their perplexities, both being
  of the same text.
  """
  found = {}
  for name, stages in evals.items():
    teacher, end = stages.get("teacher"), stages.get("end", {})
    if teacher and "bits_per_byte" in end and end.get("ppl", 1.0) > 1:
      ratio = math.log(teacher["ppl"]) / math.log(end["ppl"])
      bits = {"bits_per_byte": end["bits_per_byte"] * ratio}
      stages = {**stages, "teacher": bits | teacher}
    found[name] = stages
  return found


def _samples(
  path: pathlib.Path, evals: list[str]
) -> dict[str, list[dict[str, Any]]]:
  """The first and the last sample of each evaluation."""
  found = {}
  for name in evals:
    pattern = re.compile(re.escape(name) + r"-\d+\.json")
    files = sorted(
      file
      for file in (path / "samples").glob("*.json")
      if pattern.fullmatch(file.name)
    )
    if files:
      ends = dict.fromkeys([files[0], files[-1]])
      found[name] = [checkpoint.read_json(file) for file in ends]
  return found


def _student_size(path: pathlib.Path) -> int | None:
  tree = checkpoint.read_json(path / "student.json")
  if config_json.is_own(tree):
    return None
  return num_params(pretrained.run_architecture(path).shapes())


def _find_teacher(path: pathlib.Path) -> pretrained.Found | None:
  try:
    return run_models.first_teacher(path)
  except types.UserError:  # a page can do without
    return None


def _model(teacher: dict[str, Any]) -> str:
  """A teacher's reference, else what draws its weights."""
  return teacher["ref"] or config_json.call(teacher["architecture"])


def _data(spec: dict[str, Any]) -> str:
  """The references of some data, or the bed that writes them."""
  if "bed" in spec:
    number, part = spec["num_documents"], spec["part"]
    return f"{number:,} {part} documents of {config_json.call(spec['bed'])}"
  sources = spec.get("sources")
  if not sources:
    return str(spec.get("ref") or spec.get("type", "").rpartition(".")[2])
  said = []
  for source in sources:
    chosen = f" [{' '.join(source['select'])}]" if source.get("select") else ""
    weight = f" x {source['weight']:g}" if len(sources) > 1 else ""
    said.append(
      f"{source['ref'].split('#')[0]}{source['split']}{chosen}{weight}"
    )
  return " + ".join(said)
