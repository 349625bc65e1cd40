# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""What cannot work in a run's config, refused before anything is compiled."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from jdistill import audit, cached, data, methods, rollout, sharding, types
from jdistill import config as config_lib
from jdistill.models import flash, host
from jdistill.models.base import Architecture
from jdistill.models.decoder import DecoderConfig

if TYPE_CHECKING:
  from jdistill.run import Models


_FROM_ONE = (
  "steps",
  "microbatches",
  "log_every",
  "eval_every",
  "save_every",
  "keep",
  "max_bad_steps",
)


def check(
  config: config_lib.Config,
  models: "Models",
  mesh: sharding.AnyMesh,
  own: Mapping[str, sharding.AnyMesh],
) -> None:
  """Refuses what cannot work, before anything is compiled.

  Args:
    config: the run.
    models: what it names.
    mesh: of the run.
    own: of teachers that have devices of their own, by name.
  """
  _check_numbers(config)
  needs = config.method.needs()
  known = models.speakers()
  missing = [t for t in needs.teachers if t not in known]
  if missing:
    raise types.UserError(
      f"method {type(config.method).__name__} needs a teacher named "
      f"{missing[0]!r}; teachers has {sorted(known) or 'none'}"
    )
  domains = config.data.num_domains
  if None not in (domains, needs.domains) and domains != needs.domains:
    raise types.UserError(
      f"method.teachers: there are teachers of {needs.domains} domains, and "
      f"data has {domains}; give one for each of data.parts, in their order"
    )
  _check_living(config, models)
  _check_hearing(config, models)
  _check_mesh("mesh", config, models.student, mesh)
  for name, found in models.teachers.items():
    field = f"teachers.{name}.mesh" if name in own else "mesh"
    _check_mesh(field, config, found.architecture, own.get(name, mesh))
  for name, spec in {"data": config.data, **config.evals}.items():
    _check_ids(name, spec, models)
  if needs.same_vocabulary and not config.data.needs_tokenizer:
    _check_classes(models)
  written = config.rollout is not None or config.eval_rollouts
  if config.reward is not None and not written:
    raise types.UserError(
      "reward: nobody writes answers that could be judged; give the run a "
      "rollout, if only rollout.Dataset(), or eval_rollouts"
    )
  if config.group_size < 1:
    raise types.UserError(
      f"group_size is {config.group_size}; expected at least 1"
    )
  if isinstance(config.rollout, rollout.Reprompted):
    _check_told(config, config.rollout)
  if config.rollout is not None:
    _check_rollout(config, "rollout", config.rollout, config.data, models, mesh)
    sharding.check_rules(
      "rollout_rules", config.rollout_rules, [models.student.axes()], mesh
    )
    for metric in config.rollout.metrics():
      if metric.partition("/")[0] not in config.evals:
        raise types.UserError(
          f"rollout: it goes by the metric {metric!r}, but evals has "
          f"{', '.join(config.evals) or 'none'}"
        )
  for name, writer in config.eval_rollouts.items():
    if name not in config.evals:
      raise types.UserError(
        f"eval_rollouts.{name}: evals has no {name!r}, only "
        f"{', '.join(config.evals) or 'none'}"
      )
    field = f"eval_rollouts.{name}"
    _check_rollout(config, field, writer, config.evals[name], models, mesh)
  if config.select != "last":
    _check_select(config)
  _check_rules(config, models, mesh)
  for name, teacher in config.teachers.items():
    if teacher.place == "host":
      _check_host(name, teacher, models, mesh)
  for name in models.said:
    _check_said(config, name, models)
  for name, one in config.audits.items():
    _check_audit(config, name, one)


def _check_numbers(config: config_lib.Config) -> None:
  """Refuses numbers that mean nothing."""
  for name in _FROM_ONE:
    value = getattr(config, name)
    if value < 1:
      raise types.UserError(f"{name} is {value}; expected at least 1")
  lr = getattr(config.optimizer, "lr", None)
  if isinstance(lr, (int, float)) and not 0 <= lr < math.inf:
    raise types.UserError(
      f"optimizer.lr is {lr}; expected a finite number from 0"
    )
  if isinstance(config.ema, (int, float)) and not 0 <= config.ema < 1:
    raise types.UserError(
      f"ema is {config.ema}; expected a decay from 0 to below 1, such as 0.99"
    )
  for path, value in _temperatures(config.method, "method"):
    if not 0 < value < math.inf:
      raise types.UserError(
        f"{path} is {value}; expected a temperature above 0"
      )


