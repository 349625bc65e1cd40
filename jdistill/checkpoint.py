# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: train state and data position together, by Orbax."""

import contextlib
import errno
import functools
import itertools
import json
import logging
import math
import os
import pathlib
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax

from jdistill import digests, distributed, paths, types

_DIGESTS = "digests"
"""Of the arrays of a checkpoint, beside the position of the data."""


_CALLS = itertools.count(1)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Without Orbax's warnings that what is opened to be read is read only."""
  absl = logging.getLogger("absl")
  old = absl.level
  absl.setLevel(max(old, logging.ERROR))
  try:
    yield
  finally:
    absl.setLevel(old)


class Restored(NamedTuple):
  """One checkpoint read back."""

  step: int
  state: types.TrainState
  position: dict[str, Any]  # of the data


class Checkpoints:
  """The checkpoints of one run: written asynchronously and atomically.

  Args:
    directory: where they live, of `workdir.checkpoints`; created when missing
      unless `read_only`.
    keep: how many of the newest stay.
    best: a metric whose lowest value also keeps its checkpoint, or None.
    read_only: never write or clean up.
  """

  def __init__(
    self,
    directory: os.PathLike[str],
    *,
    keep: int = 2,
    best: str | None = None,
    read_only: bool = False,
  ):
    import orbax.checkpoint as ocp
    from etils import epath
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
    options = functools.partial(
      ocp.CheckpointManagerOptions,
      create=not read_only,
      read_only=read_only,
      preservation_policy=managers.AnyPreservationPolicy(policies),
      best_fn=None if best is None else lambda m: _metric(m, best),
      best_mode="min",
      cleanup_tmp_directories=not read_only,
    )
    self._ocp = ocp
    self._damaged: set[int] = set()
    with _quiet() if read_only else contextlib.nullcontext():
      self._manager = ocp.CheckpointManager(
        epath.Path(directory), options=options()
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
      position=self._ocp.args.JsonSave(
        {_DIGESTS: digests.of(state), **position}
      ),
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
    where = self._manager.directory / str(step)
    found: Restored | None = None
    cause: Exception | None = None
    try:
      distributed.decide(lambda: _check_layout(where, like))
      read: Any = self._manager.restore(step, args=args)
      found = Restored(step, read.state, dict(read.position))
      _check_content(found.state, found.position.pop(_DIGESTS, {}))
    except types.UserError:  # whole, but of another layout: it stays
      raise
    except Exception as error:
      cause = error
    if not distributed.all_of(cause is None) or found is None:
      self._damaged.add(step)
      cause = cause or OSError("another process cannot read its part")
      raise _unreadable(where, cause) from cause
    return found

  def reached_preemption(self) -> bool:
    """True on all processes at the same call once one of them got SIGTERM.

    All ask after each step. Steps begin anew with each stage of a run, and
    calls do not.
    """
    return self._manager.reached_preemption(next(_CALLS))

  def wait(self) -> None:
    self._manager.wait_until_finished()

  def close(self) -> None:
    self._manager.close()

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, *_: object) -> None:
    self.close()


def restore_params(directory: os.PathLike[str], step: int, like: types.PyTree):
  """The student's parameters alone, of the checkpoint of one step.

  Args:
    directory: a run's, of `workdir.checkpoints`.
    step: which.
    like: shapes with dtypes and shardings.
  Raises: UserError if it is damaged or has other parameters than `like`.
  """
  import orbax.checkpoint as ocp
  from etils import epath

  where = epath.Path(directory) / str(step)
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
  where: os.PathLike[str], like: types.PyTree, *, under: str = ""
) -> None:
  """Compares names and shapes with those of a checkpoint, from its metadata.

  Orbax itself says of a difference only that there is one, or fills the gap.
  """
  import orbax.checkpoint as ocp
  from etils import epath

  handler = ocp.PyTreeCheckpointHandler()
  tree = handler.metadata(epath.Path(where) / "state").tree
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


