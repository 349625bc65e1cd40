# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""A run as one object: frozen dataclasses, from a Python file and flags."""

import contextlib
import dataclasses
import io
import pathlib
import sys
import types as pytypes
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal, get_args

import tyro

from jdistill import (
  audit,
  config_types,
  data,
  methods,
  near_names,
  optim,
  own_configs,
  refs,
  schedules,
  sharding,
  types,
  workdir,
)
from jdistill.models.base import Architecture
from jdistill.models.spec import Attend, Remat
from jdistill.rollout import Reward, Writer
from jdistill.students import Cut as Cut
from jdistill.students import Fresh as Fresh
from jdistill.students import Lora as Lora
from jdistill.students import Pretrained as Pretrained
from jdistill.students import Retokenised as Retokenised
from jdistill.students import Student as Student

Dtype = Literal["float32", "bfloat16"]
Weights = Literal["float32", "bfloat16", "int8"]

LIVING = ("student", "ema")
"""References of teachers that are the student itself."""

INIT = "init"
"""The reference of a teacher that is the student before its first update."""


@dataclasses.dataclass(frozen=True)
class Teacher:
  """A frozen model that the student learns from.

  `ref` is a model reference. An `orbax:DIR` checkpoint of your own module
  needs its `architecture` (`jdistill.models.LinenArchitecture(...)`); other
  references bring theirs. Without a `ref` the weights are those that the
  `architecture` draws, which for `jdistill.beds.MarkovChain` are the truth.
  `dtype` is of the computation, and of the weights unless `weights` says how
  they are stored. `int8` stores a decoder's kernels in a byte for each value,
  with one scale for each output channel and layer, and the rest (embedding,
  head, norms, biases) in bfloat16; layers are turned back one at a time.
  The reference "student" is the student as it is at each step, "ema" the
  average of its weights that `Config.ema` keeps, and "init" the student as it
  was before its first update, frozen: self-distillation. `stage:NAME` is the
  student of an earlier stage of the same run, see `Stages`.
  `rules` are this teacher's own, over those of the config. `place="host"` keeps
  the matrices of a decoder's layers in the memory of the hosts, divided as they
  would be on the devices, to which those of one layer at a time are moved.

  With a `mesh`, such as `MeshShape(1, 4)`, the teacher has devices of its own,
  as many as its sizes multiply to, and the config's `mesh` divides the others.
  Each process gives the same number of its devices. The teacher reads the next
  batch while the student is at this one; `rules` say where on its `mesh` its
  weights lie, and those of the config where its head lies with the student.

  With a `cache`, a directory that `jdistill cache` has written, the teacher has
  said of the data what it says before the run, and its weights are not read.
  `rest` says how the ids are understood that such a cache does not list, see
  `jdistill.losses.coarse`; None is "bucket" for the most probable ids, and the
  only choice there is for others.
  """

  ref: str | None = None
  dtype: Dtype = "float32"
  weights: Weights | None = None
  architecture: Annotated[Architecture | None, tyro.conf.Fixed] = None
  rules: dict[str, str | None] = dataclasses.field(default_factory=dict)
  place: Literal["device", "host"] = "device"
  mesh: sharding.MeshShape | None = None
  cache: str | None = None
  rest: types.Rest | None = None

  @property
  def stored(self) -> Weights:
    """What the weights are stored in."""
    return self.weights or self.dtype


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """One run. Every field can be set by a flag: `--optimizer.lr 1e-3`.

  Attributes:
    student: how the student starts.
    method: how the difference to the teachers is measured.
    data: what both read.
    teachers: frozen models by the names that the method uses.
    group_size: so many answers to each prompt; a batch has `data.batch_size`
      prompts.
    reward: what judges the answers that a rollout writes, on the host, and
      those of `eval_rollouts`: `own/reward`.
    rollout: who writes the answers to the prompts of `data`; None learns from
      the data's own text.
    steps: updates in all.
    optimizer: update rule, learning rate and its schedule.
    evals: held-out data; the key prefixes its metrics, `eval/kl`.
    eval_rollouts: for evals whose data are prompts, who writes the answers that
      are judged, with the same noise each time; by default the data's own.
    tokenizer: a model reference whose tokenizer is used, or "bytes" for one
      token for each byte; default: that of the first teacher, else the
      student's.
    dtype: the student's compute dtype; its weights stay float32.
    remat: what the student's backward pass computes again instead of keeping
      it: "elementwise" all but products, "dots" attention too, "full" whole
      layers.
    attention: of student and teachers; "auto" takes the flash kernel on TPUs
      where it can be used, "xla" never does, "flash" insists.
    mesh: sizes of the device mesh, of what teachers with a mesh leave.
    rules: logical parameter axis -> mesh axis, or several as `fsdp+context`,
      or None for whole on every device; over the defaults.
    rollout_rules: over `rules`, where the student's parameters lie while it
      writes: `{"embed": None}` gathers those that `fsdp` divides once for all
      tokens.
    microbatches: parts that a batch is worked off in, one after another.
    freeze: parameters that stay as they are.
    ema: decay of an average of the student's weights, or None.
    seed: of initial weights, data order and noise.
    log_every, eval_every, save_every: in steps.
    keep: how many of the newest checkpoints stay.
    max_bad_steps: so many updates in a row whose loss or gradient is not finite
      end the run; each of them is left out.
    eval_at: further steps to evaluate at, such as early ones.
    audits: what looks at the evaluations, by name; `AUDIT/flagged` and other
      numbers are in the metrics, what it says in `result.json` and the report.
    select: the checkpoint that `RUN@best` and the final table mean: the last,
      or the one with the lowest value of a metric such as `eval/kl`.
    samples: prompts to continue at the end of the run.
  """

  student: Student
  method: methods.Method
  data: data.Data
  steps: int
  teachers: dict[str, Teacher] = dataclasses.field(default_factory=dict)
  rollout: Writer | None = None
  group_size: int = 1
  reward: Reward | None = None
  optimizer: optim.Optimizer = dataclasses.field(default_factory=optim.AdamW)
  evals: dict[str, data.Data] = dataclasses.field(default_factory=dict)
  eval_rollouts: dict[str, Writer] = dataclasses.field(default_factory=dict)
  tokenizer: str | None = None
  dtype: Dtype = "float32"
  remat: Remat = "elementwise"
  attention: Attend = "auto"
  mesh: sharding.MeshShape = dataclasses.field(
    default_factory=sharding.MeshShape
  )
  rules: dict[str, str | None] = dataclasses.field(default_factory=dict)
  rollout_rules: dict[str, str | None] = dataclasses.field(default_factory=dict)
  microbatches: int = 1
  freeze: tuple[optim.Freeze, ...] = ()
  ema: float | schedules.Schedule | None = None
  seed: int = 0
  log_every: int = 10
  eval_every: int = 100
  eval_at: tuple[int, ...] = ()
  audits: dict[str, audit.Audit] = dataclasses.field(default_factory=dict)
  save_every: int = 100
  keep: int = 2
  max_bad_steps: int = 5
  select: str = "last"
  samples: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Stages:
  """A run of several stages, one after another, in order.

  `stages` are configs by name. `stage:NAME` as a model reference of one is the
  student of an earlier one: the checkpoint that its `select` means, unless
  `@last`, `@best` or `@STEP` says which.

  Raises: UserError for a name that cannot be one, and for a reference to what
    is no earlier stage.
  """

  stages: dict[str, Config]

  def __post_init__(self):
    if not self.stages:
      raise types.UserError("stages: there are none; give at least one Config")
    earlier: list[str] = []
    for name, config in self.stages.items():
      _check_name(name, config)
      if same := [other for other in earlier if _same_flag(other, name)]:
        raise types.UserError(
          f"stage {name!r}: {same[0]!r} is another, and flags cannot tell them "
          "apart"
        )
      for field, ref in references(config).items():
        _check_reference(f"stage {name}: {field}", ref, earlier, self.stages)
      earlier.append(name)