def _temperatures(value: Any, path: str) -> Iterator[tuple[str, float]]:
  """Every `tau` of a method and of those that it is made of."""
  inside = value if isinstance(value, dict) else {}
  if dataclasses.is_dataclass(value):
    names = [f.name for f in dataclasses.fields(value)]
    inside = {name: getattr(value, name) for name in names}
  for name, one in inside.items():
    if name == "tau" and isinstance(one, (int, float)):
      yield f"{path}.tau", one
    yield from _temperatures(one, f"{path}.{name}")


def _check_mesh(
  field: str,
  config: config_lib.Config,
  model: Architecture,
  mesh: sharding.AnyMesh,
) -> None:
  """Refuses a mesh that does not divide what a model on it reads."""
  mixture = getattr(model, "mixture", None)
  if mixture is not None:
    mixture.check_division(mesh.shape[types.EXPERT_AXIS])
  shards = sharding.num_row_shards(mesh)
  parts = shards * config.microbatches
  for name, spec in {"data": config.data, **config.evals}.items():
    want = parts if name == "data" else shards
    group = config.group_size if name == "data" else 1
    if spec.batch_size * group % want:
      raise types.UserError(
        f"{name}.batch_size is {spec.batch_size}, which does not divide over "
        f"{shards} {field} rows (data x fsdp x expert)"
        + (f" x {config.microbatches} microbatches" if want != shards else "")
        + f"; take a multiple of {want}, or another {field}"
      )
    context = sharding.context_size(mesh)
    if context > 1:
      _check_context(name, spec, context, field)
    if config.attention == "flash":
      _check_flash(name, spec, context)


def check_reader(student: Architecture, batch: types.Batch) -> None:
  """Refuses data that a decoder cannot read.

  Raises: UserError for examples with one label each.
  """
  text = isinstance(student, DecoderConfig)
  if text and isinstance(batch.views.get("student"), types.Examples):
    raise types.UserError(
      "data: each row is an example with one label, and the student is a "
      "decoder, which reads text; take text, or a classifier such as "
      "models.MLPConfig"
    )


def check_batch(method: methods.Method, batch: types.Batch) -> None:
  """Refuses a batch that lacks what a method is made of.

  Raises: UserError that names the first missing view or array.
  """
  needs, who = method.needs(), type(method).__name__
  for kind, names, there in (
    ("a view of the text", needs.views, batch.views),
    ("an array of batch.data", needs.data, batch.data),
  ):
    missing = [name for name in names if name not in there]
    if missing:
      raise types.UserError(
        f"method {who} needs {kind} named {missing[0]!r}, and these data have "
        f"{', '.join(sorted(there)) or 'none'}; take data that give it, such "
        "as text that a model writes during the run or, for a teacher with "
        "another tokenizer, data.Aligned; or another method"
      )


def _check_rules(
  config: config_lib.Config, models: "Models", mesh: sharding.AnyMesh
) -> None:
  axes = {k: f.architecture.axes() for k, f in models.teachers.items()}
  everybody = [models.student.axes(), *axes.values()]
  sharding.check_rules("rules", config.rules, everybody, mesh)
  for name in models.teachers:
    field, own = f"teachers.{name}.rules", config.teachers[name].rules
    sharding.check_rules(field, own, [axes[name]], mesh)


def _check_host(
  name: str,
  teacher: config_lib.Teacher,
  models: "Models",
  mesh: sharding.AnyMesh,
) -> None:
  if teacher.mesh is not None:
    raise types.UserError(
      f"teachers.{name}.place is 'host', but it has a mesh of its own, whose "
      "devices hold its weights; take 'device', or no mesh"
    )
  shape = models.teachers[name].architecture
  if not hasattr(shape, "stacks"):
    raise types.UserError(
      f"teachers.{name}.place is 'host', which is for decoders, whose layers "
      f"can be moved one at a time, and this is a {type(shape).__name__}; take "
      "'device'"
    )
  kinds = sharding.memory_kinds(mesh)
  if kinds and host.MEMORY not in kinds:
    raise types.UserError(
      f"teachers.{name}.place is 'host', but the devices reach no "
      f"{host.MEMORY} memory, only {', '.join(kinds)}; take 'device'"
    )


