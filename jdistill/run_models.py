# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""The models of a run: what its config's references name."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdistill import (
  cached,
  checkpoint,
  config_json,
  data,
  pretrained,
  refs,
  sharding,
  tokenizers,
  types,
)
from jdistill import config as config_lib
from jdistill.config import INIT, LIVING
from jdistill.models import host
from jdistill.models import low_rank as low_rank_lib
from jdistill.models.base import Architecture
from jdistill.surgery import cut
from jdistill.surgery.retokenise import retokenise


@dataclasses.dataclass(frozen=True)
class Tokens:
  """The tokens of a student that read others before."""

  new: refs.Located
  old: refs.Located
  embed: str  # as in `config.Retokenised`
  count: int

  def put_into(self, params: types.PyTree) -> types.PyTree:
    """The parameters with the new tokens."""
    new, old = (tokenizers.load(one) for one in (self.new, self.old))
    if self.embed == "mean":
      return retokenise(params, *tokenizers.parts(new, old))
    cache = refs.cache_directory() / "tokens"
    ids = tokenizers.nearest(new, old, self.count, cache)[:, None]
    weights = (ids >= 0).astype(np.float32)
    return retokenise(params, np.maximum(ids, 0), weights)


@dataclasses.dataclass(frozen=True)
class Models:
  """What a config's references name; no weights are read yet."""

  teachers: Mapping[str, pretrained.Found]
  student: Architecture
  start: pretrained.Found | None  # whose weights the student starts from
  layers: tuple[int, ...] | None  # of `start` that it keeps
  tokens: "Tokens | None" = None  # new ones for the student
  living: Mapping[str, str] = dataclasses.field(default_factory=dict)
  """Teachers that are the student itself: "student" or "ema" by their name."""
  said: Mapping[str, cached.Said] = dataclasses.field(default_factory=dict)
  """Teachers that have spoken before, by their name."""

  def speakers(self) -> dict[str, Architecture]:
    """All teachers, the living ones too."""
    loaded = {name: found.architecture for name, found in self.teachers.items()}
    return loaded | dict.fromkeys(self.living, self.student)


@dataclasses.dataclass(frozen=True)
class Initial(pretrained.Found):
  """The student of a run as it is before its first update, drawn anew.

  `models` are those of the run, its student without adapters: they start at
  nothing. `seed` is the run's.
  """

  models: Models
  seed: int

  def _drawn(
    self,
    architecture: Architecture,
    dtype: str,
    places: Any,
    shardings: pretrained.Shardings | None,
  ) -> types.PyTree:
    del architecture  # it differs from the student's in no weight
    start = self.models.start
    given = None if start is None else start.params(shardings=shardings)

    def draw(given):
      key = jax.random.key(self.seed)
      params = initial(self.models, key, host.fetched(given))
      like = pretrained.cast(params, dtype)
      return jax.tree.map(lambda x, s: x.astype(s.dtype), params, like)

    return jax.jit(draw, out_shardings=places)(given)


@dataclasses.dataclass(frozen=True)
class Spoken(pretrained.Found):
  """A teacher that has said of the data what it says: its head, if needed."""

  cache: cached.Cache

  def params(
    self, *, dtype: str = "float32", shardings: Any = None
  ) -> types.PyTree:
    shape = pretrained.cast(self.architecture.shapes(), dtype)
    places = None if shardings is None else shardings(self.architecture, shape)
    return cached.load_head(self.cache.directory, shape, places)


def initial(models: Models, key: jax.Array, start: types.PyTree | None):
  """The student's parameters before the first update.

  Args:
    models: of the run.
    key: of its seed.
    start: weights of `models.start`, where there is one.
  """
  if start is None:
    return models.student.init(jax.random.fold_in(key, 0))
  if models.layers is not None:
    assert models.start is not None
    shape: Any = models.start.architecture
    _, start = cut.cut_layers(shape, start, models.layers)
  if models.tokens is not None:
    start = models.tokens.put_into(start)
  if getattr(models.student, "low_rank", None) is not None:
    drawn = models.student.init(jax.random.fold_in(key, 0))
    start = low_rank_lib.beside(drawn, start)
  return jax.tree.map(
    lambda x: (
      x.astype(jnp.float32) if jnp.issubdtype(x.dtype, jnp.floating) else x
    ),
    start,
  )


