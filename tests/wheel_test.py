# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""The wheel, built and installed where there is nothing else, works."""

import json
import math
import os
import pathlib
import subprocess
import sys
import zipfile

import pytest

import jdistill

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
ROOT = pathlib.Path(__file__).parents[1]
FEW = ("--steps", "2", "--data.num-documents", "64")


def run(*command, cwd):
  """What a command prints, in an environment that knows no repository."""
  hidden = ("PYTHONPATH", "VIRTUAL_ENV", "XLA_FLAGS")
  env = {k: v for k, v in os.environ.items() if k not in hidden}
  done = subprocess.run(
    list(map(str, command)),
    cwd=cwd,
    env=env | {"JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stdout + done.stderr
  return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> pathlib.Path:
  out = tmp_path_factory.mktemp("dist")
  pip = [sys.executable, "-m", "pip"]
  run(*pip, "wheel", "--quiet", "--no-deps", "-w", out, ROOT, cwd=out)
  [path] = out.glob("*.whl")
  return path


@pytest.fixture(scope="module")
def bin(wheel, tmp_path_factory) -> pathlib.Path:
  """The programs of a new environment with the wheel and what it needs."""
  where = tmp_path_factory.mktemp("venv") / "venv"
  run(sys.executable, "-m", "venv", where, cwd=where.parent)
  pip = where / "bin" / "pip"
  run(pip, "install", "--quiet", wheel, cwd=where.parent)
  return where / "bin"


def test_what_is_in_it(wheel):
  names = zipfile.ZipFile(wheel).namelist()
  assert wheel.name == f"jdistill-{jdistill.__version__}-py3-none-any.whl"
  tops = {name.partition("/")[0] for name in names}
  assert tops == {"jdistill", f"jdistill-{jdistill.__version__}.dist-info"}
  here = {p.name for p in (ROOT / "configs").glob("*.py")}
  there = {pathlib.Path(n).name for n in names if "jdistill/configs/" in n}
  assert here == there
  for path in (ROOT / "jdistill").rglob("*.py"):
    assert str(path.relative_to(ROOT)) in names
  assert any(name.endswith("licenses/LICENSE") for name in names)


def test_version(bin, tmp_path):
  said = run(bin / "jdistill", "--version", cwd=tmp_path)
  assert said.strip() == jdistill.__version__


def test_losses_alone(bin, tmp_path):
  code = """
import sys
import jax.numpy as jnp
from jdistill import losses

student, teacher = jnp.zeros((2, 4)), jnp.log(jnp.arange(1.0, 5.0))
print(float(losses.forward_kl(student, teacher + jnp.zeros((2, 4)))[0]))
assert not {"flax", "orbax", "grain", "transformers"} & set(sys.modules)
"""
  said = float(run(bin / "python", "-c", code, cwd=tmp_path))
  p = [0.1, 0.2, 0.3, 0.4]
  assert said == pytest.approx(sum(x * math.log(4 * x) for x in p), rel=1e-5)


@pytest.mark.parametrize("config", ["markov", "mine.py"])
def test_two_steps(bin, tmp_path, config):
  (tmp_path / "mine.py").write_text((ROOT / "configs/markov.py").read_text())
  run(bin / "jdistill", "train", config, *FEW, cwd=tmp_path)
  name = config.removesuffix(".py")
  result = json.loads((tmp_path / "runs" / name / "result.json").read_text())
  assert result["steps"] == 2
  assert (tmp_path / "runs" / name / "report.html").is_file()
