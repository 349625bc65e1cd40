# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Anybody's Flax Linen module, NNX module or plain function as a model.

All three are called with `args, kwargs = inputs(view)` and what they return
goes through `outputs(returned, params)`. By default that is the tokens (or the
examples' inputs) in, logits out. A language model that can hand out its last
hidden states instead saves the `[B, T, V]` logits:

  def hidden_and_head(returned, params):
    hidden, _ = returned
    head = types.Head(params["params"]["embed"]["embedding"])
    return types.Outputs(hidden, head, {}, {})

  LinenArchitecture(module, outputs=hidden_and_head)

Parameters of a module are a dict of collections as Linen has them, NNX modules
included: `{"params": ...}`, and `{"batch_stats": ...}` and so on where the
module keeps more than parameters. Only "params" carries gradients; the others
are read as they are, unless `mutable` names them: then the module runs in
training mode where it can, and what it makes of them is in `Outputs.updates`
under the same name, for the caller to put in their place.

`train` narrows down what an optimizer may move. A module that qwix has put LoRA
into trains its adapters alone with `train=("*_lora_a", "*_lora_b")`.

Nothing random happens in a call: there is no key for dropout.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import nnx

from jdistill import paths, types
from jdistill.models import base, nnx_trees

Arguments: TypeAlias = tuple[tuple[Any, ...], Mapping[str, Any]]
FEATURES = "intermediates/"


def first_argument(view: types.View) -> Arguments:
  """Calls with the tokens, or the inputs of examples, and nothing else."""
  if isinstance(view, types.Tokens):
    return (view.tokens,), {}
  return (view.inputs,), {}


def as_logits(returned: Any, params: types.PyTree) -> types.Outputs:
  """Takes what was returned for logits, [B, T, V] or [B, V]."""
  del params
  if not isinstance(returned, jax.Array | jax.ShapeDtypeStruct):
    raise types.UserError(
      f"the model returned a {type(returned).__name__}, not an array of"
      " logits: give the adapter outputs=, a function (returned, params) ->"
      " types.Outputs"
    )
  head = types.IdentityHead(returned.shape[-1])
  return types.Outputs(returned, head, {}, {})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adapter(base.Architecture):
  """What the adapters share.

  Attributes:
    kind: whether the model reads `Tokens` or `Examples`.
    shape: the shape of one row of input, batch axis left out: for tokens any
      length will do, for examples it must be the real one, (28, 28, 1), say.
    input_dtype: of the inputs of examples.
    inputs: what the model is called with, from a view.
    outputs: what the model's return value means, given the parameters.
    kwargs: further keyword arguments of every call.
    mutable: collections that a call updates while it is trained. Padding rows
      of a batch enter its statistics, and gradient accumulation is refused.
    eval_kwargs: keyword arguments that differ for a teacher and in evaluation,
      where nothing is mutable: {"train": False}, say.
    train: patterns of the paths of parameters that alone may be trained, such
      as "params/head/*"; all of them if empty.
  """

  kind: Literal["tokens", "inputs"] = "tokens"
  shape: tuple[int, ...] = (8,)
  input_dtype: str = "float32"
  inputs: Callable[[types.View], Arguments] = first_argument
  outputs: Callable[[Any, types.PyTree], types.Outputs] = as_logits
  kwargs: Mapping[str, Any] | tuple[tuple[str, Any], ...] = ()
  mutable: tuple[str, ...] = ()
  eval_kwargs: Mapping[str, Any] | tuple[tuple[str, Any], ...] = ()
  train: tuple[str, ...] = ()

  def __post_init__(self):
    # Hashable, so that jit may close over the architecture.
    for name in ("kwargs", "eval_kwargs"):
      given = dict(getattr(self, name))
      object.__setattr__(self, name, tuple(sorted(given.items())))
    object.__setattr__(self, "shape", tuple(self.shape))
    object.__setattr__(self, "mutable", tuple(self.mutable))
    object.__setattr__(self, "train", tuple(self.train))

  @property
  def vocab_size(self) -> int:
    return _vocab_size(self)

  def trainable(self) -> types.PyTree:
    """A bool for each leaf of the parameters: what an optimizer may move."""
    return _only(
      self.train,
      {
        name: jax.tree.map(lambda _, move=(name == "params"): move, tree)
        for name, tree in self.shapes().items()
      },
    )

  def for_evaluation(self) -> "Adapter":
    kwargs = {**dict(self.kwargs), **dict(self.eval_kwargs)}
    return dataclasses.replace(self, kwargs=kwargs, mutable=(), eval_kwargs=())

  def example(self) -> types.View:
    """A view of one row of zeros."""
    if self.kind == "inputs":
      return types.Examples(
        jnp.zeros((1, *self.shape), self.input_dtype),
        jnp.zeros((1,), jnp.int32),
        jnp.ones((1,)),
      )
    zeros = jnp.zeros((1, *self.shape), jnp.int32)
    return types.Tokens(zeros, zeros, jnp.ones(zeros.shape), zeros, zeros + 1)

  def arguments(self, view: types.View) -> tuple[tuple[Any, ...], dict]:
    args, kwargs = self.inputs(view)
    return args, {**dict(self.kwargs), **kwargs}


@functools.lru_cache(maxsize=256)
def _vocab_size(architecture: Adapter) -> int:
  outputs = jax.eval_shape(
    lambda params: architecture.bind(params)(architecture.example()),
    architecture.shapes(),
  )
  return outputs.head.vocab_size


@dataclasses.dataclass(frozen=True)
class LinenArchitecture(Adapter):
  """A Flax Linen module.

  Features: "intermediates/encoder/Dense_0" is what that submodule's `__call__`
  returned, "intermediates/encoder/name" what it sowed (or what its method
  `name` returned). Logical axes are the names in the module's own
  `nn.with_partitioning` or `nn.with_logical_partitioning`.
  """

  module: nn.Module

  def _boxed(self, key: jax.Array) -> types.PyTree:
    args, kwargs = self.arguments(self.example())
    return dict(self.module.init(key, *args, **kwargs))

  def init(self, key: jax.Array) -> types.PyTree:
    return jax.tree.map(_unboxed, self._boxed(key), is_leaf=_is_boxed)

  def axes(self) -> types.PyTree:
    boxed = jax.eval_shape(self._boxed, jax.random.key(0))
    return jax.tree.map(_names, boxed, is_leaf=_is_boxed)

  def bind(self, params: types.PyTree) -> types.Model:
    def model(view: types.View, want: tuple[str, ...] = ()) -> types.Outputs:
      args, kwargs = self.arguments(view)
      extra = ["intermediates"] if want else []
      returned, new = self.module.apply(
        _fixed_but_params(params),
        *args,
        mutable=[*self.mutable, *extra],
        capture_intermediates=bool(want),
        **kwargs,
      )
      updated: dict[str, Any] = dict(new)
      seen = nnx_trees.flat_paths(updated.get("intermediates", {}))
      updates = {name: updated[name] for name in self.mutable}
      return _finish(self.outputs(returned, params), want, seen, updates)

    return model


@dataclasses.dataclass(frozen=True)
class NNXArchitecture(Adapter):
  """A Flax NNX module, from the function that builds it.

  The parameters are nested dicts along the module's attributes, one tree per
  kind of variable: "params" (`nnx.Param` and what derives from it),
  "batch_stats", "constants" (arrays in `nnx.data`), the class's name for other
  variables. Random streams are left out. The module runs in `eval()` mode,
  but with batch statistics of the batch where `mutable` has "batch_stats".

  Features: "intermediates/layers/0" is what that submodule returned,
  "intermediates/layers/0/name" what it sowed or its method `name` returned.
  Logical axes are the names in the variables' own sharding metadata.
  """

  make: Callable[[nnx.Rngs], nnx.Module]

  def init(self, key: jax.Array) -> types.PyTree:
    return nnx_trees.init(self.make, key)

  def axes(self) -> types.PyTree:
    return nnx_trees.axes(self.make)

  def bind(self, params: types.PyTree) -> types.Model:
    def model(view: types.View, want: tuple[str, ...] = ()) -> types.Outputs:
      module = nnx_trees.build(self.make, _fixed_but_params(params))
      module.eval()
      if "batch_stats" in self.mutable:
        module.set_attributes(use_running_average=False)
      args, kwargs = self.arguments(view)
      # Always inside capture: a module's own sow() is deprecated outside it.
      returned, seen = nnx.capture(
        module,
        nnx.Intermediate,
        method_outputs=nnx.Intermediate if want else None,
      )(*args, **kwargs)
      seen = nnx_trees.flat_paths(nnx.to_pure_dict(seen))
      after = nnx_trees.collections(module) if self.mutable else {}
      updates = {name: after[name] for name in self.mutable}
      return _finish(self.outputs(returned, params), want, seen, updates)

    return model


def no_parameters(key: jax.Array) -> types.PyTree:
  """The parameters of a function that has none."""
  del key
  return {}


@dataclasses.dataclass(frozen=True)
class FunctionArchitecture(Adapter):
  """A plain function `apply(params, *args, **kwargs)`, jax inside.

  `make(key)` draws its parameters, a nested dict in any layout of its own; all
  of them may be trained. Features come from `outputs`, if at all.
  """

  apply: Callable[..., Any]
  make: Callable[[jax.Array], types.PyTree] = no_parameters

  def __post_init__(self):
    super().__post_init__()
    if self.mutable:
      raise types.UserError(
        f"FunctionArchitecture has no collections to update, found mutable="
        f"{self.mutable}: let `outputs` fill Outputs.updates instead"
      )

  def init(self, key: jax.Array) -> types.PyTree:
    return self.make(key)

  def axes(self) -> types.PyTree:
    return jax.tree.map(lambda leaf: (None,) * leaf.ndim, self.shapes())

  def trainable(self) -> types.PyTree:
    return _only(self.train, jax.tree.map(lambda _: True, self.shapes()))

  def bind(self, params: types.PyTree) -> types.Model:
    def model(view: types.View, want: tuple[str, ...] = ()) -> types.Outputs:
      args, kwargs = self.arguments(view)
      returned = self.apply(params, *args, **kwargs)
      return _finish(self.outputs(returned, params), want, {}, {})

    return model


def _only(patterns: tuple[str, ...], movable: types.PyTree) -> types.PyTree:
  """Of what may move, what one of the patterns names; all without patterns."""
  if not patterns:
    return movable
  may, tree = jax.tree.flatten(movable)
  names = paths.names(movable)
  offered = [name for name, m in zip(names, may, strict=True) if m]
  hits = paths.matching("train", patterns, offered)
  chosen = {name for name, hit in zip(offered, hits, strict=True) if hit}
  return jax.tree.unflatten(tree, [name in chosen for name in names])


def _fixed_but_params(params: types.PyTree) -> types.PyTree:
  return {
    name: tree if name == "params" else jax.lax.stop_gradient(tree)
    for name, tree in params.items()
  }


def _is_boxed(leaf: Any) -> bool:
  return isinstance(leaf, nn.meta.AxisMetadata)


def _unboxed(leaf: Any) -> Any:
  if isinstance(leaf, nn.Partitioned):
    # The names are logical ones here: no constraint of the mesh at hand.
    return leaf.unbox(apply_constraint=False)
  return leaf.unbox() if _is_boxed(leaf) else leaf


def _names(leaf: Any) -> tuple[str | None, ...]:
  names = leaf.names if isinstance(leaf, nn.Partitioned) else ()
  return nnx_trees.padded(names, _unboxed(leaf).ndim)


def _finish(
  outputs: types.Outputs,
  want: tuple[str, ...],
  seen: Mapping[str, Any],
  updates: Mapping[str, Any],
) -> types.Outputs:
  """Adds the features that `want` names and the updated collections."""
  features = dict(outputs.features)
  for name in want:
    if name not in features:
      features[name] = _feature(name, seen, tuple(outputs.features))
  return dataclasses.replace(
    outputs, features=features, updates={**outputs.updates, **updates}
  )


def _feature(
  name: str, seen: Mapping[str, Any], others: tuple[str, ...]
) -> jax.Array:
  path = name.removeprefix(FEATURES)
  values = seen.get(f"{path}/__call__", seen.get(path))
  if values is None or not name.startswith(FEATURES):
    offered = {FEATURES + p.removesuffix("/__call__") for p in seen}
    raise types.UserError(
      f"feature {name!r} is not among the model's:"
      f" {', '.join(sorted({*offered, *others})) or 'it has none'}"
    )
  if isinstance(values, tuple):
    if len(values) != 1:
      raise types.UserError(
        f"feature {name!r} was produced {len(values)} times in one call: sow"
        " what is meant under a name of its own"
      )
    values = values[0]
  if not isinstance(values, jax.Array):
    raise types.UserError(
      f"feature {name!r} is a {type(values).__name__}, expected an array: sow"
      " the array that is meant under a name of its own"
    )
  return values