def find_models(
  config: config_lib.Config, *, beside: pretrained.Beside = None
) -> Models:
  """Resolves every model of a config and the student's shape.

  Args:
    config: the run.
    beside: where other stages are that its references may name, see
      `pretrained.Beside`.
  """
  living = {k: t.ref for k, t in config.teachers.items() if t.ref in LIVING}
  teachers = {
    k: _teacher(k, config, beside)
    for k, t in config.teachers.items()
    if k not in living and t.ref != INIT
  }
  spec = config.student
  if isinstance(spec, (config_lib.Lora, config_lib.Retokenised)):
    spec = spec.base
  start, layers = None, None
  if isinstance(spec, config_lib.Pretrained):
    start = pretrained.find(
      spec.ref, architecture=spec.architecture, beside=beside
    )
    student = start.architecture
  elif isinstance(spec, config_lib.Cut):
    start, layers, student = _cut(spec, config, teachers, beside)
  elif spec.architecture is not None:
    student = spec.architecture
  elif spec.like is not None:
    student = _cut(spec.like, config, teachers, beside)[2]
  else:
    raise types.UserError("student: Fresh needs an `architecture` or `like`")
  if getattr(student, "kernels", "float") != "float":
    raise types.UserError(
      "student: its architecture has int8 kernels, which nothing can train; "
      'take kernels="float"'
    )
  student = pretrained.with_fields(
    student,
    dtype=config.dtype,
    remat=config.remat,
    attention=config.attention,
    heads_axis=rules(config).get("heads"),
  )
  tokens = None
  if isinstance(config.student, config_lib.Retokenised):
    tokens = _new_tokens(config, start, beside)
    student = pretrained.with_fields(student, vocab_size=tokens.count)
  models = Models(teachers, student, start, layers, tokens, living)
  teachers = {
    k: teachers.get(k) or _initial(k, config, models)
    for k in config.teachers
    if k not in living
  }
  if isinstance(config.student, config_lib.Lora):
    student = _with_adapters(student, config.student)
  said = {
    name: _said(name, config)
    for name, spec in config.teachers.items()
    if spec.cache is not None
  }
  for name, one in said.items():
    teachers[name] = _spoken(name, config.teachers[name], teachers[name], one)
  return dataclasses.replace(
    models, teachers=teachers, student=student, said=said
  )


def _said(name: str, config: config_lib.Config) -> cached.Said:
  spec = config.teachers[name]
  assert spec.cache is not None
  if config.rollout is not None or config.eval_rollouts:
    raise types.UserError(
      f"teachers.{name}.cache: the run writes its own texts, of which nobody "
      "has said anything before; leave the cache out, or the rollout"
    )
  cache = cached.Cache(spec.cache)
  format = config_json.decode(
    cache.manifest["signal"], where=f"{cache.directory}/{cached.MANIFEST}"
  )
  if not isinstance(format, cached.Format):
    raise types.UserError(
      f"{cache.directory}/{cached.MANIFEST}: its signal is a "
      f"{type(format).__name__}; write the cache again"
    )
  format.check_rest(spec.rest, f"teachers.{name}.rest")
  return cached.Said(cache, format, spec.rest)


def _spoken(
  name: str,
  spec: config_lib.Teacher,
  found: pretrained.Found,
  said: cached.Said,
) -> Spoken:
  """The teacher that a cache is of.

  Raises: UserError if it is of another than the config's.
  """
  manifest = said.cache.manifest
  own, kept = identity(spec, found), manifest["teacher"]
  differ = [k for k in own if own[k] != kept.get(k)]
  if differ:
    key = differ[0]
    raise types.UserError(
      f"teachers.{name}.cache: {spec.cache} is of a teacher whose {key} is "
      f"{kept.get(key)!r}, and the config's is {own[key]!r}; correct the "
      "config, or cache this teacher"
    )
  shape = cached.left(manifest)
  return Spoken(found.ref, found.location, shape, said.cache)


def identity(
  spec: config_lib.Teacher, found: pretrained.Found
) -> dict[str, Any]:
  """What tells a cached teacher from another, as JSON; no weights are read."""
  told: dict[str, Any] = {
    "ref": found.ref,
    "dtype": spec.dtype,
    "weights": spec.stored,
  }
  if found.location.kind == "run":
    told["step"] = pretrained.run_step(found.location)
  if found.location.kind == "drawn":
    told["architecture"] = config_json.encode(found.architecture)
  return told


def _new_tokens(
  config: config_lib.Config,
  start: pretrained.Found | None,
  beside: pretrained.Beside,
) -> Tokens:
  assert isinstance(config.student, config_lib.Retokenised)
  assert start is not None
  if config.tokenizer is None:
    raise types.UserError(
      "student: a Retokenised reads the tokens of the config's tokenizer, and "
      'none is named; set tokenizer to a model reference or "bytes"'
    )
  if not start.location.has_tokenizer:
    raise types.UserError(
      f"student: {start.ref} brings no tokenizer, so nothing says what its own "
      "tokens are; name a base that has one"
    )
  if not hasattr(start.architecture, "num_layers"):
    raise types.UserError(
      f"student: Retokenised is for decoders, and {start.ref} is a "
      f"{type(start.architecture).__name__}"
    )
  directory = beside if isinstance(beside, pathlib.Path) else None
  new = tokenizers.locate(config.tokenizer, beside=directory)
  count = max(tokenizers.load(new).get_vocab().values()) + 1
  return Tokens(new, start.location, config.student.embed, count)


def _with_adapters(
  student: Architecture, spec: config_lib.Lora
) -> Architecture:
  if not hasattr(student, "low_rank"):
    raise types.UserError(
      "student: Lora puts adapters into decoders, and the base is a "
      f"{type(student).__name__}; for a module of your own apply qwix's LoRA "
      "and name its parameters in the adapter's `train`"
    )
  adapters = low_rank_lib.LowRank(
    spec.rank, spec.alpha, spec.targets, spec.also
  )
  student = pretrained.with_fields(student, low_rank=adapters)
  student.trainable()  # refuses patterns without a parameter
  return student