def _check_name(name: str, config: Any) -> None:
  if not isinstance(config, Config):
    raise types.UserError(
      f"stage {name}: it is a {type(config).__name__}, expected a Config"
    )
  why = None
  if not workdir.STAGE_NAME.fullmatch(name):
    why = "a name is of letters, digits, - and _, and begins with a letter"
  elif name.replace("-", "_") in (f.name for f in dataclasses.fields(Config)):
    why = f"--{name} is a flag of every stage: a field of Config has this name"
  elif name in workdir.RESERVED:
    why = f"{name}/ is a directory of every run"
  if why is not None:
    raise types.UserError(
      f"stage {name!r}: {why}; take another name, such as {'warm_up'!r}"
    )


def _check_reference(
  field: str, ref: str, earlier: Sequence[str], names: Iterable[str]
) -> None:
  reference = refs.parse(ref)
  if reference.scheme == "stage" and reference.target not in earlier:
    what = "no stage before it" if reference.target in names else "no stage"
    raise types.UserError(
      f"{field} is {ref!r}, but {reference.target} is {what}; before it are "
      f"{', '.join(earlier) or 'none'}"
    )


def references(config: Config) -> dict[str, str]:
  """The model references of a run by their field, without "student" and such.

  Returns: such as `{"teachers.teacher.ref": "stage:first"}`.
  """
  spec, field = config.student, "student"
  if isinstance(spec, (Lora, Retokenised)):
    spec, field = spec.base, f"{field}.base"
  if isinstance(spec, Fresh):
    spec, field = spec.like, f"{field}.like"
  found = {f"teachers.{k}.ref": t.ref for k, t in config.teachers.items()}
  if spec is not None:
    found[f"{field}.ref"] = spec.ref
  found["tokenizer"] = config.tokenizer
  return {
    k: ref for k, ref in found.items() if ref and ref not in (*LIVING, INIT)
  }


