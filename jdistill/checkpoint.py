# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: train state and data position together, by Orbax."""

import json
import math
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from jdistill import paths, types


class Restored(NamedTuple):
  """One checkpoint read back."""

  step: int
  state: types.TrainState
  position: dict[str, Any]  # of the data


class Checkpoints:
  """The checkpoints of one run: written asynchronously and atomically.

  Args:
    directory: where they live; created when missing unless `read_only`.
    keep: how many of the newest stay.
    best: a metric whose lowest value also keeps its checkpoint, or None.
    read_only: never write or clean up.
  """

  def __init__(
    self,
    directory: pathlib.Path,
    *,
    keep: int = 2,
    best: str | None = None,
    read_only: bool = False,
  ):
    import orbax.checkpoint as ocp
    from orbax.checkpoint import checkpoint_managers as managers

    policies: list[managers.PreservationPolicy] = [managers.LatestN(keep)]
    if best is not None:
      policies.append(
        managers.BestN(
          get_metric_fn=lambda m: _metric(m, best),
          reverse=True,
          n=1,
          keep_checkpoints_without_metrics=False,
        )
      )
    options = ocp.CheckpointManagerOptions(
      create=not read_only,
      read_only=read_only,
      preservation_policy=managers.AnyPreservationPolicy(policies),
      best_fn=None if best is None else lambda m: _metric(m, best),
      best_mode="min",
      cleanup_tmp_directories=not read_only,
    )
    self._ocp = ocp
    self._damaged: set[int] = set()
    self._manager = ocp.CheckpointManager(
      pathlib.Path(directory).absolute(), options=options
    )

  def save(
    self,
    step: int,
    state: types.TrainState,
    position: dict[str, Any],
    metrics: dict[str, float] | None = None,
  ) -> None:
    """Starts saving; a checkpoint of the same step is left as it is.

    Checkpoints that `restore` could not read are removed first: the run has
    gone on from an older one.
    """
    for damaged in sorted(self._damaged):
      self._manager.delete(damaged)
    self._damaged.clear()
    if step in self.steps():
      return
    args = self._ocp.args.Composite(
      state=self._ocp.args.StandardSave(state),
      position=self._ocp.args.JsonSave(position),
    )
    self._manager.save(step, args=args, metrics=metrics, force=True)

  def steps(self) -> list[int]:
    return sorted(self._manager.all_steps())

  def best(self) -> int | None:
    return self._manager.best_step()

  def restore(self, step: int, like: types.TrainState) -> Restored:
    """Reads a checkpoint onto the shapes, dtypes and shardings of `like`.

    Raises: UserError if it is damaged or has other arrays than `like`.
    """
    args = self._ocp.args.Composite(
      state=self._ocp.args.StandardRestore(like),
      position=self._ocp.args.JsonRestore(),
    )
    where = pathlib.Path(self._manager.directory) / str(step)
    try:
      _check_layout(where, like)
      found: Any = self._manager.restore(step, args=args)
    except types.UserError:  # whole, but of another layout: it stays
      raise
    except Exception as error:
      self._damaged.add(step)
      raise _unreadable(where, error) from error
    return Restored(step, found.state, found.position)

  def reached_preemption(self, step: int) -> bool:
    """True on all processes at the same step once one of them got SIGTERM."""
    return self._manager.reached_preemption(step)

  def wait(self) -> None:
    self._manager.wait_until_finished()

  def close(self) -> None:
    self._manager.close()

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, *_: object) -> None:
    self.close()


def restore_params(directory: pathlib.Path, step: int, like: types.PyTree):
  """The student's parameters alone, of the checkpoint of one step.

  Args:
    directory: a run's `checkpoints/`.
    step: which.
    like: shapes with dtypes and shardings.
  Raises: UserError if it is damaged or has other parameters than `like`.
  """
  import orbax.checkpoint as ocp

  where = pathlib.Path(directory).absolute() / str(step)
  item = {"params": {"student": like}}
  restore_args = jax.tree.map(
    lambda s: ocp.ArrayRestoreArgs(
      sharding=s.sharding, dtype=s.dtype, global_shape=s.shape
    ),
    item,
  )
  try:
    _check_layout(where, item, under="params/student/")
    with ocp.PyTreeCheckpointer() as reader:
      found = reader.restore(
        where / "state",
        args=ocp.args.PyTreeRestore(
          item=item, restore_args=restore_args, partial_restore=True
        ),
      )
  except types.UserError:
    raise
  except Exception as error:
    raise _unreadable(where, error) from error
  return found["params"]["student"]


def _check_layout(
  where: pathlib.Path, like: types.PyTree, *, under: str = ""
) -> None:
  """Compares names and shapes with those of a checkpoint, from its metadata.

  Orbax itself says of a difference only that there is one, or fills the gap.
  """
  import orbax.checkpoint as ocp
  from etils import epath

  handler = ocp.PyTreeCheckpointHandler()
  tree = handler.metadata(epath.Path(where / "state")).tree
  found = {k: v for k, v in _shapes(tree).items() if k.startswith(under)}
  wanted = _shapes(like)
  both = wanted.keys() & found.keys()
  differences = {
    "it lacks": sorted(wanted.keys() - both),
    "it also has": sorted(found.keys() - both),
    "of another shape is": [
      f"{name} {found[name]}, expected {wanted[name]}"
      for name in sorted(both)
      if found[name] != wanted[name]
    ],
  }
  said = [f"{k} {_some(v)}" for k, v in differences.items() if v]
  if said:
    raise types.UserError(
      f"checkpoint {where} has other arrays than this run: {'; '.join(said)}. "
      "It comes from another config or another version of jdistill"
    )


def _shapes(tree: types.PyTree) -> dict[str, tuple[int, ...]]:
  """Shapes by path; the same for a state and for what Orbax notes of it."""
  return {
    paths.name_of(path): tuple(leaf.shape)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


def _some(names: Sequence[str]) -> str:
  more = f" and {len(names) - 3} more" if len(names) > 3 else ""
  return ", ".join(names[:3]) + more


def _unreadable(where: pathlib.Path, error: Exception) -> types.UserError:
  lines = str(error).strip().splitlines()
  said = f"{type(error).__name__}: {lines[0] if lines else ''}"[:400]
  return types.UserError(f"checkpoint {where} cannot be read: {said}")


def _metric(metrics: dict[str, float] | None, name: str) -> float:
  """What is compared; a run that failed is never the best."""
  value = math.inf if metrics is None else metrics.get(name, math.inf)
  return math.inf if math.isnan(value) else value


def dump_json(path: pathlib.Path, value: Any) -> None:
  """Writes JSON atomically."""
  temp = path.with_suffix(path.suffix + ".tmp")
  temp.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
  temp.replace(path)
