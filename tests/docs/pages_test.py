# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""What the pages say is so: messages, commands, pictures, generated pages."""

import ast
import dataclasses
import importlib
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from jdistill import cli, config

ROOT = pathlib.Path(__file__).parents[2]
DOCS = ROOT / "docs"
for folder in ("plots", "generate", "results"):
  sys.path.insert(0, str(DOCS / folder))

import docstrings
import fits
import jax
import method_pages
import notebook_pages
import source

README = ROOT / "README.md"
PAGES = [README, *sorted(DOCS.rglob("*.md"))]
FOREIGN = {"RESOURCE_EXHAUSTED: Out of memory"}
"""Messages that are quoted and not jdistill's."""


def said(node: ast.AST) -> str:
  """A string of the source, with … for what is filled in."""
  if isinstance(node, ast.Constant):
    return node.value if isinstance(node.value, str) else ""
  if isinstance(node, ast.JoinedStr):
    return "".join(said(value) or "…" for value in node.values)
  return ""


def test_messages_that_are_explained_are_those_of_the_source():
  strings = {
    re.sub("…+", "…", said(node))
    for path in (ROOT / "jdistill").rglob("*.py")
    for node in ast.walk(source.tree(path))
  }
  text = (DOCS / "troubleshooting.md").read_text()
  quoted = re.findall(r"^### `(.+)`$", text, re.M)
  assert len(quoted) > 30
  for message in set(quoted) - FOREIGN:
    parts = [part for part in message.split("…") if part]
    assert any(_in_order(parts, string) for string in strings), message


def _in_order(parts: list[str], string: str) -> bool:
  at = 0
  for part in parts:
    at = string.find(part, at)
    if at < 0:
      return False
    at += len(part)
  return True


def commands() -> list[str]:
  """Lines of `jdistill` with a config of the repository."""
  found = {}
  for page in PAGES:
    if page.name in ("results.md", "launch.md"):
      continue  # tested with their experiments, and with launch/
    for block in re.findall(
      r"^ *```sh\n(.*?)^ *```", page.read_text(), re.M | re.S
    ):
      for line in block.splitlines():
        words = line.split("#")[0].strip()
        if re.match(r"jdistill train configs/\w+\.py ", words):
          found[words] = None
        elif words.startswith("jdistill "):
          assert words.split()[1] in cli.COMMANDS, words
        for name in re.findall(r"\bconfigs/\w+\.py", words):
          assert (ROOT / name).is_file(), words
  return list(found)


@pytest.mark.parametrize("command", commands())
def test_flags_of_commands_are_there(command):
  words = shlex.split(command)[2:]
  if words[1] == "--fields":
    return
  for own in ("--workdir", "--resume", "--profile", "--coordinator"):
    if own in words:
      at = words.index(own)
      del words[at : at + 2]
  config.load(ROOT / words[0], [w for w in words[1:] if w != "--distributed"])


MODULES = {
  name: importlib.import_module(f"jdistill.{name}")
  for name in (
    "audit", "beds", "config", "data", "losses", "methods", "models", "optim",
    "rollout", "sampling", "schedules", "sharding", "types",
  )
}  # fmt: skip
NAME = re.compile(rf"\b({'|'.join(MODULES)})\.([A-Za-z]\w+)")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_names_in_code_are_there(page):
  text = page.read_text()
  for code in re.findall(r"^ *```python\n(.*?)^ *```", text, re.M | re.S):
    # An ellipsis among arguments stands for others.
    code = re.sub(r"^ *\.\.\.$", "**others", code, flags=re.M)
    tree = ast.parse(textwrap.dedent(code))
    for call in ast.walk(tree):
      if isinstance(call, ast.Call) and (cls := _class(call.func)):
        known = {field.name for field in dataclasses.fields(cls)}
        assert {k.arg for k in call.keywords} <= {None, *known}, ast.unparse(
          call
        )
  prose = re.sub(r"^ *```.*?^ *```", "", text, flags=re.M | re.S)
  for module, name in NAME.findall(" ".join(re.findall(r"`[^`]+`", prose))):
    if module == "losses" or name[0].isupper():
      assert hasattr(MODULES[module], name), f"{module}.{name}"


def _class(node: ast.AST) -> type | None:
  """The dataclass that `module.Class` in a page's code means."""
  found = NAME.fullmatch(ast.unparse(node))
  cls = getattr(MODULES[found[1]], found[2], None) if found else None
  return cls if dataclasses.is_dataclass(cls) else None