def load(path: str | pathlib.Path, argv: Sequence[str] = ()) -> Config | Stages:
  """The config that a file's `get_config()` returns, with flags applied.

  Args:
    path: a Python file with `get_config()`, which returns a Config or Stages;
      or the name of one that comes with jdistill, such as `quickstart`.
    argv: overrides such as `--steps 20 --method.tau 2`; of several stages
      `--NAME.steps 20` is for one, and others are for all.
  Raises: UserError for a missing or broken file or an unknown flag.
  """
  config = from_file(path)
  if isinstance(config, Stages):
    return override_stages(config, argv, name=str(path))
  try:
    return override(config, argv, name=str(path))
  except SystemExit as end:
    if end.code and (near := near_names.of_flag(config, argv)):
      print(f"jdistill: did you mean {near}?", file=sys.stderr)
    raise


def from_file(path: str | pathlib.Path) -> Config | Stages:
  """Runs a config file and takes what its `get_config()` returns."""
  path = own_configs.find(path)
  if not path.is_file():
    here = path if path.is_dir() else path.parent
    near = sorted(p.name for p in here.glob("*.py"))
    there = f"; {here} has {', '.join(near)}" if near else ""
    if path.is_dir():
      raise types.UserError(f"config file {path} is a directory{there}")
    raise types.UserError(
      f"config file {path} does not exist{there}{own_configs.near(path)}"
    )
  module = pytypes.ModuleType(path.stem)
  module.__file__ = str(path)
  try:
    exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
    if not callable(getattr(module, "get_config", None)):
      raise types.UserError(
        "it has no function get_config(), which returns the Config of a run"
      )
    config = module.get_config()
  except (Exception, SystemExit) as error:
    kind = type(error).__name__
    said = (
      str(error) if isinstance(error, types.UserError) else (f"{kind}: {error}")
    )
    raise types.UserError(
      f"config file {path}: {_where(error, path)}{said}{near_names.hint(error)}"
    ) from error
  if not isinstance(config, (Config, Stages)):
    raise types.UserError(
      f"config file {path}: get_config() returned "
      f"{type(config).__name__}, expected jdistill.config.Config, or Stages"
    )
  config_types.check(config, f"config file {path}")
  return config


def _where(error: BaseException, path: pathlib.Path) -> str:
  """The line of the config file that an error passed through."""
  trace, line = error.__traceback__, getattr(error, "lineno", None)
  while trace is not None:
    if trace.tb_frame.f_code.co_filename == str(path):
      line = trace.tb_lineno
    trace = trace.tb_next
  return f"line {line}: " if line else ""


def override(
  config: Config, argv: Sequence[str], *, name: str = "jdistill"
) -> Config:
  """The config with flags applied; tyro prints its own message and exits 2."""
  if not argv:
    return config
  boxed, args = _box(config, list(argv))
  parsed = tyro.cli(
    Config,
    default=boxed,
    args=args,
    prog=f"jdistill train {name}",
    config=(tyro.conf.AvoidSubcommands, tyro.conf.SuppressFixed),
  )
  return _unbox(parsed)