def _check_content(state: types.TrainState, saved: dict[str, int]) -> None:
  """Compares arrays with the digests that were taken when they were saved."""
  found = digests.of(state) if saved else {}
  changed = [name for name in saved if found.get(name) != saved[name]]
  if changed:
    raise ValueError(f"content has changed on the disk: {_some(changed)}")


def _shapes(tree: types.PyTree) -> dict[str, tuple[int, ...]]:
  """Shapes by path; the same for a state and for what Orbax notes of it."""
  return {
    paths.name_of(path): tuple(leaf.shape)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


def _some(names: Sequence[str]) -> str:
  more = f" and {len(names) - 3} more" if len(names) > 3 else ""
  return ", ".join(names[:3]) + more


def _unreadable(where: os.PathLike[str], error: Exception) -> types.UserError:
  lines = str(error).strip().splitlines()
  said = f"{type(error).__name__}: {lines[0] if lines else ''}"[:400]
  return types.UserError(f"checkpoint {where} cannot be read: {said}")


def _metric(metrics: dict[str, float] | None, name: str) -> float:
  """What is compared; a run that failed is never the best."""
  value = math.inf if metrics is None else metrics.get(name, math.inf)
  return math.inf if math.isnan(value) else value


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


@contextlib.contextmanager
def disk_errors(directory: pathlib.Path) -> Iterator[None]:
  """Around all writing of a run: says what a disk that is full means for it.

  Raises: UserError for a disk that takes no more.
  """
  old = sys.unraisablehook
  sys.unraisablehook = lambda found: _is_echo(found) or old(found)
  try:
    yield
  except (OSError, ValueError) as error:  # Orbax raises the second
    code = getattr(error, "errno", None)
    found = re.search(r"os_error_code='(\d+)'", str(error))
    code = int(found[1]) if found else code
    if code not in _NO_ROOM:
      raise
    raise types.UserError(
      f"{directory} cannot be written: {os.strerror(code)}. Checkpoints that "
      "were finished before are whole: make room, and the same command goes on "
      "from the newest"
    ) from error
  finally:
    sys.unraisablehook = old


def _is_echo(found: Any) -> bool:
  """Whether a write fails that nobody waits for, as another has before it."""
  return "Event loop is closed" in str(found.exc_value)


def check_links(directory: pathlib.Path) -> None:
  """Refuses a run's directory with symbolic links that lead out of it.

  Whoever made the directory could have them written through.

  Raises: UserError that names the first.
  """
  root = directory.resolve()
  for folder, folders, files in os.walk(directory):
    for name in (*folders, *files):
      path = pathlib.Path(folder, name)
      if path.is_symlink() and not path.resolve().is_relative_to(root):
        raise types.UserError(
          f"{path} is a symbolic link to {os.readlink(path)}, out of the run's "
          "directory, and nothing is written through it; remove the link (the "
          "run's directory itself may be one)"
        )


def dump_json(path: pathlib.Path, value: Any) -> None:
  """Writes JSON atomically."""
  temp = path.with_suffix(path.suffix + ".tmp")
  temp.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
  temp.replace(path)


def read_json(path: pathlib.Path) -> Any:
  """JSON of a run directory.

  Raises: UserError if the file is missing or damaged.
  """
  try:
    return json.loads(path.read_text())
  except OSError as error:
    raise types.UserError(
      f"{path}: {error.strerror}; is {path.parent} a run directory?"
    ) from error
  except (ValueError, RecursionError) as error:
    raise types.UserError(f"{path}: not valid JSON: {error}") from error


def read_object(path: pathlib.Path, *names: str) -> dict[str, Any]:
  """A JSON object of a run directory, which has fields of these names.

  Raises: UserError if the file is missing, damaged or something else.
  """
  found = read_json(path)
  if not isinstance(found, dict):
    raise types.UserError(
      f"{path}: expected a JSON object, found {str(found)[:60]!r}"
    )
  lacking = [name for name in names if name not in found]
  if lacking:
    raise types.UserError(
      f"{path}: has no {', '.join(lacking)}; {path.parent} is no run directory"
    )
  return found
