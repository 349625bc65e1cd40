# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Plots as SVG text whose colours the page around them decides."""

import contextlib
import dataclasses
import io
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

_INK, _GRID = "#010203", "#010204"
_SERIES = tuple(f"#0102{i:02x}" for i in range(16, 24))

NUM_COLOURS = len(_SERIES)
"""Series after so many take the first colours again."""

_MOST_LABELS = 64
"""Of a matrix's parts: more could not be read."""


@dataclasses.dataclass(frozen=True)
class Line:
  """One curve: `y` over `x`, NaN where there is nothing.

  `colour` is an index into the page's `--c0`, `--c1`, ...; a `point` is a ring
  around each value, with no line between them.
  """

  label: str
  x: Sequence[int | float]
  y: Sequence[int | float]
  colour: int = 0
  dashed: bool = False
  faint: bool = False
  marked: bool = False
  point: bool = False


def lines(
  curves: Sequence[Line],
  *,
  x_label: str,
  y_label: str,
  log_x: bool = False,
  log_y: bool = False,
  from_zero: bool = False,
  levels: Sequence[tuple[str, int | float]] = (),
) -> str:
  """Draws curves over one axis.

  Args:
    curves: at least one; NaN leaves a gap.
    x_label, y_label: of the axes, units included.
    log_x, log_y: logarithmic axes.
    from_zero: the axis begins at 0.
    levels: labelled horizontal lines, such as the teacher's value.
  Returns: an `<svg>` element; text and lines take the CSS variables `--ink`,
    `--grid` and `--c0`, `--c1`, ... of the page.
  """
  with _axes(f"{x_label}/{y_label}/{curves}", (5.6, 3.1)) as axes:
    from matplotlib.ticker import FuncFormatter, LogLocator

    for curve in curves:
      axes.plot(
        np.asarray(curve.x, float),
        np.asarray(curve.y, float),
        color=_SERIES[curve.colour % NUM_COLOURS],
        linestyle=_style(curve),
        linewidth=1.0 if curve.faint else 1.8,
        alpha=0.35 if curve.faint else 1.0,
        marker="o" if curve.marked or curve.point else None,
        markersize=9 if curve.point else 3.5,
        markerfacecolor="none" if curve.point else None,
        markeredgewidth=1.8 if curve.point else None,
        label=None if curve.faint else curve.label,
      )
    for label, value in levels:
      axes.axhline(value, color=_INK, linewidth=1.2, linestyle=":", label=label)
    for log, name, axis in (
      (log_x, "x", axes.xaxis),
      (log_y, "y", axes.yaxis),
    ):
      if log:
        axes.set(**{f"{name}scale": "log"})
        axis.set_major_locator(LogLocator(10, subs=_subs(curves, name)))
        axis.set_major_formatter(FuncFormatter(_short))
        axis.set_minor_locator(LogLocator(10, subs=()))
    if from_zero:
      axes.set_ylim(bottom=0)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(color=_GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(length=0)
    if len(curves) + len(levels) > 1:
      axes.legend(frameon=False, fontsize=9)
    svg = _svg(axes)
  title = f"{y_label} over {x_label}"
  return _themed(svg, title)


def blocks(
  labels: Sequence[Sequence[str]], *, x_label: str, y_label: str
) -> str:
  """Draws a matrix cut into parts, a label in each.

  Args:
    labels: by row and column; parts of the same label get the same colour.
    x_label, y_label: of the matrix's dimensions.
  Returns: an `<svg>` element as of `lines`.
  """
  height, width = len(labels), len(labels[0])
  order = list(dict.fromkeys(label for row in labels for label in row))
  with _axes(f"{x_label}/{y_label}/{labels}", (5.6, 2.4)) as axes:
    from matplotlib.patches import Rectangle

    for y, row in enumerate(labels):
      for x, label in enumerate(row):
        colour = _SERIES[order.index(label) % NUM_COLOURS]
        look = {"facecolor": colour, "edgecolor": _INK, "alpha": 0.35}
        axes.add_patch(Rectangle((x, y), 1, 1, linewidth=0.8, **look))
        if height * width <= _MOST_LABELS:
          at = (x + 0.5, y + 0.5)
          axes.annotate(label, at, ha="center", va="center", fontsize=8)
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=(), yticks=())
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.spines[:].set_visible(False)
    svg = _svg(axes)
  return _themed(svg, f"parts of {y_label} by {x_label}")


@contextlib.contextmanager
def _axes(salt: str, size: tuple[float, float]) -> Iterator[Any]:
  """Axes in the style of the page.

  Args:
    salt: by the data too: ids must differ between the figures of a page.
    size: width and height in inches.
  """
  import matplotlib
  from matplotlib.backends.backend_svg import FigureCanvasSVG
  from matplotlib.figure import Figure

  style = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "svg.hashsalt": salt,
    "font.size": 9.5,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _GRID,
    "xtick.color": _INK,
    "ytick.color": _INK,
  }
  with matplotlib.rc_context(style):
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasSVG(figure)
    yield figure.add_subplot()


def _svg(axes: Any) -> str:
  out = io.StringIO()
  axes.figure.savefig(
    out, format="svg", transparent=True, metadata={"Date": None}
  )
  return out.getvalue()


def smooth(y: Sequence[int | float], width: int) -> np.ndarray:
  """A running mean over `width` values around each, fewer at the ends."""
  values = np.asarray(y, float)
  if not len(values):
    return values
  there = np.isfinite(values)
  kernel = np.ones(max(1, min(width, len(values))))
  total = np.convolve(np.where(there, values, 0), kernel, "same")
  count = np.convolve(there.astype(float), kernel, "same")
  with np.errstate(invalid="ignore", divide="ignore"):
    return np.where(count > 0, total / count, np.nan)


def _short(value: float, place: int | None = None) -> str:
  """A number on a logarithmic axis: 0.5, 20, 5k, 1M."""
  del place
  for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
    if abs(value) >= size:
      return f"{value / size:g}{unit}"
  return f"{value:g}"


def _style(curve: Line) -> str:
  if curve.point:
    return ""
  return "--" if curve.dashed else "-"


def _subs(curves: Sequence[Line], axis: str) -> tuple[float, ...]:
  """Ticks of a decade: more of them where the curves span little."""
  values = np.concatenate([np.asarray(getattr(c, axis), float) for c in curves])
  values = values[np.isfinite(values) & (values > 0)]
  if not len(values) or values.max() / values.min() > 1000:
    return (1.0,)
  return (1.0, 2.0, 5.0)


def _themed(svg: str, title: str) -> str:
  """The `<svg>` element alone, its colours turned into CSS variables."""
  svg = svg[svg.index("<svg") :]
  svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
  svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # the same in every figure
  svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", svg)
  svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
  svg = svg.replace(_INK, "var(--ink)").replace(_GRID, "var(--grid)")
  for index, colour in enumerate(_SERIES):
    svg = svg.replace(colour, f"var(--c{index})")
  head = f'<svg role="img" aria-label="{title.replace(chr(34), "")}"'
  return svg.replace("<svg", head, 1)
