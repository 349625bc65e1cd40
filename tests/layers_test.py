# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Who may import whom, how long things may be, and what stays unread."""

import ast
import dataclasses
import pathlib
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / "jdistill"
FILES = sorted(PACKAGE.rglob("*.py"))
PYTHON = sorted(
  path
  for folder in ("jdistill", "configs", "docs", "launch", "tests")
  for path in (ROOT / folder).rglob("*.py")
)
NAMES = {path: str(path.relative_to(ROOT)) for path in PYTHON}
BANNED = {"utils", "helpers", "misc", "common", "manager"}

# Each row: the parts of one layer, and what they may import beside their own
# row's `own` parts. "all above" is every part of the rows before.
ABOVE = "all above"
LAYERS: list[tuple[tuple[str, ...], tuple[str, ...]]] = [
  (("types", "pointers", "own_configs", "near_names"), ()),
  (("config_types",), ("types",)),
  (("startup",), ()),
  (("signals",), ()),
  (("distributed", "profiling", "bad_steps"), ("types",)),
  (("paths", "workdir"), ("types",)),
  (("hlo",), ()),  # reads the text of compiled programs
  (("schedules",), ("types",)),
  (("served",), ("types",)),  # knows HTTP and no models
  (("losses",), ("types",)),
  (("gguf_file",), ("types", "pointers")),
  (
    ("refs", "tokenizers", "text_align"),
    ("types", "pointers", "gguf_file", "refs", "workdir"),
  ),
  (("models",), ("types", "paths", "pointers", "refs", "gguf_file")),
  (("methods",), ("types", "losses", "schedules")),
  (("surgery",), ("types", "losses", "models")),
  (("data",), ("types", "refs", "tokenizers", "text_align")),
  (("sharding", "metrics"), ("types", "paths")),
  (("digests",), ("types", "paths")),
  (("checkpoint",), ("types", "paths", "distributed", "digests")),
  (("optim",), ("types", "paths", "schedules")),
  (("sampling",), ("types", "models", "sharding")),
  (("cached",), (ABOVE,)),
  (("speaker",), ("types", "methods", "models")),
  (("balance",), ("types", "methods", "models", "paths", "speaker")),
  (("students",), ("models",)),
  (("rollout", "step"), (ABOVE,)),
  (("beds",), (ABOVE,)),
  (("audit",), ("types",)),  # configs name audits, evaluations feed them
  (("config", "config_json"), (ABOVE, "config", "config_json")),
  (("pretrained",), (ABOVE,)),
  (("apart",), (ABOVE,)),  # teachers on devices of their own
  (("run_models",), (ABOVE,)),
  (("run_rollout",), (ABOVE,)),
  (("run", "run_checks"), (ABOVE, "run", "run_checks")),
  (("placement",), (ABOVE,)),
  (("synth",), (ABOVE,)),
  (("heldout",), (ABOVE,)),
  (("describe",), (ABOVE,)),
  (("evaluate",), (ABOVE,)),
  (("completions",), (ABOVE,)),
  (("speculate",), (ABOVE,)),
  (("generate_command",), (ABOVE,)),
  (("harness", "harness_command"), (ABOVE, "harness", "harness_command")),
  (("ask_command",), (ABOVE,)),
  (("speculate_command",), (ABOVE,)),
  (("model_card",), (ABOVE,)),
  (("export",), (ABOVE,)),
  (("start",), (ABOVE,)),
  (("stages",), (ABOVE,)),
  (("train",), (ABOVE,)),
  (("cache_job",), (ABOVE,)),
  (("served_cache",), (ABOVE,)),
  (("cache_command",), (ABOVE,)),
  (("plan",), (ABOVE,)),
  (("report",), (ABOVE,)),
  (("commands",), (ABOVE,)),
  (("cli",), (ABOVE,)),
]
APART = ("synth", "audit", "beds")  # import each other never


def part_of(path: pathlib.Path) -> str:
  return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: pathlib.Path) -> set[str]:
  """Full names of what a file imports, inside functions too."""
  found = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f"{path}: relative import"
      found |= {f"{node.module}.{alias.name}" for alias in node.names}
  return found