def _initial(
  name: str, config: config_lib.Config, models: Models
) -> pretrained.Found:
  spec = config.teachers[name]
  if spec.architecture is not None:
    raise types.UserError(
      f"teachers.{name}: {INIT!r} is the student before its first update, with "
      "its own shape; leave out the architecture"
    )
  shape = pretrained.with_storage(models.student, spec.stored)
  licence = None if models.start is None else models.start.location.licence
  location = refs.Located(INIT, "drawn", pathlib.Path(), licence, name=INIT)
  shape = pretrained.with_dtype(shape, spec.dtype)
  found = Initial(INIT, location, shape, models, config.seed)
  return _as_teacher(name, found, config)


def _teacher(
  name: str, config: config_lib.Config, beside: pretrained.Beside
) -> pretrained.Found:
  spec = config.teachers[name]
  if spec.ref is None and spec.architecture is None:
    raise types.UserError(
      f"teachers.{name} is named by neither `ref` nor `architecture`; give a "
      "reference, or an architecture that draws its own weights"
    )
  found = pretrained.find(
    spec.ref,
    architecture=spec.architecture,
    dtype=spec.dtype,
    stored=spec.stored,
    beside=beside,
  )
  return _as_teacher(name, found, config)


def _as_teacher(
  name: str, found: pretrained.Found, config: config_lib.Config
) -> pretrained.Found:
  shape = pretrained.with_fields(
    found.architecture,
    attention=config.attention,
    heads_axis=rules(config, name).get("heads"),
  )
  return dataclasses.replace(found, architecture=shape)


def _cut(
  spec: config_lib.Cut,
  config: config_lib.Config,
  teachers: Mapping[str, pretrained.Found],
  beside: pretrained.Beside,
):
  if spec.ref is not None:
    start = pretrained.find(spec.ref, beside=beside)
  elif teachers:
    first, start = next(iter(teachers.items()))
    own = config.teachers[first]
    elsewhere = own.place == "host" or own.mesh is not None or own.cache
    if own.stored != "float32" or elsewhere:
      # The teacher's own weights are rounded, or lie elsewhere: a model of its
      # own, read again.
      full = pretrained.with_storage(start.architecture, "float32")
      start = dataclasses.replace(start, architecture=full)
  else:
    raise types.UserError(
      "student: Cut takes layers of the first teacher, but there is none; "
      "give it a `ref`"
    )
  shape: Any = start.architecture
  if not hasattr(shape, "num_layers"):
    raise types.UserError(
      f"student: {start.ref} is a {type(shape).__name__}, which has no layers "
      "to cut"
    )
  layers = spec.layers
  try:
    if isinstance(layers, int):
      layers = cut.evenly_spaced(shape.num_layers, layers)
    student, _ = cut.cut_layers(shape, shape.shapes(), layers)
  except types.UserError as error:
    raise types.UserError(f"student.layers of {start.ref}: {error}") from error
  return start, tuple(layers), student


def first_teacher(
  path: pathlib.Path, *, dtype: str = "float32"
) -> pretrained.Found | None:
  """The teacher that a run's evaluations compare with, if there is any.

  Args:
    path: the run's directory.
    dtype: compute dtype, where the architecture has one.
  Raises: UserError if it cannot be found any more.
  """
  file = path / "config.json"
  tree = checkpoint.read_object(file)
  spec, given = tree.get("data"), tree.get("teachers", {})
  kind = spec.get(config_json.TYPE) if isinstance(spec, dict) else None
  if kind == config_json.public_name(data.Aligned):
    return None  # it reads other tokens than the student
  for name, said in given.items() if isinstance(given, dict) else ():
    where = f"{file}: teachers.{name}"
    teacher = config_json.decode(said, where=where)
    if not isinstance(teacher, config_lib.Teacher):
      raise types.UserError(f"{where}: expected a Teacher, found {said!r}")
    if teacher.ref == INIT:
      config = config_json.decode(tree, where=str(file))
      plain = {name: config_lib.Teacher(INIT, dtype=teacher.dtype)}
      config = dataclasses.replace(config, teachers=config.teachers | plain)
      found = find_models(config, beside=path).teachers[name]
      shape = pretrained.with_dtype(found.architecture, dtype)
      return dataclasses.replace(found, architecture=shape)
    if teacher.ref not in LIVING:
      return pretrained.find(
        teacher.ref,
        architecture=teacher.architecture,
        dtype=dtype,
        beside=path,
      )
  return None


def rules(
  config: config_lib.Config, teacher: str | None = None
) -> dict[str, str | None]:
  """Logical axis -> mesh axis of the student, or of one of the teachers."""
  own = {} if teacher is None else config.teachers[teacher].rules
  return {**sharding.DEFAULT_RULES, **config.rules, **own}
