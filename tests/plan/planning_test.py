# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Plans of a nano pair, and what is said where there is nothing to plan with.

Tests of the TPU compiler need libtpu, which `pip install 'jax[tpu]'` brings.
"""

import dataclasses
import importlib.util
import json
import pathlib
import subprocess
import sys

import pytest

from jdistill import cli, config, data, rollout, sampling, types
from jdistill import plan as plan_lib
from jdistill.models.base import num_params
from jdistill.plan import planning, remedies

needs_libtpu = pytest.mark.skipif(
  importlib.util.find_spec("libtpu") is None, reason="needs libtpu"
)
CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
NANO = pathlib.Path(__file__).with_name("nano.py")


def nano(*flags: str) -> config.Config:
  mesh = ["--mesh.fsdp", "2", "--mesh.tensor", "2"]
  return config.load(NANO, [*mesh, *flags])


def student_size() -> int:
  return num_params(nano().student.architecture.shapes())


@needs_libtpu
def test_a_plan_of_four_chips():
  made = plan_lib.plan(nano(), plan_lib.parse("v5e:2x2"))
  assert made.fits
  assert made.faults == ()
  assert made.tokens == 256 * 8
  # Float32, with two moments, on four chips.
  assert made.memory.arguments > 12 * student_size() / 4
  head = 2 * 256 * 8 * 16_384
  trunk = made.flops.student - 3 * head * 128
  assert 0 < trunk < made.flops.student
  assert made.flops.program >= 0.95 * made.flops.model
  assert made.step_s == max(made.seconds.values()) > 0
  assert 0 < made.mfu < 1
  # Devices that share the rows sum gradients, whichever way it is done.
  kinds = {sent.kind for sent in made.sent}
  assert kinds & {"all-reduce", "reduce-scatter", "collective-permute"}
  written = json.loads(json.dumps(made.to_json()))
  assert written["fits"] is True
  assert written["hours"] == pytest.approx(made.step_s * 1000 / 3600)
  lines = list(plan_lib.lines(made))
  assert "fits" in lines[0]
  assert not any("FAULT" in line for line in lines)


def on_policy() -> config.Config:
  made = nano()
  of = data.TextData(seq_len=256, packing="pad")
  return dataclasses.replace(
    made,
    data=data.Prompts(of, prompt_tokens=64, batch_size=8),
    rollout=rollout.Student(sampling.Sampling(max_new_tokens=128)),
    rollout_rules={"embed": None},
  )


@needs_libtpu
@pytest.mark.slow
def test_a_plan_of_a_run_that_writes():
  made = plan_lib.plan(on_policy(), plan_lib.parse("v5e:2x2"))
  writing = made.writing
  assert writing.tokens == 8 * 128
  # What is divided along `tensor` is summed for every token but the first.
  assert max(sent.times for sent in writing.sent) >= 127
  assert writing.seconds["hbm"] > 0
  assert made.step_s > writing.step_s
  assert made.peak >= writing.memory.peak
  assert json.loads(json.dumps(made.to_json()))["writing"]["step_s"] > 0
  assert any("are written" in line for line in plan_lib.lines(made))


def test_gpus_of_a_run_that_writes():
  made = planning.lower(on_policy(), plan_lib.parse("gpu:4"))
  assert made.mesh["fsdp"] == 2


@needs_libtpu
@pytest.mark.slow
def test_a_plan_of_layers_that_wait_on_the_host():
  """They are no arguments of the device, and nothing is computed there."""
  flags = ["--teachers.teacher.place", "host"]
  near, far = (
    plan_lib.plan(nano(*f), plan_lib.parse("v5e:2x2")) for f in ([], flags)
  )
  teacher = nano().teachers["teacher"].architecture.shapes()
  layers = 2 * num_params(teacher["segment_0"]) // 4
  gone = near.memory.arguments - far.memory.arguments
  assert gone >= 0.9 * layers


def test_a_plan_of_gpus_goes_as_far_as_lowering(tmp_path):
  path = tmp_path / "plan.json"
  words = f"plan {NANO} --topology gpu:4 --json {path}"
  assert cli.main([*words.split(), "--mesh.fsdp", "4"]) == 0
  made = json.loads(path.read_text())
  assert made["mesh"]["fsdp"] == 4
  begin = nano()
  teacher = begin.teachers["teacher"].architecture
  whole = 12 * student_size() + 2 * num_params(teacher.shapes())
  assert whole / 4 <= made["arguments"] < whole / 4 * 1.01
  assert made["flops"]["program"] >= 0.95 * made["flops"]["model"] > 0


def test_without_libtpu_one_line_says_how_to_get_it(monkeypatch, capsys):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  path = str(CONFIGS / "llama_1b_to_03b.py")
  assert cli.main(["plan", path, "--topology", "v5e:2x2"]) == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert "pip install 'jax[tpu]'" in line


MESSAGES = [
  (
    "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required "
    "for HLO temporaries (100.28G) exceeds available HBM (15.75G).",
    100.28,
    (),
  ),
  (
    "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory "
    "in memory space hbm. Used 133.8G of 15.75G hbm. Exceeded hbm capacity by "
    "118G.\n  1. Size: 8.00G\n     Operator: "
    'op_name="jit(step)/dot"\n     Shape: f32[4,8]{1,0}\n',
    133.8,
    ("8.00G  f32[4,8]  jit(step)/dot",),
  ),
]


@pytest.mark.parametrize(("message", "used", "largest"), MESSAGES)
def test_what_the_compiler_says_of_too_large_a_step(message, used, largest):
  error = planning._overflow(message)
  assert isinstance(error, planning.TooLarge)
  assert error.used == pytest.approx(used * 2**30)
  assert error.limit == pytest.approx(15.75 * 2**30)
  assert error.largest == largest
  topology = plan_lib.parse("v5e:4x4")
  assert "DOES NOT FIT" in next(iter(plan_lib.overflow(topology, error)))


def test_other_errors_of_the_compiler_keep_their_text():
  error = planning._overflow("INTERNAL: Mosaic failed\nmore")
  assert isinstance(error, types.UserError)
  assert "Mosaic failed" in str(error)


def test_changes_are_flags_that_the_config_takes():
  begin = nano("--mesh.data", "4")
  found = list(remedies.changes(begin, plan_lib.parse("v5e:4x4")))
  flags = [flag for flag, _ in found]
  assert flags == [
    "--mesh.data 1 --mesh.fsdp -1",
    "--optimizer.moments bfloat16",
    "--microbatches 2",
    "--microbatches 4",
    "--remat full",
    "--teachers.teacher.weights int8",
    "--mesh.data 1 --mesh.fsdp -1 --mesh.tensor 4",
  ]
  for flag, change in found:
    assert change(begin) == config.override(begin, flag.split())


def test_a_search_stops_where_one_change_is_enough(monkeypatch):
  """The first changes that fit alone are told; nothing is combined then."""
  asked = []

  def measured(changed, topology, beside=None):
    del beside
    asked.append(changed)
    if changed.remat == "full":
      return dataclasses.replace(_PLAN, topology=topology)
    raise planning.TooLarge(2e10, 1e10, ())

  monkeypatch.setattr(planning, "plan", measured)
  tries = plan_lib.search(nano(), plan_lib.parse("v5e:4x4"))
  good = [flags for flags, made in tries if remedies.fits(made)]
  assert good == [("--remat full",)]
  assert all(len(flags) == 1 for flags, _ in tries)
  assert len(asked) == len(tries)


_PLAN = planning.Plan(
  topology=plan_lib.parse("v5e:4x4"),
  mesh={"data": 1},
  tokens=1,
  steps=1,
  memory=planning.Memory(1, 1, 1, 1),
  largest=(),
  flops=planning.Flops(1.0, 1.0, 1.0),
  sent=(),
  seconds={"compute": 1.0},
  faults=(),
  compile_s=1.0,
)


PODS = [
  ("llama_1b_to_03b", "v5e:2x2"),
  ("llama_8b_to_1b", "v5e:4x4"),
  ("llama_70b_to_8b", "v5p:4x8x8"),
]


@needs_libtpu
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("name", "topology"), PODS)
def test_pods(name, topology, tmp_path):
  """Each on its own, as somebody at a laptop runs it."""
  path = tmp_path / "plan.json"
  words = f"plan {CONFIGS / name}.py --topology {topology} --json {path}"
  done = subprocess.run(
    [sys.executable, "-m", "jdistill.cli", *words.split()],
    stdout=subprocess.PIPE,
    text=True,
  )
  assert done.returncode == 0, done.stdout
  made = json.loads(path.read_text())
  assert made["fits"]
  assert made["faults"] == []
