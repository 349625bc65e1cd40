# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Draws the pictures of docs/divergences.md.

python docs/plots/divergences.py   # from the root of the repository

Every number is computed by `jdistill.losses`. Each picture is written twice,
for a light and a dark page, as SVG whose text is the reader's own sans-serif.
"""

import contextlib
import functools
import pathlib
import sys
from collections.abc import Callable, Iterator

import fits
import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from jdistill import losses

IMAGES = pathlib.Path(__file__).parents[1] / "images"

INK = {"light": "#333842", "dark": "#d8dbe2"}
FAINT = {"light": "#c9ccd3", "dark": "#4a4f5c"}
COLOURS = {
  "light": ("#0072b2", "#c1440e", "#007a5e", "#a3459b", "#8a6d00", "#555b66"),
  "dark": ("#6db8f2", "#ff9a66", "#4fd1a5", "#e58bd8", "#e8c547", "#a9afbb"),
}
"""Told apart by most eyes, and readable on white and on Material's slate."""


@contextlib.contextmanager
def style(theme: str) -> Iterator[None]:
  ink = INK[theme]
  with mpl.rc_context(
    {
      "font.size": 9,
      "font.family": "sans-serif",
      "svg.fonttype": "none",
      "svg.hashsalt": "jdistill",
      "text.color": ink,
      "axes.labelcolor": ink,
      "axes.edgecolor": FAINT[theme],
      "axes.spines.top": False,
      "axes.spines.right": False,
      "axes.titlesize": 9,
      "axes.titlelocation": "left",
      "axes.prop_cycle": mpl.cycler(color=COLOURS[theme]),
      "xtick.color": ink,
      "ytick.color": ink,
      "legend.frameon": False,
      "lines.linewidth": 1.8,
      "savefig.transparent": True,
    }
  ):
    yield


def humps(theme: str) -> Figure:
  """Where each divergence ends over the teacher's two humps."""
  probs = np.asarray(jax.nn.softmax(fits.teacher()))
  ids = np.asarray(fits.IDS)
  figure, axes = plt.subplots(
    4, 2, figsize=(6.2, 6.0), sharex=True, layout="constrained"
  )
  for ax, name in zip(axes.flat, fits.CHOICES, strict=True):
    best, *others = _fits(name)
    ax.fill_between(ids, probs, color=FAINT[theme], lw=0)
    for fit in others:
      ax.plot(ids, fit.probs, color=COLOURS[theme][1], lw=1.1, ls=(0, (3, 2)))
    ax.plot(ids, best.probs, color=COLOURS[theme][0])
    ax.set_title(name, pad=2)
    ax.set(ylim=(0, 0.07), xlim=(-6, 6), yticks=[], xticks=[])
    ax.spines["left"].set_visible(False)
  for ax in axes[-1]:
    ax.set_xlabel("ids of the vocabulary")
  top = axes[0, 0]
  top.text(-3.0, 0.044, "teacher", color=INK[theme], alpha=0.75)
  top.text(0.0, 0.023, "student", color=COLOURS[theme][0])
  axes[-1, -1].text(-0.5, 0.058, "other starts", color=COLOURS[theme][1])
  return figure


@functools.cache
def _fits(name: str) -> list[fits.Fit]:
  return fits.fits(fits.CHOICES[name])


PULLED: dict[str, Callable[..., jax.Array]] = {
  "forward KL": losses.forward_kl,
  "reverse KL": losses.reverse_kl,
  "JSD, 0.5": losses.jsd,
  "skewed reverse KL, 0.1": losses.skew_reverse_kl,
  "total variation": losses.total_variation,
  "alpha-beta, (0.2, 0.7)": fits.CHOICES["alpha-beta, (0.2, 0.7)"],
}
DASHES = ("-", "-", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (2, 1.5)))


def pull(
  divergence: Callable[..., jax.Array], probs: jax.Array, teacher: float
) -> jax.Array:
  """How one descent step moves the logit of an id, of two that there are.

  Args:
    divergence: of `jdistill.losses`.
    probs: [N] what the student gives the id.
    teacher: what the teacher gives it.
  Returns: [N] minus the gradient with respect to the id's logit.
  """
  goal = jnp.array([np.log(teacher / (1 - teacher)), 0.0])

  def loss(logit):
    return divergence(jnp.stack([logit, jnp.zeros_like(logit)]), goal)

  return -jax.vmap(jax.grad(loss))(jnp.log(probs) - jnp.log1p(-probs))


