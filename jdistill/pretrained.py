# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Models from references: what a teacher, a student or an evaluation loads."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jdistill import checkpoint, config_json, refs, types, workdir
from jdistill.models import host, weights
from jdistill.models.base import Architecture
from jdistill.models.weights import orbax

Shardings = Callable[[Architecture, types.PyTree], types.PyTree]
"""`shardings(architecture, shapes) -> tree of jax.sharding.Sharding`."""


@dataclasses.dataclass(frozen=True)
class Found:
  """A model that a reference names; its weights are not read yet."""

  ref: str
  location: refs.Located
  architecture: Architecture

  def params(
    self, *, dtype: str = "float32", shardings: Shardings | None = None
  ) -> types.PyTree:
    """Reads the weights, each straight onto its sharding.

    Args:
      dtype: what they are stored in; int8 kernels if "int8", which is what
        an architecture found with `stored="int8"` computes with, and floats
        whatever it was found with otherwise.
      shardings: where to put them.
    """
    architecture = with_storage(self.architecture, dtype)
    shapes = stored_shapes(architecture, dtype)
    places = None
    if shardings is not None:
      places = shardings(architecture, shapes)
    if dtype == "int8" and self.location.kind in ("run", "drawn", "orbax"):
      shape: Any = architecture
      return shape.store(self.params(shardings=shardings), places)
    match self.location.kind:
      case "run":
        return self._of_run(architecture, dtype, shardings)
      case "drawn":
        return self._drawn(architecture, dtype, places, shardings)
      case "orbax":
        return orbax.load_orbax(
          self.location.path,
          architecture,
          dtype=dtype,
          shardings=places,
        )
      case _:
        _, params = weights.load(self.location, dtype=dtype, shardings=places)
        return params

  def _of_run(
    self, architecture: Architecture, dtype: str, shardings: Shardings | None
  ) -> types.PyTree:
    """The student's weights; adapters are merged in float32, then rounded."""
    kept: Any = run_architecture(self.location.path, own=architecture)
    merges = getattr(kept, "low_rank", None) is not None
    shapes = cast(kept.shapes(), "float32" if merges else dtype)
    places = None if shardings is None else shardings(kept, shapes)
    params = run_params(self.location, shapes, places)
    if not merges:
      return params
    shapes = cast(architecture.shapes(), dtype)
    places = None if shardings is None else shardings(architecture, shapes)

    def merged(params):
      return jax.tree.map(
        lambda x, s: x.astype(s.dtype),
        kept.merged(host.fetched(params)),
        shapes,
      )

    return jax.jit(merged, out_shardings=places)(params)

  def _drawn(
    self,
    architecture: Architecture,
    dtype: str,
    places: Any,
    shardings: Shardings | None,
  ) -> types.PyTree:
    del shardings  # of other models

    def draw():
      params = architecture.init(jax.random.key(0))
      like = cast(params, dtype)
      return jax.tree.map(lambda x, s: x.astype(s.dtype), params, like)

    return jax.jit(draw, out_shardings=places)()


Beside = pathlib.Path | Mapping[str, Found] | None
"""Where the stages are that references in a run's config name: beside the run's
directory; or, before there are any, the students by the names of their stages,
of which only the architecture counts, and the location for a tokenizer."""


def to_come(ref: str, beside: Beside) -> Found | None:
  """The student that `stage:NAME` names before there is any, if it does."""
  if not isinstance(beside, Mapping):
    return None
  reference = refs.parse(ref)
  return beside[reference.target] if reference.scheme == "stage" else None


def find(
  ref: str | None,
  *,
  architecture: Architecture | None = None,
  dtype: str = "float32",
  stored: str = "float32",
  beside: Beside = None,
) -> Found:
  """Resolves a model reference and reads its architecture, no weights.

  Args:
    ref: in the grammar of `jdistill.refs`; None for the weights that the
      `architecture` draws.
    architecture: of an `orbax:` checkpoint, which cannot tell, and of a run
      whose student was a module of the user's own; other runs know better, and
      other references are checked against it.
    dtype: compute dtype, where the architecture has one.
    stored: the dtype that `Found.params` will be asked for; with "int8" the
      architecture is one of int8 kernels.
    beside: the run that the reference is in the config of.
  Raises: UserError for what cannot be found or read.
  """
  if ref is None:
    return _to_draw(architecture, dtype, stored)
  if student := to_come(ref, beside):
    architecture = _shape_to_come(ref, architecture, student)
    architecture = with_dtype(with_storage(architecture, stored), dtype)
    return dataclasses.replace(student, ref=ref, architecture=architecture)
  directory = beside if isinstance(beside, pathlib.Path) else None
  location = refs.locate(ref, beside=directory)
  if location.kind == "orbax":
    if architecture is None:
      raise types.UserError(
        f"{ref}: an Orbax checkpoint holds arrays only; set `architecture` "
        "beside it, e.g. jdistill.models.LinenArchitecture(module, ...)"
      )
  elif location.kind == "run":
    architecture = whole(run_architecture(location.path, own=architecture))
  else:
    expected, architecture = architecture, weights.read_config(location)
    if expected is not None and expected.shapes() != architecture.shapes():
      raise types.UserError(
        f"{ref}: its weights have other shapes than the `architecture` beside "
        "it; leave that out, or correct it for `jdistill plan`"
      )
  architecture = with_storage(architecture, stored)
  return Found(ref, location, with_dtype(architecture, dtype))


