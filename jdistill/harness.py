# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Any model reference in EleutherAI's lm-evaluation-harness.

`pip install 'jdistill[eval]'` brings it. The harness owns tasks, prompts and
metrics; here is only what it asks of a model:

    import lm_eval
    from jdistill import harness

    lm_eval.simple_evaluate(harness.LM("runs/mine"), tasks=["arc_easy"])
"""

import dataclasses
import difflib
import json
import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import tqdm

from jdistill import (
  completions,
  evaluate,
  losses,
  pretrained,
  sampling,
  sharding,
  tokenizers,
  types,
  workdir,
)
from jdistill.config import Dtype

try:
  import lm_eval
  import lm_eval.tasks
  import lm_eval.utils
  from lm_eval.api.model import TemplateLM
except ImportError as error:
  raise types.UserError(
    "lm-evaluation-harness is not installed: pip install 'jdistill[eval]'"
  ) from error

SHORTEST = 32
"""Rows are padded to this or a power of two above, so that few shapes are
compiled."""

MAX_NEW_TOKENS = 256
"""Of tasks that do not say how long an answer may be, as in the harness."""


class LM(TemplateLM):
  """A model that the harness may ask; it lies on all of this process's devices.

  Args:
    ref: a model reference; of a run it may name the checkpoint, `RUN@best`.
    batch_size: rows read or written at once; changes nothing but speed.
    max_length: tokens that the model may see; longer texts lose their
      beginning. Default: the model's own context length.
    dtype: of weights and computation.
    add_bos: whether texts begin with the tokenizer's token for it; default: as
      the tokenizer does.
  Raises: UserError for references that cannot be read, or that are no text
    models.
  """

  tokenizer: Any = None

  def __init__(
    self,
    ref: str,
    *,
    batch_size: int = 8,
    max_length: int | None = None,
    dtype: Dtype = "float32",
    add_bos: bool | None = None,
  ):
    super().__init__()
    for name, value in (("batch_size", batch_size), ("max_length", max_length)):
      if value is not None and value < 1:
        raise types.UserError(f"{name} is {value}; expected at least 1")
    found = pretrained.find(ref, dtype=dtype)
    if not found.location.has_tokenizer:
      raise types.UserError(
        f"{ref} has no tokenizer, and tasks of the harness are texts"
      )
    self.ref, self.batch_size = ref, batch_size
    self.tokenizer = tokenizers.load(found.location)
    tokenizers.check_head(self.tokenizer, found.architecture.vocab_size)
    self.architecture = found.architecture
    own = getattr(found.architecture, "context_length", 2048)
    self.max_length = max_length or own
    if add_bos is None:
      add_bos = tokenizers.adds_bos(self.tokenizer)
    self._bos = add_bos
    self._ends = evaluate.end_ids(self.tokenizer, found.location)
    count = math.gcd(batch_size, jax.local_device_count())
    self._mesh = sharding.make_mesh(
      sharding.MeshShape(data=1, fsdp=count), jax.local_devices()[:count]
    )
    self._params = found.params(
      dtype=dtype,
      shardings=lambda model, shapes: sharding.param_shardings(
        model.axes(), shapes, self._mesh
      ),
    )
    self._score = jax.jit(self._scores)

  # ------------------------------------------------------------- tokenizer

  @property
  def eot_token_id(self) -> int:
    if not self._ends:
      raise types.UserError(f"{self.ref}: its tokenizer has no end of text")
    return self._ends[0]

  @property
  def prefix_token_id(self) -> int:
    """What an empty context is replaced by."""
    begin = self.tokenizer.bos_token_id
    return self.eot_token_id if begin is None else int(begin)

  @property
  def tokenizer_name(self) -> str:
    return self.ref.replace("/", "__")

  def tok_encode(
    self, string: str, add_special_tokens: bool | None = None, **kwargs
  ) -> list[int]:
    del kwargs
    if add_special_tokens is None:
      begin = self.tokenizer.bos_token
      there = bool(begin) and string.startswith(str(begin))
      add_special_tokens = self._bos and not there
    [ids] = tokenizers.encode_documents(
      self.tokenizer, [string], add_bos=add_special_tokens, add_eos=False
    )
    return ids.tolist()

  def apply_chat_template(
    self,
    chat_history: list[dict[str, str]],
    add_generation_prompt: bool = True,
  ) -> str:
    if not self.tokenizer.chat_template:
      raise types.UserError(f"{self.ref} has no chat template")
    return str(
      self.tokenizer.apply_chat_template(
        chat_history,
        tokenize=False,
        add_generation_prompt=add_generation_prompt,
        continue_final_message=not add_generation_prompt,
      )
    )

  # --------------------------------------------------------------- scoring

  def _loglikelihood_tokens(
    self,
    requests: Sequence[tuple[Any, Sequence[int], Sequence[int]]],
    disable_tqdm: bool = False,
    **kwargs: Any,
  ) -> list[tuple[float, bool]]:
    """(nats, whether it is the greedy answer) of each continuation."""
    del kwargs
    pairs = [(context, answer) for _, context, answer in requests]
    found = []
    for values in self._log_likelihoods(pairs, quiet=disable_tqdm):
      found.append(
        (float(values["log_probs"].sum()), bool(values["best"].all()))
      )
    for request, answer in zip(requests, found, strict=True):
      if request[0] is not None:
        self.cache_hook.add_partial("loglikelihood", request[0], answer)
    return found

  def loglikelihood_rolling(
    self, requests: Sequence[Any], disable_tqdm: bool = False
  ) -> list[float]:
    """Nats of whole texts, each of whose tokens is predicted once."""
    windows, owners = [], []
    for number, request in enumerate(requests):
      [text] = request.args
      ids = self.tok_encode(text, add_special_tokens=False)
      cut = lm_eval.utils.get_rolling_token_windows(
        ids, self.prefix_token_id, max_seq_len=self.max_length, context_len=1
      )
      for pair in map(lm_eval.utils.make_disjoint_window, cut):
        windows.append(pair)
        owners.append(number)
    found = np.zeros(len(requests))
    scored = self._log_likelihoods(windows, quiet=disable_tqdm)
    for owner, values in zip(owners, scored, strict=True):
      found[owner] += values["log_probs"].sum()
    return found.tolist()

  def _log_likelihoods(
    self,
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
    *,
    quiet: bool,
  ) -> list[dict[str, np.ndarray]]:
    """`log_probs` (float64 nats) and `best` of each answer's tokens."""
    rows = [_Row.of(c, a, self.max_length) for c, a in pairs]
    found: list[Any] = [None] * len(rows)
    # The longest first: what does not fit fails at once.
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i].tokens))
    with (
      jax.set_mesh(self._mesh),
      tqdm.tqdm(total=len(rows), desc="Reading", disable=quiet) as bar,
    ):
      for places in _batches(order, self.batch_size):
        batch = [rows[place] for place in places]
        view = _view(batch, self.batch_size)
        placed = sharding.place_rows(view, self._mesh)
        values = jax.device_get(self._score(self._params, placed))
        for at, (place, row) in enumerate(zip(places, batch, strict=True)):
          found[place] = {k: v[at][row.answer] for k, v in values.items()}
        bar.update(len(places))
    return [
      {**v, "log_probs": v["log_probs"].astype(np.float64)} for v in found
    ]

  def _scores(
    self, params: types.PyTree, view: types.Tokens
  ) -> dict[str, jax.Array]:
    outputs = self.architecture.for_evaluation().bind(params)(view)

    def of(logits, targets, _):
      z = logits["model"]
      return {
        "log_probs": -losses.cross_entropy(z, targets),
        "best": z.argmax(-1) == targets,
      }

    streams = {"model": outputs.dense}
    return losses.walk_tokens(of, streams, view.targets, frozen=("model",))

  # --------------------------------------------------------------- writing

  def generate_until(
    self, requests: Sequence[Any], disable_tqdm: bool = False
  ) -> list[str]:
    """Answers of which each is cut before the first of its stop strings."""
    found: list[str] = [""] * len(requests)
    groups: dict[_Ask, list[int]] = {}
    for number, request in enumerate(requests):
      groups.setdefault(_Ask.of(request.args[1]), []).append(number)
    bar = tqdm.tqdm(total=len(requests), desc="Writing", disable=disable_tqdm)
    with jax.set_mesh(self._mesh), bar:
      for ask, numbers in groups.items():
        texts = {number: requests[number].args[0] for number in numbers}
        for number, text in self._written(ask, texts):
          found[number] = text
          args = requests[number].args
          self.cache_hook.add_partial("generate_until", args, text)
          bar.update(1)
    return found

  def _written(
    self, ask: "_Ask", texts: Mapping[int, str]
  ) -> Iterable[tuple[int, str]]:
    """Answers to prompts that are asked for the same, by their numbers."""
    room = self.max_length - ask.sampling.max_new_tokens
    if room < 1:
      raise types.UserError(
        f"max_gen_toks is {ask.sampling.max_new_tokens} and the model sees "
        f"{self.max_length} tokens: nothing is left for the prompt"
      )
    ids = {
      number: np.asarray(self.tok_encode(text)[-room:], np.int32)
      for number, text in texts.items()
    }
    # Prompts of one length waste nothing.
    order = sorted(ids, key=lambda number: -len(ids[number]))
    answers = completions.complete(
      self.architecture,
      self._params,
      self.tokenizer,
      [ids[number] for number in order],
      ask.sampling,
      ends=self._ends,
      stop=ask.stop,
      batch_size=self.batch_size,
      row_ids=order,
    )
    for number, answer in zip(order, answers, strict=True):
      yield number, str(answer.text)


