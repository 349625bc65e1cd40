# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""The look of a report: one HTML page that needs nothing from elsewhere."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

_STYLE = """
:root { color-scheme: light dark; --paper: #fbfbfa; --card: #fff;
  --ink: #24292f; --quiet: #667; --grid: #dfe2e6; --heat: 214 72 20;
  --c0: #2563eb; --c1: #d9480f; --c2: #0b8457; --c3: #8b3fc7; --c4: #b58900;
  --c5: #c2255c; --c6: #0c8599; --c7: #5c6670; }
@media (prefers-color-scheme: dark) { :root { --paper: #15181c;
  --card: #1d2126; --ink: #dde3ea; --quiet: #96a0ac; --grid: #343a42;
  --heat: 255 112 48; --c0: #6ea8fe; --c1: #ff9455; --c2: #4fd1a1;
  --c3: #c792ea; --c4: #e6c34a; --c5: #ff7fa8; --c6: #5fd3e6;
  --c7: #a9b4c0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1.5rem 1rem 4rem;
  background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .3rem; }
h2 { font-size: 1.15rem; margin: 2.4rem 0 .3rem; }
h3 { font-size: .95rem; margin: 0 0 .2rem; }
p { margin: .3rem 0 .7rem; } .quiet, figcaption { color: var(--quiet);
  font-size: .87rem; }
.card { background: var(--card); border: 1px solid var(--grid);
  border-radius: 10px; padding: .9rem 1rem; margin: .7rem 0; min-width: 0; }
.grid { display: grid; gap: .8rem; grid-template-columns:
  repeat(auto-fit, minmax(min(100%, 25rem), 1fr)); }
.grid.narrow { margin: .7rem 0; grid-template-columns:
  repeat(auto-fit, minmax(min(100%, 17rem), 1fr)); }
.grid > .card, figure { margin: 0; }
.facts { display: grid; grid-template-columns: max-content 1fr;
  gap: .15rem 1rem;
  margin: 0; } .facts dt { color: var(--quiet); } .facts dd { margin: 0;
  overflow-wrap: anywhere; min-width: 0; }
@media (max-width: 34rem) { .facts { grid-template-columns: 1fr; gap: 0; }
  .facts dd { margin-bottom: .4rem; } }
.tiles { display: grid; gap: .8rem; margin: 1rem 0;
  grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); }
.tile { background: var(--card); border: 1px solid var(--grid);
  border-radius: 10px; padding: .6rem .9rem; }
.tile b { display: block; font-size: 1.45rem; line-height: 1.3;
  font-variant-numeric: tabular-nums; }
.tile span { color: var(--quiet); font-size: .85rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%;
  font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .7rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--grid); }
th { white-space: normal; font-weight: 600; font-size: .85rem;
  color: var(--quiet); }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
td .wrap { display: block; white-space: normal; text-align: left;
  min-width: 22rem; }
tr:last-child td { border-bottom: 0; } tr.strong td { font-weight: 600; }
tr.group td { border: 0; padding-top: .8rem; color: var(--quiet);
  font-size: .85rem; }
svg { width: 100%; height: auto; display: block; }
code, pre, .heat { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas,
  monospace; font-size: .85rem; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; }
.heat { font-size: .76rem; line-height: 1.75; white-space: pre-wrap;
  overflow-wrap: anywhere;
  max-height: 32rem; overflow-y: auto; }
.heat span { border-radius: 3px; padding: .1em 0;
  background: rgb(var(--heat) / var(--a)); }
.heat hr { border: 0; border-top: 1px dashed var(--quiet); margin: .4rem 0; }
.scale { display: flex; align-items: center; gap: .6rem; }
.scale i { flex: 0 1 14rem; height: .8rem; border-radius: 4px; background:
  linear-gradient(90deg, rgb(var(--heat) / 0), rgb(var(--heat) / .75)); }
.dot { display: inline-block; width: .7em; height: .7em; border-radius: 50%;
  margin-right: .45em; }
details summary { cursor: pointer; color: var(--quiet); }
.text { white-space: pre-wrap; overflow-wrap: anywhere; font-size: .92rem; }
.text em { color: var(--quiet); }
"""


