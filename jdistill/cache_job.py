# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Has a teacher say once what a run will be told of it.

The processes divide the rows of each batch as they do in training, and each
writes parts of its own. Rows that are there already, from an earlier start or
for another config, are passed over, so that whatever was killed goes on.
"""

import collections
import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdistill import (
  __version__,
  cached,
  config_json,
  data,
  digests,
  distributed,
  pretrained,
  refs,
  run,
  run_models,
  sharding,
  signals,
  start,
  tokenizers,
  types,
  workdir,
)
from jdistill import config as config_lib
from jdistill.cached import store
from jdistill.data import mixture
from jdistill.step import BINS

PART_ROWS = 512
"""Rows of a part; so many are asked for again after a kill, at most."""

TEMPERATURES = tuple(round(0.5 * 1.1**n, 3) for n in range(25))
"""From 0.5 to 4.9, each a tenth more than the one before."""

Log = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Texts:
  """Data that are cached.

  `rows` are all of their rows, one source after another.
  """

  name: str
  spec: data.Data
  opened: data.Opened
  rows: mixture.Rows


def cache(
  config: config_lib.Config,
  directory: pathlib.Path,
  format: cached.Format,
  *,
  teacher: str = "teacher",
  part_rows: int = PART_ROWS,
  max_rows: int | None = None,
  beside: pretrained.Beside = None,
  log: Log | None = None,
) -> dict[str, Any]:
  """Writes a cache, or goes on with the one in a directory.

  Args:
    config: the run whose teacher and data are meant, evaluations too.
    directory: of the cache, one that all processes see.
    format: what is kept.
    teacher: which one, by its name in the config.
    part_rows: rows of a part.
    max_rows: of each of the data; None takes all.
    beside: where other stages are that references may name.
    log: takes what people are told.
  Returns: `rows`, `tokens`, `bytes`, `bytes_per_token` and what else the format
    counts per token, of the whole cache.
  Raises: UserError for what cannot be cached, and for a cache of something
    else; Stopped after a signal, what was said saved.
  """
  log = log or distributed.log
  if str(directory).startswith("gs:"):
    raise types.UserError(
      f"{directory}: ArrayRecord files are written to a file system; take a "
      "directory that all processes see, and copy it afterwards"
    )
  job = Job.prepare(config, directory, format, teacher, beside)
  asked: list[int] = []
  with jax.set_mesh(job.mesh), signals.collected(asked):
    params = job.load()
    manifest = job.manifest({"digest": _digest(params)}, params)
    distributed.decide(lambda: begin_cache(directory, manifest))
    for texts in job.texts:
      count = len(texts.rows)
      if max_rows is not None:
        count = min(count, max_rows)
      _say(job, texts, count, params, part_rows, asked, log)
    if not job.is_head_kept():
      job.keep_head(params)
  distributed.decide(lambda: finish_cache(directory, manifest, job.texts))
  return store.Cache(directory).summary()


def calibrate(
  config: config_lib.Config,
  directory: pathlib.Path,
  *,
  teacher: str = "teacher",
  temperatures: Sequence[float] = TEMPERATURES,
  beside: pretrained.Beside = None,
) -> dict[str, Any]:
  """At which temperature a cached teacher is as sure as it is right.

  On the evaluations of a config, or on its data where there are none; its
  listed ids count alone, renormalised, or beside all others as one.

  Args:
    config, directory, teacher, beside: as in `cache`, of a finished one.
    temperatures: those that are tried.
  Returns: `accuracy` of the likeliest id, `ece` by temperature (of 10 bins of
    equal width) and the best `temperature`; `ece_other` and `temperature_other`
    are those beside the others.
  Raises: UserError for a cache whose ids are not the likeliest ones.
  """
  found = store.Cache(directory)
  format = config_json.decode(found.manifest["signal"])
  if not isinstance(format, cached.TopK):
    raise types.UserError(
      f"{directory}: --calibrate is for the likeliest ids, and this cache is "
      f"{config_json.call(found.manifest['signal'])}; take --format top_k:5"
    )
  said = cached.Said(found, format)
  job = Job.prepare(config, directory, format, teacher, beside)
  texts = [t for t in job.texts if t.name != "data"] or job.texts
  logs, rests, right = [], [], []
  for one in texts:
    for index in range(len(one.rows)):
      row = one.rows[index]
      counted = np.asarray(row["mask"]) != 0
      kept = said.row(row)
      logs.append(kept["log_probs"][counted])
      rests.append(kept["log_rest"][counted])
      targets = np.asarray(row["targets"])[counted]
      right.append(kept["ids"][counted, 0] == targets)
  hits = np.concatenate(right)
  figures: dict[str, Any] = {"accuracy": float(hits.mean())}
  alone = np.concatenate(logs)
  beside_others = np.concatenate([alone, np.concatenate(rests)[:, None]], 1)
  for name, logits in (("", alone), ("_other", beside_others)):
    ece = {t: _ece(logits / t, hits) for t in temperatures}
    figures[f"ece{name}"] = ece
    figures[f"temperature{name}"] = min(ece, key=ece.__getitem__)
  return figures


def _ece(logits: np.ndarray, hits: np.ndarray) -> float:
  """Of the likeliest id, the first one, by logits [N, K]."""
  shares = np.exp(logits - logits[:, :1])
  confidence = 1 / shares.sum(-1)
  place = np.minimum((confidence * BINS).astype(int), BINS - 1)
  gaps = np.bincount(place, hits - confidence, minlength=BINS)
  return float(np.abs(gaps).sum() / len(hits))


@dataclasses.dataclass(frozen=True)
class Job:
  """A teacher, the mesh that it lies on, and what it shall read."""

  name: str
  spec: config_lib.Teacher
  found: pretrained.Found
  directory: pathlib.Path
  format: cached.Format
  mesh: jax.sharding.Mesh
  rules: dict[str, str | None]
  texts: list[Texts]
  share: Mapping[str, int]
  tokenizer: str | None
  """Its fingerprint."""

  @classmethod
  def prepare(cls, config, directory, format, name, beside) -> "Job":
    config = _without_caches(config)
    if name not in config.teachers:
      raise types.UserError(
        f"--teacher is {name!r}; teachers has "
        f"{', '.join(config.teachers) or 'none'}"
      )
    if config.rollout is not None:
      raise types.UserError(
        "rollout: the run writes its own texts, of which a teacher can say "
        "nothing before; `jdistill generate` keeps what a model writes, as "
        "data of other runs"
      )
    models = run.find_models(config, beside=beside)
    if name not in models.teachers:
      raise types.UserError(
        f"teachers.{name}: {config.teachers[name].ref!r} is the student "
        "itself, which says something else at every step"
      )
    tokenizer = start.find_tokenizer(config, models, beside)
    mesh = sharding.make_mesh(config.mesh)
    place = refs.cache_directory() / "tokens"
    # What a writer answers in an evaluation is another text each time.
    specs = {"data": config.data} | {
      key: spec
      for key, spec in config.evals.items()
      if key not in config.eval_rollouts
    }
    shards = sharding.num_row_shards(mesh)
    for key, spec in specs.items():
      if spec.batch_size % shards:
        raise types.UserError(
          f"{key}.batch_size is {spec.batch_size}, which does not divide over "
          f"{shards} mesh rows (data x fsdp x expert); take a multiple of "
          f"{shards}, or another mesh"
        )
    texts = [_open(key, spec, tokenizer, place) for key, spec in specs.items()]
    return cls(
      name,
      config.teachers[name],
      models.teachers[name],
      directory,
      format,
      mesh,
      run.rules(config, name),
      texts,
      sharding.row_share(mesh),
      None if tokenizer is None else tokenizers.fingerprint(tokenizer),
    )

  def writes(self) -> bool:
    """Whether this process is the one that keeps its rows.

    Of processes that hold the same rows the first one does. All answer
    together.
    """
    own = self.share["process_index"]
    return distributed.of_all(own).index(own) == jax.process_index()

  def load(self) -> types.PyTree:
    return self.found.params(
      dtype=self.spec.stored,
      shardings=lambda shape, shapes: sharding.param_shardings(
        shape.axes(), shapes, self.mesh, self.rules
      ),
    )

  def manifest(
    self, told: dict[str, Any], params: types.PyTree | None = None
  ) -> dict[str, Any]:
    """`told` is what else tells this teacher from others."""
    shape = self.found.architecture
    head = None
    if isinstance(self.format, cached.Hidden):
      head = cached.of_head(self._head(params, abstract=True))
    return {
      "version": store.VERSION,
      "jdistill": __version__,
      "teacher": run_models.identity(self.spec, self.found) | told,
      "signal": config_json.encode(self.format),
      "tokenizer": self.tokenizer,
      "vocab_size": shape.vocab_size,
      "head": head,
    }

  def is_head_kept(self) -> bool:
    if not isinstance(self.format, cached.Hidden):
      return True
    return distributed.decide((self.directory / cached.HEAD).is_file)

  def keep_head(self, params: types.PyTree) -> None:
    whole = distributed.whole_rows(self._head(params), self.mesh)
    if jax.process_index() == 0:
      cached.save_head(self.directory, whole)

  def _head(self, params: types.PyTree, *, abstract: bool = False) -> Any:
    [texts, *_] = self.texts
    blank = run.to_batch(_blank(texts, texts.spec.batch_size))["student"]

    def head(params):
      view = jax.tree.map(jnp.asarray, blank)
      return self.found.architecture.for_evaluation().bind(params)(view).head

    return jax.eval_shape(head, params) if abstract else jax.jit(head)(params)

  def step(self) -> Callable[..., dict[str, jax.Array]]:
    """`step(params, view, seeds)`: what is kept of each position."""
    model = self.found.architecture.for_evaluation()

    def say(params, view, seeds):
      return self.format.say(model.bind(params)(view), seeds)

    return jax.jit(
      say,
      out_shardings=sharding.rows(self.mesh),
      compiler_options=sharding.compiler_options(self.mesh),
    )


def _without_caches(config: config_lib.Config) -> config_lib.Config:
  teachers = {
    name: dataclasses.replace(teacher, cache=None, rest=None)
    for name, teacher in config.teachers.items()
  }
  return dataclasses.replace(config, teachers=teachers)


class _Rows:
  """The rows of all sources, one after another."""

  def __init__(self, sources: Sequence[mixture.Rows]):
    self._sources = sources
    self._ends = np.cumsum([len(rows) for rows in sources])

  def __len__(self) -> int:
    return int(self._ends[-1])

  def __getitem__(self, index):
    source = int(np.searchsorted(self._ends, index, side="right"))
    first = int(self._ends[source]) - len(self._sources[source])
    return self._sources[source][index - first]


def _open(
  name: str, spec: data.Data, tokenizer: Any, place: pathlib.Path
) -> Texts:
  opened = spec.open(tokenizer, place)
  return Texts(name, spec, opened, _Rows(opened.sources))


def _digest(params: types.PyTree) -> str:
  found = digests.of(params)
  return f"{len(found)}-{sum(found.values()) % (1 << 64):016x}"


def begin_cache(directory: pathlib.Path, manifest: Mapping[str, Any]) -> None:
  """Makes the directory, or checks that the cache in it is this one."""
  if (directory / store.MANIFEST).is_file():
    old = store.read_manifest(directory)
    for key in ("teacher", "signal", "tokenizer", "vocab_size", "head"):
      if old.get(key) != manifest[key]:
        raise types.UserError(
          f"{directory}: holds a cache of another {key}: "
          f"{_shown(old.get(key))}, and this is {_shown(manifest[key])}; "
          "choose another --to"
        )
    store.clear_halves(directory)
    return
  there = directory.iterdir() if directory.is_dir() else ()
  if there := sorted(path.name for path in there):
    raise types.UserError(
      f"{directory}: holds {there[0]} and no cache; choose an empty --to"
    )
  if directory.exists() and not directory.is_dir():
    raise types.UserError(f"--to {directory}: is a file; name a directory")
  workdir.check_place(directory, "--to")
  directory.mkdir(parents=True, exist_ok=True)
  store.write_json(
    directory / store.MANIFEST, {**manifest, "data": {}, "complete": False}
  )


def _shown(value: Any) -> str:
  return config_json.call(value) if isinstance(value, dict) else str(value)


def finish_cache(
  directory: pathlib.Path, manifest: Mapping[str, Any], texts: list[Texts]
) -> None:
  old = store.read_manifest(directory)["data"]
  new = {t.opened.facts.identity: [t.name, len(t.rows)] for t in texts}
  store.write_json(
    directory / store.MANIFEST,
    {**manifest, "data": old | new, "complete": True},
  )


def _say(
  job: Job,
  texts: Texts,
  rows: int,
  params: types.PyTree,
  part_rows: int,
  asked: list[int],
  log: Log,
) -> None:
  """Caches the rows of one data config that are not there yet."""
  missing, number = distributed.decide(lambda: missing_rows(job, texts, rows))
  log(f"{texts.name}: {rows} rows, {len(missing)} to be cached")
  count = jax.process_count()
  numbers = range(number + jax.process_index(), 10**8, count)
  writes = job.writes()
  writer = store.Writer(job.directory, numbers, part_rows)
  step, pending = job.step(), collections.deque()
  try:
    for at, (batch, own) in enumerate(_batches(job, texts, missing)):
      placed = sharding.place_rows(batch, job.mesh)
      said = step(params, placed["student"], placed.data["seed"])
      pending.append((said, own))
      if len(pending) > 1 and writes:
        _keep(job, writer, *pending.popleft())
      if _told_to_stop(asked, at):
        raise signals.Stopped(asked[0] if asked else 143, at, job.directory)
  finally:
    # What was said before a signal or a fault is kept.
    for some in pending if writes else ():
      _keep(job, writer, *some)
    writer.flush()


def _told_to_stop(asked: list[int], at: int) -> bool:
  """Whether a signal has asked to stop, at the same batch on all processes,
  none of which waits for the others before there is one."""
  if jax.process_count() == 1:
    return bool(asked)
  from jax.experimental import multihost_utils

  return multihost_utils.reached_preemption_sync_point(at)


def missing_rows(job: Job, texts: Texts, rows: int) -> tuple[list[int], int]:
  """Those of the first rows that are not cached, each content once, and the
  next part's number."""
  parts = store.parts(job.directory)
  known = {key for part in parts for key in part.keys}
  found = []
  for index in range(rows):
    key = store.row_key(texts.rows[index])
    if key not in known:
      known.add(key)
      found.append(index)
  last = max((int(part.path.stem) for part in parts), default=-1)
  return found, last + 1


