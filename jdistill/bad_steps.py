# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Updates whose loss or gradient is not finite: left out, counted, limited."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jdistill import types

KEY = "bad_steps"
"""Where `TrainState.extra` keeps the counts."""


def none() -> dict[str, jax.Array]:
  """The counts of a state before its first update: int32 []."""
  return {"all": jnp.zeros((), jnp.int32), "in_a_row": jnp.zeros((), jnp.int32)}


def update_if(
  good: jax.Array, update: Callable[[Any], Any], state: types.TrainState
) -> Any:
  """The parts of a state but its step, updated if that is good, else as is.

  A branch and no choice by element: a donated state is updated in place, and
  nothing is computed twice or kept beside it.
  """
  old = state.params, state.opt_state, dict(state.extra)
  return jax.lax.cond(good, update, lambda old: old, old)


def count(good: jax.Array, counts: types.PyTree) -> dict[str, jax.Array]:
  """The counts after an update."""
  bad = 1 - good.astype(jnp.int32)
  return {
    "all": counts["all"] + bad,
    "in_a_row": jnp.where(good, 0, counts["in_a_row"] + 1),
  }


def metrics(counts: types.PyTree) -> dict[str, types.Mean]:
  """The counts among the metrics of a step; `Watch` takes the second away."""
  one = jnp.ones(())
  return {
    "bad_steps": types.Mean(counts["all"].astype(jnp.float32), one),
    "bad_in_a_row": types.Mean(counts["in_a_row"].astype(jnp.float32), one),
  }


class Watch:
  """Warns of bad updates and ends a run that has too many in a row.

  Args:
    limit: so many in a row end the run.
    log: takes lines for people.
  """

  def __init__(self, limit: int, log: Callable[[str], None]):
    self.limit, self._log = limit, log
    self.in_a_row = 0
    self._first: tuple[int, Any] | None = None

  def see(self, step: int, row: dict[str, float], ids: Any) -> bool:
    """Looks at the metrics of an update, which lose `bad_in_a_row`.

    Args:
      step: its number.
      row: its metrics.
      ids: the `example_id` of its batch.
    Returns: whether it was left out.
    """
    self.in_a_row = int(row.pop("bad_in_a_row"))
    if not self.in_a_row:
      self._first = None
      return False
    self._first = self._first or (step, ids)
    self._log(
      f"warning: step {step}: the loss is {row['loss']}, the gradient's norm "
      f"{row['grad_norm']}; this update is left out ({self.in_a_row} in a row, "
      f"{row['bad_steps']:.0f} in all)"
    )
    return True

  @property
  def too_many(self) -> bool:
    return self.in_a_row >= self.limit

  def message(self, ids_of: Callable[[Any], Any]) -> str:
    """Names the first bad batch; `ids_of` reads its ids onto the host."""
    assert self._first is not None
    step, ids = self._first
    listed = sorted(int(i) for i in ids_of(ids))
    shown = ", ".join(map(str, listed[:16]))
    more = f" and {len(listed) - 16} more" if len(listed) > 16 else ""
    return (
      f"{self.in_a_row} updates in a row had a loss or a gradient that is not "
      f"finite, the first at step {step} with the examples {shown}{more}"
    )