def pulls(theme: str) -> Figure:
  """The pull of each divergence on one logit, for two ids of the teacher's."""
  z = jnp.linspace(-8.0, 8.0, 400)
  figure, axes = plt.subplots(2, 1, figsize=(6.2, 5.6), layout="constrained")
  cases = (
    (0.9, "the teacher gives the id 0.9: below that it should rise"),
    (0.01, "the teacher gives the id 0.01: above that it should fall"),
  )
  ticks = [0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999]
  for ax, (p, title) in zip(axes, cases, strict=True):
    ax.axhline(0, color=FAINT[theme], lw=0.8)
    at = np.log(p / (1 - p))
    ax.axvline(at, color=FAINT[theme], lw=0.8)
    for (name, divergence), dash in zip(PULLED.items(), DASHES, strict=True):
      y = pull(divergence, jax.nn.sigmoid(z), p)
      ax.plot(z, y, label=name, ls=dash)
    ax.set(title=title, ylabel="pull on its logit", xlim=(-8, 8))
    ax.set_xticks(
      [np.log(t / (1 - t)) for t in ticks], [f"{t:g}" for t in ticks]
    )
  axes[1].set_xlabel("what the student gives the id")
  axes[1].legend(loc="lower left", fontsize=8.5)
  return figure


TAUS = np.geomspace(0.5, 32, 60)


def logits_of_a_pair(size: int = 1000) -> tuple[jax.Array, jax.Array]:
  """A teacher with Zipf's law over its ids, and a student that is off."""
  rng = np.random.default_rng(0)
  teacher = -1.3 * np.log(np.arange(1, size + 1)) + rng.normal(size=size)
  return jnp.asarray(teacher + rng.normal(size=size)), jnp.asarray(teacher)


def norms(divergence: Callable[..., jax.Array]) -> np.ndarray:
  """[taus] the length of the gradient with respect to the student's logits."""
  student, teacher = logits_of_a_pair()

  def norm(tau):
    grad = jax.grad(lambda s: divergence(s, teacher, tau=tau))(student)
    return jnp.sqrt(jnp.square(grad).sum())

  return np.asarray(jax.vmap(norm)(jnp.asarray(TAUS, jnp.float32)))


def temperatures(theme: str) -> Figure:
  """What tau does to the teacher's ids and to the size of the gradient."""
  figure, (left, right) = plt.subplots(
    1, 2, figsize=(6.2, 3.0), layout="constrained"
  )
  _, teacher = logits_of_a_pair()
  order = jnp.argsort(-teacher)[:200]
  for tau, dash in zip((1, 2, 4), DASHES[1:], strict=False):
    probs = np.asarray(jax.nn.softmax(teacher / tau))[order]
    left.loglog(np.arange(1, 201), probs, label=f"tau {tau}", ls=dash)
  left.set(
    title="teacher's probabilities",
    xlabel="rank of the id",
    xlim=(1, 200),
  )
  left.legend(loc="lower left", fontsize=8.5)
  forward, reverse = norms(losses.forward_kl), norms(losses.reverse_kl)
  colours = COLOURS[theme]
  right.loglog(TAUS, forward, color=colours[0], label="forward KL")
  right.loglog(TAUS, reverse, color=colours[1], label="reverse KL")
  right.loglog(
    TAUS,
    TAUS**2 * forward,
    color=colours[0],
    ls=(0, (3, 1.5)),
    label="tau² forward KL",
  )
  right.set(title="length of the gradient", xlabel="tau")
  ticks = (0.5, 1, 2, 4, 8, 16, 32)
  right.set_xticks(ticks, [f"{t:g}" for t in ticks])
  right.minorticks_off()
  right.legend(loc="lower left", fontsize=8.5)
  return figure


FIGURES: dict[str, Callable[[str], Figure]] = {
  "humps": humps,
  "pulls": pulls,
  "temperatures": temperatures,
}


def main() -> int:
  """Writes all pictures and prints the table of the fits."""
  IMAGES.mkdir(exist_ok=True)
  for name, draw in FIGURES.items():
    for theme in INK:
      with style(theme):
        figure = draw(theme)
        figure.savefig(IMAGES / f"{name}-{theme}.svg", metadata={"Date": None})
        plt.close(figure)
  print(fits.table())
  return 0


if __name__ == "__main__":
  sys.exit(main())