def _batches(
  job: Job, texts: Texts, missing: Sequence[int]
) -> Iterator[tuple[types.Batch, list[Mapping[str, Any]]]]:
  """Batches of this process's rows, and those rows that are real."""
  import tqdm

  size = texts.spec.batch_size
  share, index = job.share["process_count"], job.share["process_index"]
  starts = range(0, len(missing), size)
  bar = tqdm.tqdm(
    starts, disable=jax.process_index() != 0 or None, unit="batch"
  )
  blank = _blank(texts, 1)
  for first in bar:
    own = missing[first : first + size][index::share]
    rows = [texts.rows[i] for i in own]
    seeds = [int.from_bytes(store.row_key(r)[:4], "little") for r in rows]
    arrays = {
      name: np.concatenate(
        [np.stack([r[name] for r in rows]) if rows else value[:0],
         *[value] * (size // share - len(rows))]
      )
      for name, value in blank.items()
    }  # fmt: skip
    seeds += [0] * (size // share - len(rows))
    batch = run.to_batch({**arrays, "seed": np.asarray(seeds, np.uint32)})
    yield batch, rows


def _blank(texts: Texts, count: int) -> dict[str, np.ndarray]:
  """So many rows of nothing."""
  example = {**texts.opened.facts.example, "example_id": np.int32(0)}
  return {k: np.stack([np.asarray(v)] * count) for k, v in example.items()}


def _keep(
  job: Job,
  writer: store.Writer,
  said: Mapping[str, jax.Array],
  rows: Sequence[Mapping[str, Any]],
) -> None:
  """Writes the records of a batch."""
  own = distributed.own_rows(dict(said))
  for at, row in enumerate(rows):
    counted = np.asarray(row["mask"]) != 0
    kept = {name: values[at][counted] for name, values in own.items()}
    writer.add(
      store.row_key(row),
      job.format.encode(kept, job.found.architecture.vocab_size),
      tokens=int(counted.sum()),
      width=job.format.width(kept),
      figures=job.format.figures(kept),
    )
