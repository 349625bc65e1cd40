# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Judging models that exist: held-out metrics, and texts side by side."""

import dataclasses
import math
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jdistill import (
  checkpoint,
  config_json,
  data,
  heldout,
  metrics,
  pretrained,
  refs,
  run,
  run_models,
  sampling,
  sharding,
  step,
  tokenizers,
  types,
)
from jdistill.config import Dtype, Weights
from jdistill.data import corpus
from jdistill.models.base import Architecture

COLUMNS = ("kl", "kl_se", "ppl", "ce", "ce_se", "agreement", "bits_per_byte",
           "accuracy", "ece", "tokens")  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Options:
  """What models are judged on; None takes what the model's run says.

  Attributes:
    teacher: a model reference; default: the first teacher of the run.
    data: a data reference; default: the evaluations of the run.
    split: which documents of `data`.
    format: what a document of `data` is.
    seq_len: tokens of a row, the context that every metric depends on.
    batch_size: rows judged at once; changes nothing but speed and memory.
    max_rows: stops after so many rows of each evaluation.
    dtype: of weights and computation.
    weights: what those of the judged model, not its teacher, are stored in;
      default: `dtype`.
  """

  teacher: str | None = None
  data: str | None = None
  split: str = ""
  format: corpus.Format = "text"
  seq_len: int | None = None
  batch_size: int | None = None
  max_rows: int | None = None
  dtype: Dtype = "float32"
  weights: Weights | None = None


def evaluate(ref: str, options: Options | None = None) -> list[dict[str, Any]]:
  """Judges one model.

  Args:
    ref: a model reference; of a run it may name the checkpoint, `RUN@best`.
    options: see `Options`.
  Returns: a row for each evaluation: `model`, `teacher`, `eval`, `data`,
    `kl` (teacher || model, nats per target token), `ppl`, `ce` (its logarithm),
    `agreement` (of the likeliest tokens), `bits_per_byte`, `accuracy`, `ece`
    (expected calibration error), `tokens` (targets judged) and `seq_len`;
    `kl_se` and `ce_se`, standard errors over rows; `by_class`, the same by what
    the target is, and `reliability`, both as of `jdistill.heldout`;
    `parameters` and `bytes` of the model as it is stored, and `tokens_per_s`
    judged, teacher included, without the first batch. `kl` and `agreement` are
    there with a teacher only.
  Raises: UserError for references that cannot be read, for a model that is no
    run without `data`, and for a teacher of another vocabulary.
  """
  options = options or Options()
  for name in ("seq_len", "batch_size", "max_rows"):
    value = getattr(options, name)
    if value is not None and value < 1:
      raise types.UserError(f"{name} is {value}; expected at least 1")
  stored = options.weights or options.dtype
  found = pretrained.find(ref, dtype=options.dtype, stored=stored)
  evals = _evals(found, options)
  teacher = _teacher(found, options)
  tokenizer = None
  if any(spec.needs_tokenizer for spec in evals.values()):
    tokenizer = tokenizers.load(found.location)
    tokenizers.check_head(tokenizer, found.architecture.vocab_size)
  if teacher is not None:
    _check_vocabulary(found, teacher, tokenizer)
  rows = []
  for name, spec in evals.items():
    judge = _Judge.make(found, teacher, spec, tokenizer, options)
    row: dict[str, Any] = {"model": ref}
    row["teacher"] = None if teacher is None else teacher.ref
    row |= {"eval": name, "data": spec.title}
    sums, speed = judge.sums(spec, tokenizer, options.max_rows)
    values = heldout.summary(sums)
    row |= {key: values[key] for key in COLUMNS if key in values}
    row["tokens"] = int(row["tokens"])
    row["seq_len"] = getattr(spec, "seq_len", None)
    row |= _size(judge.params) | {"tokens_per_s": speed}
    row["reliability"] = heldout.reliability(sums)
    rows.append(row | {"by_class": heldout.by_class(sums)})
  return rows


