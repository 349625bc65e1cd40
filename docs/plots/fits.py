# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""One hump fitted to two by each divergence, with jdistill's own losses.

The vocabulary is a line of 121 ids. The teacher has two humps; the student's
logits are those of a Gaussian, so it has one, and two parameters: where it lies
and how wide it is. Each divergence is descended by Adam from several starts.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jdistill import losses

IDS = jnp.linspace(-6.0, 6.0, 121)
HUMPS = ((0.65, -1.8, 0.6), (0.35, 2.2, 0.8))  # mass, mean, deviation
STARTS = tuple((mean, 1.0) for mean in (-3.0, -1.0, 0.0, 1.0, 3.0))
STEPS = 1500

CHOICES: dict[str, Callable[..., jax.Array]] = {
  "forward KL": losses.forward_kl,
  "skewed forward KL, 0.1": losses.skew_forward_kl,
  "adaptive KL": losses.adaptive_kl,
  "alpha-beta, (0.2, 0.7)": functools.partial(
    losses.alpha_beta, alpha=0.2, beta=0.7
  ),
  "JSD, 0.5": losses.jsd,
  "total variation": losses.total_variation,
  "skewed reverse KL, 0.1": losses.skew_reverse_kl,
  "reverse KL": losses.reverse_kl,
}


def teacher() -> jax.Array:
  """[V] logits."""
  parts = [
    jnp.log(mass / std) - 0.5 * ((IDS - mean) / std) ** 2
    for mass, mean, std in HUMPS
  ]
  return jax.nn.logsumexp(jnp.stack(parts), axis=0)


def gaussian(params: jax.Array) -> jax.Array:
  """[V] logits of a mean and the logarithm of a deviation."""
  mean, log_std = params
  return -0.5 * ((IDS - mean) * jnp.exp(-log_std)) ** 2


@dataclasses.dataclass(frozen=True)
class Fit:
  """Where a descent has ended; `left` is the mass below the humps' valley."""

  value: float
  mean: float
  std: float
  left: float
  probs: np.ndarray  # [V]


def fits(divergence: Callable[..., jax.Array]) -> list[Fit]:
  """Where the starts lead to, the lowest value first, each place once."""
  goal = teacher()
  optimizer = optax.adam(optax.cosine_decay_schedule(0.05, STEPS))

  def loss(params):
    return divergence(gaussian(params), goal)

  def descend(params):
    def step(carry, _):
      params, state = carry
      updates, state = optimizer.update(jax.grad(loss)(params), state)
      return (optax.apply_updates(params, updates), state), None

    start = (params, optimizer.init(params))
    return jax.lax.scan(step, start, length=STEPS)[0][0]

  starts = jnp.array([(mean, np.log(std)) for mean, std in STARTS])
  ends = jax.jit(jax.vmap(descend))(starts)
  found = sorted(map(_fit, jax.vmap(loss)(ends), ends), key=lambda f: f.value)
  kept: list[Fit] = []
  for fit in found:
    if all(abs(fit.mean - other.mean) > 0.2 for other in kept):
      kept.append(fit)
  return kept


def _fit(value: jax.Array, params: jax.Array) -> Fit:
  probs = np.asarray(jax.nn.softmax(gaussian(params)), np.float64)
  mean, std = moments(probs)
  left = probs[np.asarray(IDS) < _valley()].sum()
  return Fit(float(value), mean, std, float(left), probs)


def moments(probs: np.ndarray) -> tuple[float, float]:
  """Mean and deviation of a distribution over the ids."""
  ids = np.asarray(IDS, np.float64)
  mean = float((probs * ids).sum() / probs.sum())
  return mean, float(np.sqrt((probs * (ids - mean) ** 2).sum() / probs.sum()))


def _valley() -> float:
  """The least likely id between the humps."""
  between = (HUMPS[0][1] < IDS) & (HUMPS[1][1] > IDS)
  return float(IDS[jnp.argmin(jnp.where(between, teacher(), jnp.inf))])


def table() -> str:
  """Markdown: where each divergence leaves the hump."""
  lines = [
    "| divergence | mean | deviation | on the left hump | other starts end |",
    "|---|---:|---:|---:|---|",
  ]
  probs = np.asarray(jax.nn.softmax(teacher()), np.float64)
  mean, std = moments(probs)
  left = probs[np.asarray(IDS) < _valley()].sum()
  lines.append(f"| the teacher | {mean:.2f} | {std:.2f} | {left:.0%} | |")
  for name, divergence in CHOICES.items():
    best, *others = fits(divergence)
    other = ", ".join(f"at {fit.mean:.2f}" for fit in others)
    lines.append(
      f"| {name} | {best.mean:.2f} | {best.std:.2f} | {best.left:.0%} "
      f"| {other} |".replace("|  |", "| |")
    )
  return "\n".join(lines)