def allowed() -> dict[str, set[str]]:
  table, above = {}, set()
  for parts, may in LAYERS:
    for part in parts:
      table[part] = {part} | {m for m in may if m != ABOVE}
      if ABOVE in may:
        table[part] |= above
      if part in APART:
        table[part] -= set(APART) - {part}
    above |= set(parts)
  return table


@pytest.mark.parametrize("path", FILES, ids=NAMES.get)
def test_imports_go_one_way(path):
  part = part_of(path)
  if part == "__init__":
    assert not imports(path)
    return
  table = allowed()
  assert part in table, f"{part} is in no layer: add it to the table"
  own = {
    name.split(".")[1]
    for name in imports(path)
    if name.startswith("jdistill.") and name != "jdistill.__version__"
  }
  assert own <= table[part], f"{part} may not import {own - table[part]}"


@pytest.mark.parametrize("path", FILES, ids=NAMES.get)
def test_the_package_never_imports_configs(path):
  names = {name.split(".")[0] for name in imports(path)}
  assert not names & {"configs", "tests"}


@pytest.mark.parametrize(
  "path", [p for p in FILES if part_of(p) == "data"], ids=NAMES.get
)
def test_data_does_not_need_jax(path):
  assert "jax" not in {name.split(".")[0] for name in imports(path)}


@pytest.mark.parametrize("path", PYTHON, ids=NAMES.get)
def test_sizes_and_names(path):
  assert path.stem not in BANNED
  text = path.read_text()
  assert text.startswith("# SPDX-FileCopyrightText:")
  assert len(text.splitlines()) <= 500
  for node in ast.walk(ast.parse(text)):
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
      assert node.end_lineno - node.lineno < 120, node.name


@pytest.mark.parametrize(
  "path", sorted((ROOT / "launch").glob("*.py")), ids=lambda p: p.name
)
def test_launch_needs_nothing_but_python(path):
  """It runs where nothing is installed, such as on a login node."""
  names = {name.split(".")[0] for name in imports(path)}
  assert names <= sys.stdlib_module_names


def test_sub_packages_list_their_names_in_order():
  for path in PACKAGE.glob("*/__init__.py"):
    names = [
      f"{node.module}.{node.names[0].name}"
      for node in ast.parse(path.read_text()).body
      if isinstance(node, ast.ImportFrom)
    ]
    modules = [name.rsplit(".", 1)[0] for name in names]
    assert modules == sorted(modules), path


def config_classes() -> list[type]:
  from jdistill import config_json

  return sorted(set(config_json._public().values()), key=lambda c: c.__name__)


def test_every_field_is_read():
  """By an attribute of its name, or by a loop over all fields."""
  read = set()
  for path in FILES:
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.Attribute):
        read.add(node.attr)
  unread = {
    f"{cls.__name__}.{field.name}"
    for cls in config_classes()
    for field in dataclasses.fields(cls)
    if field.name not in read
  }
  # The mesh is made of all its sizes at once.
  unread = {name for name in unread if not name.startswith("MeshShape.")}
  assert not unread


def python(*args: str) -> subprocess.CompletedProcess:
  return subprocess.run(
    [sys.executable, *args], capture_output=True, text=True, check=True
  )


def test_help_answers_at_once():
  """Half a second of its own, beside what starting Python takes."""

  def best(*args):
    seconds = []
    for _ in range(3):
      begin = time.perf_counter()
      python(*args)
      seconds.append(time.perf_counter() - begin)
    return min(seconds)

  own = best("-m", "jdistill.cli", "--help") - best("-c", "pass")
  assert own < 0.5


def test_help_imports_nothing_heavy():
  code = (
    "import sys; from jdistill import cli; cli.main(['--help']);"
    "print([m for m in ('jax', 'numpy', 'flax', 'tyro') if m in sys.modules])"
  )
  assert python("-c", code).stdout.splitlines()[-1] == "[]"


def test_losses_come_alone():
  code = (
    "import sys; from jdistill import losses;"
    "heavy = ('flax', 'orbax', 'grain', 'transformers', 'optax', 'tyro');"
    "print([m for m in heavy if m in sys.modules])"
  )
  assert python("-c", code).stdout.strip() == "[]"