def _check_said(config: config_lib.Config, name: str, models: "Models") -> None:
  """Refuses what needs more of a teacher than it has said before."""
  teacher, field = config.teachers[name], f"teachers.{name}.cache"
  for other in ("mesh", "place"):
    if getattr(teacher, other) not in (None, "device"):
      raise types.UserError(
        f"{field}: the weights of a cached teacher lie nowhere, so leave out "
        f"teachers.{name}.{other}"
      )
  method, who = config.method, type(config.method).__name__
  needs = method.needs()
  if needs.views != ("student",):
    raise types.UserError(
      f"{field}: method {who} has the teacher read "
      f"{', '.join(needs.views)}, and the cache is of the data's text alone"
    )
  if method.wants().get(name) or models.student.hears == name:
    raise types.UserError(
      f"{field}: method {who} asks for features of the teacher, and the cache "
      "has its distributions alone; leave the cache out"
    )
  if name not in needs.teachers or isinstance(
    models.said[name].format, cached.Hidden
  ):
    return
  rest = models.said[name].rest or models.said[name].format.usual
  if rest not in needs.sparse or len(needs.teachers) > 1:
    right = ", ".join(needs.sparse) or "none"
    raise types.UserError(
      f"{field}: it lists a few ids per position (rest {rest!r}), with which "
      f"the loss of {who} is not what it is with all of them; it can be had "
      f"with a --format hidden cache, or with rest {right}"
    )


def _check_classes(models: "Models") -> None:
  own = models.student.vocab_size
  for name, found in models.teachers.items():
    size = found.architecture.vocab_size
    if size != own:
      raise types.UserError(
        f"teachers.{name}: {found.ref} tells {size} classes or ids apart and "
        f"the student {own}; this method compares the same ones"
      )


def _check_ids(name: str, spec: data.Data, models: "Models") -> None:
  speakers = {"student": models.student} | {
    f"teachers.{k}": found.architecture for k, found in models.teachers.items()
  }
  for who, architecture in speakers.items():
    if (spec.vocab_size or 0) > architecture.vocab_size:
      raise types.UserError(
        f"{name}: has {spec.vocab_size} ids, but {who} knows only "
        f"{architecture.vocab_size}; give it a vocab_size of {spec.vocab_size}"
      )


def _check_context(
  name: str, spec: data.Data, context: int, field: str
) -> None:
  length = getattr(spec, "seq_len", None)
  for view, size in spec.views().items():
    if size % context:
      raise types.UserError(
        f"{name}: the view {view!r} has {size} places, which do not divide "
        f"over {field}.context {context}; take a multiple of {context}"
      )
  if length is None:
    raise types.UserError(
      f"{name}: a {type(spec).__name__} has rows without positions, so a mesh "
      f"with a context axis of {context} has nothing to divide; take "
      f"{field}.context 1"
    )
  if length % context:
    below = length // context * context
    sizes = [n for n in (below, below + context) if n]
    fits = [n for n in range(1, context) if length % n == 0]
    raise types.UserError(
      f"{name}.seq_len is {length}, which does not divide over {field}.context "
      f"{context}; take a seq_len of {' or '.join(map(str, sizes))}, or a "
      f"context of {' or '.join(map(str, fits))}"
    )


def _check_flash(name: str, spec: data.Data, context: int) -> None:
  lengths = [getattr(spec, "seq_len", flash.LANES), *spec.views().values()]
  reasons = [flash.refusal(n, probs=False, parts=context) for n in lengths]
  if reason := next(filter(None, reasons), None):
    raise types.UserError(
      f"attention is 'flash', but {name}: {reason}; take another seq_len, or"
      " attention 'auto'"
    )


def _check_living(config: config_lib.Config, models: "Models") -> None:
  for name, kind in models.living.items():
    if config.teachers[name] != config_lib.Teacher(kind):
      raise types.UserError(
        f"teachers.{name}: {kind!r} is the student itself, with its own shape, "
        "dtype and place; give it nothing but the ref"
      )
    if kind == "ema" and config.ema is None:
      raise types.UserError(
        f"teachers.{name}.ref is 'ema', but no average is kept; set ema to its "
        "decay, such as 0.95"
      )