@dataclasses.dataclass(frozen=True)
class Options:
  """What models are asked.

  Attributes:
    tasks: names or groups of the harness, or YAML files.
    include_path: a directory of further tasks.
    num_fewshot: examples before each question; None is the task's own.
    limit: questions of each task; None is all.
    batch_size, max_length, dtype: as of `LM`.
    chat: whether prompts go into the chat template.
  """

  tasks: tuple[str, ...]
  include_path: pathlib.Path | None = None
  num_fewshot: int | None = None
  limit: int | None = None
  batch_size: int = 8
  max_length: int | None = None
  chat: bool = False
  dtype: Dtype = "float32"


def judge(
  models: Sequence[str], options: Options, *, to: pathlib.Path | None = None
) -> list[dict[str, Any]]:
  """Asks each model, one after another, the same questions.

  Args:
    models: model references.
    options: see `Options`.
    to: a .json file for all that the harness says of them, or None.
  Returns: a row for each figure: `model`, `task`, `metric`, `value`, `stderr`
    (None where the harness has none) and `questions`.
  Raises: UserError for unknown tasks, before any model is read, and for models
    that cannot be.
  """
  if to is not None:
    if to.is_dir():
      raise types.UserError(f"--to {to}: is a directory; name a file")
    workdir.check_place(to, "--to")
  manager = lm_eval.tasks.TaskManager(
    include_path=None
    if options.include_path is None
    else str(options.include_path)
  )
  unknown = [t for t in options.tasks if not _is_known(t, manager)]
  if unknown or not options.tasks:
    near = difflib.get_close_matches(
      (unknown or [""])[0], manager.all_tasks, n=5
    )
    raise types.UserError(
      f"tasks: the harness knows no {', '.join(unknown) or 'task without name'}"
      + (f"; near it are {', '.join(near)}" if near else "")
      + " (`lm_eval ls tasks` lists them; --include-path names your own)"
    )
  rows, said = [], {}
  for ref in models:
    model = LM(
      ref,
      batch_size=options.batch_size,
      max_length=options.max_length,
      dtype=options.dtype,
    )
    found: Any = lm_eval.simple_evaluate(
      model,
      tasks=list(options.tasks),
      num_fewshot=options.num_fewshot,
      limit=options.limit,
      task_manager=manager,
      apply_chat_template=options.chat,
      bootstrap_iters=1000,
    )
    said[ref] = found
    rows += [{"model": ref} | row for row in _rows(found)]
  if to is not None:
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_text(json.dumps(said, indent=1, default=str, ensure_ascii=False))
  return rows