def _shape_to_come(
  ref: str, own: Architecture | None, student: Found
) -> Architecture:
  if own is None and config_json.is_own(
    config_json.encode(student.architecture)
  ):
    raise types.UserError(
      f"{ref}: the student is a module of your own, which its run cannot tell; "
      "set `architecture` beside the reference, as in that stage"
    )
  return whole(own or student.architecture)


def _to_draw(
  architecture: Architecture | None, dtype: str, stored: str
) -> Found:
  if architecture is None:
    raise types.UserError(
      "a model is named by neither `ref` nor `architecture`; give a reference, "
      "or an architecture that draws its own weights"
    )
  architecture = with_storage(architecture, stored)
  name = type(architecture).__name__
  location = refs.Located(name, "drawn", pathlib.Path(), name=name)
  return Found(name, location, with_dtype(architecture, dtype))


def whole(architecture: Architecture) -> Architecture:
  """A student's architecture for whoever reads its run.

  Adapters are a way to train: others get whole kernels. And the attention that
  the run insisted on may not suit other rows or devices.
  """
  return with_fields(
    architecture,
    low_rank=None,
    attention="auto",
    heads_axis=types.HEADS_AXIS,
  )


def with_dtype(architecture: Architecture, dtype: str) -> Architecture:
  """The same architecture computing in a dtype, where it can choose."""
  return with_fields(architecture, dtype=dtype)


def with_storage(architecture: Architecture, dtype: str) -> Architecture:
  """The same architecture for weights stored in a dtype.

  Raises: UserError if it has no kernels to store in int8.
  """
  if hasattr(architecture, "kernels"):
    kernels = "int8" if dtype == "int8" else "float"
    return with_fields(architecture, kernels=kernels)
  if dtype == "int8":
    raise types.UserError(
      f"weights: int8 is for decoders (jdistill.models.DecoderConfig: every "
      f"hf:, pypi:, GGUF and decoder run reference), and this model is a "
      f"{type(architecture).__name__}; take float32 or bfloat16"
    )
  return architecture


def stored_shapes(architecture: Architecture, dtype: str) -> types.PyTree:
  """Shapes of a model's weights, stored in the dtype it was found for."""
  shapes = architecture.shapes()
  return shapes if dtype == "int8" else cast(shapes, dtype)


def with_fields(architecture: Architecture, **fields: Any) -> Architecture:
  """The same architecture with those of the fields changed that it has."""
  shape: Any = architecture
  if not dataclasses.is_dataclass(shape):
    return architecture
  names = {f.name for f in dataclasses.fields(shape)}
  known = {k: v for k, v in fields.items() if k in names}
  return dataclasses.replace(shape, **known)


def cast(shapes: types.PyTree, dtype: str) -> types.PyTree:
  """Shapes with floating dtypes changed."""

  def one(s):
    floating = jnp.issubdtype(s.dtype, jnp.floating)
    return jax.ShapeDtypeStruct(s.shape, dtype if floating else s.dtype)

  return jax.tree.map(one, shapes)


def run_architecture(
  run: pathlib.Path, *, own: Architecture | None = None
) -> Architecture:
  """The student's architecture that a run has written down.

  Args:
    run: its directory.
    own: what to take where the student was a module of the user's own.
  """
  path = run / "student.json"
  if not path.is_file():
    raise types.UserError(f"{run} is no run directory: it has no student.json")
  try:
    tree = json.loads(path.read_text())
  except (ValueError, RecursionError) as error:
    raise types.UserError(f"{path}: not valid JSON: {error}") from error
  if config_json.is_own(tree):
    if own is None:
      raise types.UserError(
        f"{path}: the student was a module of your own, which JSON cannot "
        "rebuild; set `architecture` beside the reference, as in the run's "
        "config file"
      )
    return own
  found = config_json.decode(tree, where=str(path))
  if not isinstance(found, Architecture):
    raise types.UserError(
      f"{path}: expected the architecture of a student, found "
      f"{str(tree)[:60]!r}"
    )
  return found


def run_step(location: refs.Located) -> int:
  """The checkpoint that `RUN@last`, `RUN@best` or `RUN@STEP` means."""
  selector = location.selector or "last"
  directory = workdir.checkpoints(location.path)
  best = None
  if selector == "best":
    best = best_metric(location.path)
  if not directory.is_dir():
    raise types.UserError(f"{location.ref}: no checkpoints/ in this run")
  with checkpoint.Checkpoints(directory, best=best, read_only=True) as found:
    steps = found.steps()
    if not steps:
      raise types.UserError(f"{directory}: no finished checkpoint")
    if selector == "last":
      return steps[-1]
    step = found.best() if selector == "best" else int(selector)
  if step is None:
    raise types.UserError(
      f"{location.ref}: no checkpoint has a value of {best}, by which the best "
      f"is chosen; name one by its step: {', '.join(map(str, steps))}"
    )
  if step not in steps:
    raise types.UserError(
      f"{location.ref}: no checkpoint of step {step}; there are "
      f"{', '.join(map(str, steps))}"
    )
  return step


def best_metric(run: pathlib.Path) -> str:
  """The metric that a run selects its best checkpoint by."""
  select = checkpoint.read_object(run / "config.json").get("select", "last")
  return "eval/kl" if select == "last" else str(select)


def run_params(
  location: refs.Located, shapes: types.PyTree, shardings: Any
) -> types.PyTree:
  """The student's weights of a run."""
  if shardings is None:
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    shardings = jax.tree.map(lambda _: device, shapes)
  like = jax.tree.map(
    lambda s, p: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=p),
    shapes,
    shardings,
  )
  step = run_step(location)
  directory = workdir.checkpoints(location.path)
  return checkpoint.restore_params(directory, step, like)
