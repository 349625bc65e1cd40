# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""The package as a whole: light to import, its examples true."""

import doctest
import importlib
import inspect
import pkgutil
import subprocess
import sys

import pytest

from jdistill import losses

MODULES = [m.name for m in pkgutil.iter_modules(losses.__path__)]

IMPORT = """
import sys
from jdistill import losses
heavy = "chex flax grain numpyro optax orbax tensorflow torch transformers tyro"
print(sorted(m for m in heavy.split() if m in sys.modules))
from jax._src import xla_bridge
print(xla_bridge.backends_are_initialized())
"""


def test_import_is_light_and_touches_no_device():
  out = subprocess.run(
    [sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True
  )
  assert out.stdout.split("\n")[:2] == ["[]", "False"]


@pytest.mark.parametrize("module", MODULES)
def test_examples(module):
  module = importlib.import_module(f"jdistill.losses.{module}")
  finder = doctest.DocTestFinder()
  runner = doctest.DocTestRunner()
  for test in finder.find(module):
    runner.run(test)
  assert runner.summarize(verbose=False).failed == 0


def test_public_divergences_show_an_example():
  public = [f for _, f in inspect.getmembers(losses, callable)]
  own = [
    f for f in public if inspect.getmodule(f).__name__ != "jdistill.losses.walk"
  ]
  assert len(own) > 20
  for fn in own:
    assert ">>> " in inspect.getdoc(fn), fn