def _check_hearing(config: config_lib.Config, models: "Models") -> None:
  for name, architecture in models.speakers().items():
    if architecture.hears is not None:
      raise types.UserError(
        f"teachers.{name}: a {type(architecture).__name__} goes by what "
        "another model says, so it can be the student only"
      )
  hears = models.student.hears
  if hears is None:
    return
  kind = type(models.student).__name__
  if next(iter(config.teachers), None) != hears:
    raise types.UserError(
      f"student: a {kind} goes by what the teacher named {hears!r} says and is "
      f"judged beside it, so that has to be the first; teachers has "
      f"{', '.join(config.teachers) or 'none'}"
    )
  if config.samples:
    raise types.UserError(
      f"samples: the student is a {kind}, which writes nothing by itself; "
      "leave them out"
    )


def _check_told(config: config_lib.Config, writer: rollout.Reprompted) -> None:
  if config.reward is None:
    raise types.UserError(
      "rollout: a Reprompted tells the teacher how answers were judged, and "
      "nobody judges them; give the run a reward"
    )
  if config.group_size == 1 and not writer.feedback_tokens:
    raise types.UserError(
      "rollout: a Reprompted tells the teacher of other answers to the same "
      "prompt, and group_size is 1; take more, or feedback_tokens"
    )


def _check_rollout(
  config: config_lib.Config,
  field: str,
  writer: rollout.Writer,
  prompts: data.Data,
  models: "Models",
  mesh: sharding.AnyMesh,
) -> None:
  if not isinstance(prompts, data.Prompts):
    raise types.UserError(
      f"{field}: a {type(writer).__name__} answers prompts, and its data are "
      f"a {type(prompts).__name__}; take data.Prompts(of=...)"
    )
  for name in writer.teachers():
    if name not in models.teachers:
      raise types.UserError(
        f"{field}: a teacher named {name!r} is to write; teachers has "
        f"{sorted(models.teachers) or 'none'}"
      )
    if config.teachers[name].mesh is not None:
      raise types.UserError(
        f"{field}: teacher {name!r} is to write, which it can on the mesh of "
        f"the run only; leave out teachers.{name}.mesh"
      )
  missing = [k for k in writer.needs() if k not in prompts.further()]
  if missing:
    raise types.UserError(
      f"{field}: a {type(writer).__name__} reads {missing[0]!r}, which its "
      f"data do not give; set the {missing[0]} of data.Prompts"
    )
  need = prompts.prompt_tokens + writer.max_new_tokens() - 1
  if need > prompts.seq_len:
    raise types.UserError(
      f"{field}: prompts of {prompts.prompt_tokens} tokens and answers of "
      f"{writer.max_new_tokens()} take {need} places, and the rows of data.of "
      f"have {prompts.seq_len}; take a data.of.seq_len of {need} or more, or a "
      "smaller max_new_tokens"
    )
  if sharding.context_size(mesh) > 1:
    raise types.UserError(
      f"{field}: mesh.context is {sharding.context_size(mesh)}, and answers "
      "are written a token at a time, which leaves no positions to divide; "
      "take mesh.context 1"
    )


def _check_audit(
  config: config_lib.Config, name: str, one: audit.Audit
) -> None:
  if name in (*config.evals, rollout.KEY):
    raise types.UserError(
      f"audits.{name}: the metrics of {name!r} are those of something else; "
      "take another name"
    )
  for metric in one.metrics():
    if metric != "loss" and metric.rpartition("/")[0] not in config.evals:
      raise types.UserError(
        f"audits.{name} goes by {metric!r}; expected 'loss' or a metric of "
        f"{', '.join(config.evals) or 'evals, of which there are none'}, such "
        "as 'eval/kl'"
      )


def _check_select(config: config_lib.Config) -> None:
  if config.select.partition("/")[0] not in config.evals:
    raise types.UserError(
      f"select is {config.select!r}, but evals has "
      f"{', '.join(config.evals) or 'none'}; take 'last' or a metric such as "
      f"'{next(iter(config.evals), 'eval')}/kl'"
    )