def page(title: str, body: Sequence[str]) -> str:
  """A whole document."""
  return (
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    f"<title>{text(title)}</title>\n<style>{_STYLE}</style></head>\n<body>\n"
    + "\n".join(body)
    + "\n</body></html>\n"
  )


def text(value: Any) -> str:
  """Text that is safe between tags and in attributes."""
  return html.escape(str(value))


def header(title: str, subtitle: str) -> str:
  return f'<h1>{text(title)}</h1><p class="quiet">{text(subtitle)}</p>'


def section(title: str, note: str = "") -> str:
  said = f'<p class="quiet">{text(note)}</p>' if note else ""
  return f"<h2>{text(title)}</h2>{said}"


def facts(pairs: Mapping[str, str]) -> str:
  """Names and values; values are HTML already."""
  inside = "".join(f"<dt>{text(k)}</dt><dd>{v}</dd>" for k, v in pairs.items())
  return f'<div class="card"><dl class="facts">{inside}</dl></div>'


def tiles(pairs: Sequence[tuple[str, str]]) -> str:
  """Big numbers with what they are below."""
  inside = "".join(
    f'<div class="tile"><b>{text(value)}</b><span>{text(label)}</span></div>'
    for label, value in pairs
  )
  return f'<div class="tiles">{inside}</div>'


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
  """A table.

  Args:
    columns: their names.
    rows: cells, text or `(HTML,)`. A row of one cell is the heading of a group;
      `*` before the first cell's text marks a row to notice.
  """
  head = "".join(f"<th>{text(column)}</th>" for column in columns)
  body = []
  for row in rows:
    if len(row) == 1:
      body.append(
        f'<tr class="group"><td colspan="{len(columns)}">{text(row[0])}</td>'
        "</tr>"
      )
      continue
    first = row[0]
    strong = isinstance(first, str) and first.startswith("*")
    cells = [first[1:], *row[1:]] if strong else row
    inside = "".join(
      f"<td>{c[0] if isinstance(c, tuple) else text(c)}</td>" for c in cells
    )
    body.append(f"<tr{' class=strong' if strong else ''}>{inside}</tr>")
  return (
    f'<div class="card scroll"><table><thead><tr>{head}</tr></thead><tbody>'
    f"{''.join(body)}</tbody></table></div>"
  )


def figure(title: str, svg: str, note: str = "") -> str:
  """A plot with its title."""
  said = f"<figcaption>{text(note)}</figcaption>" if note else ""
  return f'<figure class="card"><h3>{text(title)}</h3>{svg}{said}</figure>'


def grid(items: Sequence[str], *, narrow: bool = False) -> str:
  """Cards beside each other where there is room; narrow ones need less."""
  name = "grid narrow" if narrow else "grid"
  return f'<div class="{name}">{"".join(items)}</div>'


def card(title: str, inside: str) -> str:
  """A card with HTML inside."""
  return f'<div class="card"><h3>{text(title)}</h3>{inside}</div>'


def dot(colour: int) -> str:
  """The mark of a series in the plots."""
  return f'<i class="dot" style="background:var(--c{colour})"></i>'


def heat(
  tokens: Sequence[str], values: Sequence[int | float | None], full: int | float
) -> str:
  """A text whose tokens' backgrounds say how large a value of theirs is.

  Args:
    tokens: the text, in pieces.
    values: for each piece, None where it has none; a piece without a value
      begins a document.
    full: the value of the strongest background; the shade follows its root.
  """
  out = []
  for number, (token, value) in enumerate(zip(tokens, values, strict=True)):
    if value is None:
      out.append(("<hr>" if number else "") + text(token))
      continue
    alpha = 0.75 * min(max(value, 0.0) / full, 1.0) ** 0.5
    out.append(
      f'<span style="--a:{alpha:.2f}" title="{value:.2f} nats">{text(token)}'
      "</span>"
    )
  return f'<div class="heat">{"".join(out)}</div>'


def heat_scale(full: float) -> str:
  """What the backgrounds of `heat` mean."""
  return (
    f'<div class="scale quiet">0<i></i>{full:.1f} nats or more (shade follows '
    "the square root)</div>"
  )