@dataclasses.dataclass(frozen=True)
class _Judge:
  """A model and its teacher on a mesh."""

  mesh: jax.sharding.Mesh
  eval_step: Any
  params: types.PyTree
  teacher_params: types.PyTree

  @classmethod
  def make(cls, found, teacher, spec, tokenizer, options) -> "_Judge":
    # Weights are divided over as many devices as the rows divide over.
    count = math.gcd(spec.batch_size, jax.local_device_count())
    mesh = sharding.make_mesh(
      sharding.MeshShape(data=1, fsdp=count), jax.local_devices()[:count]
    )

    def placed(architecture, shapes):
      return sharding.param_shardings(architecture.axes(), shapes, mesh)

    params = found.params(
      dtype=options.weights or options.dtype, shardings=placed
    )
    said = None
    if teacher is not None:
      said = teacher.params(dtype=options.dtype, shardings=placed)
    eval_step = step.make_eval_step(
      found.architecture,
      None if teacher is None else teacher.architecture,
      **_about(tokenizer),
    )
    return cls(mesh, jax.jit(eval_step), params, said)

  def sums(
    self, spec: data.Data, tokenizer: Any, max_rows: int | None
  ) -> tuple[dict[str, types.Mean], float | None]:
    """Sums and weights over the held-out data, and targets a second."""
    spec = dataclasses.replace(spec, shuffle=False, epochs=1)
    loader = data.load(
      spec, tokenizer, seed=0, cache_dir=refs.cache_directory() / "tokens"
    )
    left = loader.num_rows if max_rows is None else max_rows
    found, begun = [], 0.0
    with jax.set_mesh(self.mesh):
      for arrays in loader:
        if left <= 0:
          break
        batch = run.to_batch(_first_rows(arrays, left))
        left -= spec.batch_size
        placed = sharding.place_rows(batch, self.mesh)
        sums = self.eval_step(self.params, self.teacher_params, placed)
        found.append(
          jax.device_get({k: m for k, m in sums.items() if not _by_place(k)})
        )
        begun = begun or time.perf_counter()
    loader.close()
    later = float(sum(sums["ce"].weight for sums in found[1:]))
    speed = later / (time.perf_counter() - begun) if later else None
    return metrics.add(found), speed


def _by_place(name: str) -> bool:
  """Whether a sum is of places in rows, which are not kept here."""
  return name.startswith(("by_position/", "tokens/"))


def _about(tokenizer: Any) -> dict[str, Any]:
  """What is known of the tokens."""
  if tokenizer is None:
    return {}
  return {
    "token_bytes": tokenizers.token_bytes(tokenizer),
    "token_classes": tokenizers.token_classes(tokenizer),
  }


def _size(params: types.PyTree) -> dict[str, int]:
  leaves: list[Any] = jax.tree.leaves(params)
  return {
    "parameters": sum(leaf.size for leaf in leaves),
    "bytes": sum(leaf.nbytes for leaf in leaves),
  }


def _first_rows(arrays: Mapping[str, np.ndarray], count: int):
  """The batch with the rows beyond `count` not counting."""
  mask = arrays["mask"]
  counts = (np.arange(len(mask)) < count).astype(mask.dtype)
  counts = counts.reshape(-1, *(1,) * (mask.ndim - 1))
  return {**arrays, "mask": mask * counts}


def _evals(found: pretrained.Found, options: Options) -> dict[str, data.Data]:
  """The held-out data, by name."""
  changes = {
    name: getattr(options, name)
    for name in ("seq_len", "batch_size")
    if getattr(options, name) is not None
  }
  if options.data is not None:
    source = data.Source(
      options.data, format=options.format, split=options.split
    )
    spec = data.TextData((source,), seq_len=512, batch_size=4)
    return {"data": dataclasses.replace(spec, **changes)}
  if options.split:
    raise types.UserError(
      f"split is {options.split!r}, but it belongs to data, which is not given"
    )
  if found.location.kind != "run":
    raise types.UserError(
      f"{found.ref} is no run, so nothing says what text to judge it on; name "
      "it: --data REF, such as --data stdlib:pydoc"
    )
  path = found.location.path / "config.json"
  tree = checkpoint.read_object(path).get("evals", {})
  evals = config_json.decode(tree, where=f"{path}: evals")
  kept = evals.values() if isinstance(evals, dict) else [evals]
  if not all(isinstance(spec, data.Data) for spec in kept):
    raise types.UserError(
      f"{path}: evals: expected data by name, found {str(tree)[:60]!r}"
    )
  if not evals:
    raise types.UserError(
      f"{path}: this run has no evals; name data: --data REF"
    )
  changed = {}
  for name, spec in evals.items():
    known = {f.name for f in dataclasses.fields(spec)}
    own = {k: v for k, v in changes.items() if k in known}
    changed[name] = dataclasses.replace(spec, **own)
  return changed


def _teacher(
  found: pretrained.Found, options: Options
) -> pretrained.Found | None:
  if options.teacher is not None:
    return pretrained.find(options.teacher, dtype=options.dtype)
  if found.location.kind != "run":
    return None
  return run_models.first_teacher(found.location.path, dtype=options.dtype)