def _is_known(task: str, manager: Any) -> bool:
  if task.endswith((".yaml", ".yml")):
    return pathlib.Path(task).is_file()
  return bool(manager.match_tasks([task]))


def _rows(found: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
  """Figures of a result, as `judge` returns them."""
  for task, values in found["results"].items():
    count = found.get("n-samples", {}).get(task, {}).get("effective")
    for key, value in values.items():
      name, _, kind = key.partition(",")
      if name.endswith("_stderr") or not isinstance(value, float | int):
        continue
      if not kind:
        continue  # "sample_len" and the like
      error = values.get(f"{name}_stderr,{kind}")
      yield {
        "task": task,
        "metric": name if kind == "none" else key,
        "value": float(value),
        "stderr": float(error) if isinstance(error, float | int) else None,
        "questions": count,
      }


@dataclasses.dataclass(frozen=True)
class _Row:
  """A text as inputs and targets, and which targets are the answer's."""

  tokens: np.ndarray
  targets: np.ndarray
  answer: slice

  @classmethod
  def of(
    cls, context: Sequence[int], answer: Sequence[int], max_length: int
  ) -> "_Row":
    if len(answer) > max_length:
      raise types.UserError(
        f"an answer has {len(answer)} tokens, more than the {max_length} that "
        "the model sees"
      )
    ids = np.asarray([*context, *answer][-(max_length + 1) :], np.int32)
    start = len(ids) - 1 - len(answer)
    return cls(ids[:-1], ids[1:], slice(max(start, 0), len(ids) - 1))


def _view(rows: Sequence[_Row], batch_size: int) -> types.Tokens:
  """[batch_size, T], T a power of two; rows that are missing are padding."""
  longest = max(len(row.tokens) for row in rows)
  length = max(SHORTEST, 1 << (longest - 1).bit_length())

  def padded(arrays: Iterable[np.ndarray]) -> np.ndarray:
    found = np.zeros((batch_size, length), np.int32)
    for place, array in enumerate(arrays):
      found[place, : len(array)] = array
    return found

  segments = padded(np.ones_like(row.tokens) for row in rows)
  at = np.arange(length, dtype=np.int32)
  return types.Tokens(
    tokens=padded(row.tokens for row in rows),
    targets=padded(row.targets for row in rows),
    mask=segments.astype(np.float32),
    positions=np.broadcast_to(at, segments.shape) * segments,
    segment_ids=segments,
  )


def _batches(order: Sequence[int], size: int) -> Iterable[Sequence[int]]:
  for start in range(0, len(order), size):
    yield order[start : start + size]


@dataclasses.dataclass(frozen=True)
class _Ask:
  """What a task wants written, from the harness's keywords."""

  sampling: sampling.Sampling
  stop: tuple[str, ...]

  @classmethod
  def of(cls, given: Mapping[str, Any]) -> "_Ask":
    given = dict(given)
    until = given.pop("until", None) or ()
    stop = (until,) if isinstance(until, str) else tuple(until)
    length = given.pop("max_gen_toks", None)
    length = given.pop("max_new_tokens", length)
    heat = given.pop("temperature", None)
    if not given.pop("do_sample", bool(heat)):
      heat = 0.0
    fields = {f.name for f in dataclasses.fields(sampling.Sampling)}
    own = {k: v for k, v in given.items() if k in fields and v is not None}
    settings = sampling.Sampling(
      max_new_tokens=MAX_NEW_TOKENS if length is None else int(length),
      temperature=1.0 if heat is None else float(heat),
      **own,
    )
    return cls(settings, tuple(text for text in stop if text))
