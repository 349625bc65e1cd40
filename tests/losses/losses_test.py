# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""The package as a whole: light to import, its examples true."""

import doctest
import importlib
import inspect
import json
import pkgutil
import subprocess
import sys

import pytest

from jdistill import losses

MODULES = [m.name for m in pkgutil.iter_modules(losses.__path__)]
PUBLIC = inspect.getmembers(losses, callable)

IMPORT = """
import json, sys, time
import jax, jaxtyping
before = set(sys.modules)
start = time.process_time()
from jdistill import losses
seconds = time.process_time() - start
new = {m.partition(".")[0] for m in set(sys.modules) - before}
from jax._src import xla_bridge
print(json.dumps({
  "seconds": seconds,
  "foreign": sorted(new - set(sys.stdlib_module_names) - {"jdistill"}),
  "of jdistill": sorted(
    {m.split(".")[1] for m in sys.modules if m.startswith("jdistill.")}
  ),
  "backends": xla_bridge.backends_are_initialized(),
}))
"""


def test_import_needs_jax_alone_and_touches_no_device():
  out = subprocess.run(
    [sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True
  )
  found = json.loads(out.stdout)
  assert found["foreign"] == []
  assert found["of jdistill"] == ["losses", "types"]
  assert not found["backends"]
  assert found["seconds"] < 1  # of the CPU, beyond jax's own


@pytest.mark.parametrize("module", MODULES)
def test_examples(module):
  module = importlib.import_module(f"jdistill.losses.{module}")
  finder = doctest.DocTestFinder()
  runner = doctest.DocTestRunner()
  for test in finder.find(module):
    runner.run(test)
  assert runner.summarize(verbose=False).failed == 0


@pytest.mark.parametrize(
  "fn", [fn for _, fn in PUBLIC], ids=[name for name, _ in PUBLIC]
)
def test_public_functions_say_what_they_are(fn):
  doc = inspect.getdoc(fn)
  for part in ("Args:\n", "Returns: ", "References: ", "Example:\n", ">>> "):
    assert part in doc, part
  args = doc.partition("Args:\n")[2].partition("Returns: ")[0]
  for name in inspect.signature(fn).parameters:
    assert name in args, name


def test_there_are_public_functions():
  assert len(PUBLIC) > 40