def override_stages(
  config: Stages, argv: Sequence[str], *, name: str = "jdistill"
) -> Stages:
  """Several stages with flags applied: `--NAME.field` to one, others to all.

  Raises: UserError for a flag that a stage does not have.
  """
  if {"-h", "--help"} & set(argv):
    for stage, one in config.stages.items():
      print(f"stage {stage}: --{stage}.FIELD, or --FIELD of all stages")
      with contextlib.suppress(SystemExit):
        override(one, ["--help"], name=name)
    raise SystemExit(0)
  own: dict[str, list[str]] = {stage: [] for stage in config.stages}
  to = list(own)
  for arg in argv:
    if arg.startswith("--"):
      first, dot, rest = arg[2:].partition(".")
      to = [stage for stage in own if dot and _same_flag(first, stage)]
      arg = f"--{rest}" if to else arg
      to = to or list(own)
    for stage in to:
      own[stage].append(arg)
  found = {}
  for stage, one in config.stages.items():
    said = io.StringIO()
    try:
      with contextlib.redirect_stderr(said):
        found[stage] = override(one, own[stage], name=name)
    except SystemExit as error:
      lines = [line.strip("╭─╮│╰╯ ") for line in said.getvalue().splitlines()]
      told = "\n  ".join([line for line in lines if line][1:-1])
      raise types.UserError(
        f"stage {stage}: {told}\nThe stages are {', '.join(own)}; a flag is "
        f"for all of them, and --{stage}.FIELD for one"
      ) from error
  return Stages(found)


def _box(tree: Any, args: list[str], path: str = "-") -> tuple[Any, list[str]]:
  """Numbers that may be schedules, as `Constant`s, and flags to match.

  tyro takes no number for a field that may also hold a dataclass. So
  `--optimizer.lr 1e-3` becomes `--optimizer.lr.value 1e-3`, also where the
  config had a schedule. Nor has it flags for a mesh that is None.
  """
  if isinstance(tree, dict):
    moving = (schedules.Schedule,)
    items = {
      k: (v, moving if isinstance(v, moving) else ()) for k, v in tree.items()
    }
  elif dataclasses.is_dataclass(tree):
    items = {
      f.name: (getattr(tree, f.name), get_args(f.type))
      for f in dataclasses.fields(tree)
    }
  else:
    return tree, args
  new = {}
  for name, (value, kinds) in items.items():
    flag = f"{path}.{name}" if path != "-" else f"--{name}"
    if sharding.MeshShape in kinds:
      value, args = _mesh(value, args, flag)
    at = [i for i, a in enumerate(args) if _same_flag(a, flag)]
    number = value is None or isinstance(value, (int, float))
    if schedules.Schedule in kinds and (number or at):
      value = schedules.Constant(value if number else 0.0)
      for i in at:
        args[i] = f"{flag}.value{args[i][len(flag) :]}"
    value, args = _box(value, args, flag)
    if value is not items[name][0]:
      new[name] = value
  if not new:
    return tree, args
  if isinstance(tree, dict):
    return tree | new, args
  return dataclasses.replace(tree, **new), args


def _mesh(
  value: sharding.MeshShape | None, args: list[str], flag: str
) -> tuple[sharding.MeshShape | None, list[str]]:
  """A mesh that may be missing: any of its flags makes one, None ends it."""
  for i, arg in enumerate(args):
    if _same_flag(arg, flag):
      words = arg.split("=")[1:] or args[i + 1 : i + 2]
      if words == ["None"]:
        return None, args[:i] + args[i + 1 + ("=" not in arg) :]
    if value is None and _same_flag(arg.rpartition(".")[0], flag):
      value = sharding.MeshShape(data=1)
  return value, args


def _same_flag(arg: str, flag: str) -> bool:
  return arg.split("=")[0].replace("_", "-") == flag.replace("_", "-")


def _unbox(tree: Any) -> Any:
  """The inverse of `_box`."""
  if isinstance(tree, schedules.Constant):
    return tree.value
  if isinstance(tree, dict):
    return {k: _unbox(v) for k, v in tree.items()}
  if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
    old = {f.name: getattr(tree, f.name) for f in dataclasses.fields(tree)}
    new = {k: _unbox(v) for k, v in old.items()}
    moved = {k: v for k, v in new.items() if v is not old[k]}
    return dataclasses.replace(tree, **moved) if moved else tree
  return tree


def changed(old: Any, new: Any, path: str = "") -> list[str]:
  """Paths of fields in which two JSON trees differ, `old -> new` behind."""
  if isinstance(old, dict) and isinstance(new, dict):
    keys = dict.fromkeys([*old, *new])
    found = [
      changed(old.get(k), new.get(k), f"{path}.{k}" if path else k)
      for k in keys
    ]
    return [line for lines in found for line in lines]
  return [] if old == new else [f"{path}: {old!r} -> {new!r}"]
