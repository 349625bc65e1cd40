# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Products and sums of a traced program, counted.

XLA's own count takes the body of a loop once; here it counts for every turn.
Only matrix products and convolutions count, 2 for each multiplication, as MFU
is defined (Chowdhery et al., 2022, arXiv:2204.02311, appendix B), where
attention counts as if nothing were masked.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.extend.core as core


def count(fn: Callable[..., Any], *shapes: Any) -> float:
  """Floating-point operations of `fn`, all devices together."""
  return of_jaxpr(jax.make_jaxpr(fn)(*shapes).jaxpr)


def of_jaxpr(jaxpr: Any, turns: int = 1) -> float:
  """Of a traced program or a part of it.

  Loops whose number of turns the trace does not tell count for `turns`. What
  nothing reads is not computed.
  """
  return sum((_equation(e, turns) for e in _read(jaxpr)), 0.0)


def _read(jaxpr: Any) -> list[Any]:
  """The equations whose results something reads, last first."""
  wanted, found = {v for v in jaxpr.outvars if isinstance(v, core.Var)}, []
  for eqn in reversed(jaxpr.eqns):
    if eqn.effects or any(v in wanted for v in eqn.outvars):
      wanted |= {v for v in eqn.invars if isinstance(v, core.Var)}
      found.append(eqn)
  return found


def _equation(eqn: Any, turns: int) -> float:
  name, params = eqn.primitive.name, eqn.params
  match name:
    case "dot_general":
      (contracted, _), _ = params["dimension_numbers"]
      shape = eqn.invars[0].aval.shape
      return (
        2.0 * _size(eqn.outvars[0]) * math.prod(shape[i] for i in contracted)
      )
    case "conv_general_dilated":
      kernel = eqn.invars[1].aval.shape
      out = params["dimension_numbers"].rhs_spec[0]
      return 2.0 * _size(eqn.outvars[0]) * math.prod(kernel) / kernel[out]
    case "ragged_dot" | "ragged_dot_general":
      # Each row meets one matrix.
      return 2.0 * _size(eqn.outvars[0]) * eqn.invars[0].aval.shape[-1]
    case "jit" | "pjit" if params["name"] in (
      "grouped_product",
      "grouped_outer",
    ):
      # Each row meets one matrix: [M, D] and [E, D, F], or [M, D] and [M, F].
      rows, other = (var.aval.shape for var in eqn.invars[:2])
      return 2.0 * math.prod(rows) * other[-1]
    case "scan":
      return params["length"] * of_jaxpr(params["jaxpr"].jaxpr, turns)
    case "while":
      return turns * of_jaxpr(params["body_jaxpr"].jaxpr, turns)
    case "cond":
      return max(of_jaxpr(b.jaxpr, turns) for b in params["branches"])
    case "shard_map":
      mesh = params["mesh"]
      manual = params.get("newly_manual_axes") or params["manual_axes"]
      shards = math.prod(mesh.shape[a] for a in manual)
      return shards * of_jaxpr(params["jaxpr"], turns)
    case "pallas_call":
      grid = params["grid_mapping"].grid
      return math.prod(grid) * of_jaxpr(params["jaxpr"], turns)
    case _:
      # A derivative rule is beside the function, not called by it.
      inner = [params[k] for k in ("jaxpr", "call_jaxpr") if k in params]
      return sum((of_jaxpr(getattr(j, "jaxpr", j), turns) for j in inner), 0.0)


def _size(var: Any) -> int:
  return math.prod(var.aval.shape)