def _check_vocabulary(found, teacher, tokenizer) -> None:
  """Refuses a teacher whose ids mean something else."""
  ours, theirs = found.architecture.vocab_size, teacher.architecture.vocab_size
  if tokenizer is None:
    if ours != theirs:
      raise types.UserError(
        f"{found.ref} tells {ours} classes apart and its teacher "
        f"{teacher.ref} {theirs}; KL needs the same ones"
      )
    return
  tokenizers.check_head(tokenizer, theirs)
  if not teacher.location.has_tokenizer:
    return
  difference = tokenizers.vocabulary_difference(
    tokenizer, tokenizers.load(teacher.location)
  )
  if difference:
    raise types.UserError(
      f"{found.ref} and its teacher {teacher.ref} have different vocabularies: "
      f"{difference}; KL and agreement need the same one (name another "
      "--teacher)"
    )


def encode_prompt(
  tokenizer: Any,
  prompt: str | Sequence[Mapping[str, Any]],
  *,
  chat: bool = False,
) -> Any:
  """The ids of a prompt, int32 [n].

  Args:
    tokenizer: from `jdistill.tokenizers.load`.
    prompt: plain text, or what the user says; or the turns of a chat.
    chat: puts text into the chat template, up to where the assistant answers.
  """
  if isinstance(prompt, str) and not chat:
    [ids] = tokenizers.encode_documents(tokenizer, [prompt], add_eos=False)
  elif not tokenizer.chat_template:
    raise types.UserError(
      "the model's tokenizer has no chat template; leave out --chat"
      if isinstance(prompt, str)
      else "the model's tokenizer has no chat template for messages"
    )
  else:
    turns = prompt
    if isinstance(turns, str):
      turns = [{"role": "user", "content": turns}]
    rendered = tokenizers.render_prompt(tokenizer, turns)
    [ids] = tokenizers.encode_documents(
      tokenizer, [rendered], add_bos=False, add_eos=False
    )
  if not len(ids):
    raise types.UserError(
      "the prompt has no tokens, and the tokenizer adds none by itself"
    )
  return ids


def end_ids(
  tokenizer: Any, location: refs.Located | None = None
) -> tuple[int, ...]:
  """The tokens that end a text, the model's own further ones included."""
  ends = set()
  if tokenizer.eos_token_id is not None:
    ends.add(int(tokenizer.eos_token_id))
  if location is not None and location.kind == "huggingface":
    path = location.path / "generation_config.json"
    if path.is_file():
      more = checkpoint.read_json(path).get("eos_token_id")
      ends |= set(more if isinstance(more, list) else [more]) - {None}
  return tuple(sorted(ends))


def continuations(
  models: Mapping[str, tuple[Architecture, types.PyTree]],
  tokenizer: Any,
  prompts: Sequence[str],
  *,
  max_new_tokens: int = 64,
  temperature: float = 0.0,
  seed: int = 0,
) -> list[dict[str, str]]:
  """How several models go on with the same prompts.

  Args:
    models: architecture and parameters by name, such as `teacher`, `start`,
      `end`; the mesh of sharded parameters must be set.
    tokenizer: of all of them.
    prompts: plain texts.
    max_new_tokens: where a text without an end is cut off.
    temperature: 0 takes the likeliest token, which shows a model's habits.
    seed: of the draws at other temperatures.
  Returns: for each prompt its text and each model's continuation, without
    special tokens: `{"prompt": ..., "teacher": ..., ...}`.
  """
  rows = [{"prompt": prompt} for prompt in prompts]
  if not rows:
    return rows
  ids = [encode_prompt(tokenizer, prompt) for prompt in prompts]
  for name, (architecture, params) in models.items():
    written = sampling.generate(
      architecture,
      params,
      ids,
      max_new_tokens=max_new_tokens,
      temperature=temperature,
      key=jax.random.key(seed),
      eos_id=end_ids(tokenizer),
    )
    for row, new in zip(rows, written, strict=True):
      row[name] = str(tokenizer.decode(new.tolist(), skip_special_tokens=True))
  return rows


def write_continuations(
  workdir: pathlib.Path, rows: Sequence[Mapping[str, str]]
) -> pathlib.Path:
  """Writes `samples/continuations.json` of a run, adding to what is there.

  Rows of a prompt that the file has already are merged, so that the start and
  the end of a run may be written at different times. Of several processes the
  first writes.
  """
  path = workdir / "samples" / "continuations.json"
  if jax.process_index() != 0:
    return path
  path.parent.mkdir(exist_ok=True)
  old = checkpoint.read_json(path) if path.is_file() else []
  merged = {row["prompt"]: dict(row) for row in old}
  for row in rows:
    merged[row["prompt"]] = {**merged.get(row["prompt"], {}), **row}
  checkpoint.dump_json(path, list(merged.values()))
  return path