@pytest.mark.slow
def test_one_hump_fitted_by_forward_kl_has_the_moments_of_two():
  """Gaussians are an exponential family, whose moments forward KL matches."""
  (best,) = fits.fits(fits.CHOICES["forward KL"])
  probs = np.asarray(jax.nn.softmax(fits.teacher()), np.float64)
  np.testing.assert_allclose(
    (best.mean, best.std), fits.moments(probs), atol=2e-3
  )
  row = f"| forward KL | {best.mean:.2f} | {best.std:.2f} | {best.left:.0%} | |"
  assert row in (DOCS / "divergences.md").read_text()


def test_reverse_kl_takes_one_hump():
  best, *others = fits.fits(fits.CHOICES["reverse KL"])
  _, mean, std = fits.HUMPS[0]
  np.testing.assert_allclose((best.mean, best.std), (mean, std), atol=0.02)
  assert len(others) == 2


def test_pictures_are_there_for_both_themes():
  text = (DOCS / "divergences.md").read_text()
  for name in re.findall(r"images/([\w-]+)\.svg#gh-light-mode-only", text):
    for theme in ("light", "dark"):
      file = DOCS / "images" / f"{name.removesuffix('light')}{theme}.svg"
      assert file.is_file()
      assert f"images/{file.name}#gh-{theme}-mode-only" in text


@pytest.mark.parametrize("name", method_pages.classes())
def test_methods_have_pages_of_their_files(name):
  assert f"[`{name}`]({name}.md)" in method_pages.pages()["methods/index.md"]
  page = method_pages.pages()[f"methods/{name}.md"]
  assert page.startswith(f"# {name}\n")
  for experiment in method_pages._experiments(name):
    assert experiment.claim in page
  cls = method_pages.classes()[name]
  for field in dataclasses.fields(cls):
    assert f"`{field.name}`" in page, field.name


def test_notebooks_have_pages():
  assert notebook_pages.NOTEBOOKS
  for path in notebook_pages.NOTEBOOKS:
    page = notebook_pages.pages()[f"notebooks/{path.stem}.md"]
    assert page.startswith("# ")
    assert "colab-badge" not in page
    for cell in json.loads(path.read_text())["cells"][1:]:
      assert "".join(cell["source"]).strip() in page


def test_docstrings_become_markdown():
  text = (
    "Sum of a*b*c, [*B, V] to [*B].\n\n"
    "    x = a*b\n\n"
    "Args:\n  a: [*B, V] of one\n    long line.\n"
    "Returns: [*B], unreduced.\n"
    "References: Hinton, arXiv:1503.02531.\n"
    "Example:\n  >>> print(2 * 3)\n  6"
  )
  assert docstrings.markdown(text) == (
    "Sum of a\\*b\\*c, `[*B, V]` to `[*B]`.\n\n"
    "    x = a*b\n\n"
    "**Args**\n\n- `a`: `[*B, V]` of one long line.\n\n"
    "**Returns** `[*B]`, unreduced.\n\n"
    "**References** Hinton, "
    "[arXiv:1503.02531](https://arxiv.org/abs/1503.02531).\n\n"
    "**Example**\n\n```pycon\n>>> print(2 * 3)\n6\n```"
  )


def test_links_of_the_readme_lead_somewhere():
  """Those of the pages are followed as the site is built."""
  links = re.findall(r"\]\(([^)#]+)(?:#([^)]+))?\)", README.read_text())
  assert len(links) > 20
  for path, anchor in links:
    assert (ROOT / path).exists(), path
    titles = re.findall(r"^#+ (.+)$", (ROOT / path).read_text(), re.M)
    anchors = {
      re.sub(r"[^\w -]", "", t.lower()).replace(" ", "-") for t in titles
    }
    assert not anchor or anchor in anchors, f"{path}#{anchor}"


def test_losses_of_the_readme_say_what_it_shows(capsys):
  (code,) = re.findall(
    r"```python\n((?:(?!```).)*import losses\n.*?)```", README.read_text(), re.S
  )
  exec(code)
  assert f"# {capsys.readouterr().out.strip()} nats\n" in code


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path):
  """Links to pages and anchors that are not there are warnings."""
  pytest.importorskip("mkdocs")
  out = subprocess.run(
    [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(tmp_path)],
    cwd=ROOT,
    env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    capture_output=True,
    text=True,
    check=False,
  )
  assert out.returncode == 0, out.stderr
  assert "WARNING" not in out.stderr
  html = (tmp_path / "reference" / "losses" / "index.html").read_text()
  assert "jdistill.losses.divergences.forward_kl" in html
  assert not re.search(r'(src|href)="https?://[^"]*\.(js|css|woff2?)"', html)
