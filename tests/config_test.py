# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Every config loads, survives JSON, and describes a step that traces."""

import dataclasses
import json
import pathlib

import jax
import pytest

from jdistill import (
  config,
  config_json,
  data,
  methods,
  optim,
  placement,
  refs,
  run,
  stages,
  types,
)
from jdistill import schedules as schedules_lib

CONFIGS = sorted((pathlib.Path(__file__).parents[1] / "configs").glob("*.py"))


@pytest.fixture(params=CONFIGS, ids=lambda p: p.stem)
def loaded(request) -> config.Config | config.Stages:
  return config.load(request.param)


def test_json_gives_the_same_config(loaded):
  tree = json.loads(json.dumps(config_json.encode(loaded)))
  try:
    again = config_json.decode(tree)
  except types.UserError as error:
    assert "class of your own" in str(error)  # noqa: PT017
    return
  assert again == loaded


def test_a_full_step_traces(loaded):
  if isinstance(loaded, config.Config):
    trace(standing_alone(loaded))
    return
  alone = {k: standing_alone(one) for k, one in loaded.stages.items()}
  loaded = config.Stages(alone)
  for name, one in alone.items():
    trace(one, stages.students(loaded, name))


def trace(loaded, beside=None):
  """The full step of one stage, from the shapes of its models."""
  if not hasattr(loaded.data, "seq_len"):
    pytest.skip("its teacher is a run of another config")
  try:
    models = run.find_models(loaded, beside=beside)
  except refs.Unreachable as error:
    pytest.skip(str(error))
  batch = placement.batch_shapes(loaded.data, loaded.group_size)
  built = run.build(loaded, models, batch, devices=jax.devices()[:1])
  teachers = {
    name: found.architecture.shapes() for name, found in models.teachers.items()
  }
  student = built.state_shapes.params["student"]
  with jax.set_mesh(built.mesh):
    if built.write is not None:
      kept, step = built.state_shapes.extra["rollout"], built.state_shapes.step
      given = student, kept, step, teachers, batch
      written, after, _ = jax.eval_shape(built.write, *given)
      assert shapes_of(written) == shapes_of(built.written_shapes)
      assert jax.tree.structure(after) == jax.tree.structure(kept)
    state, metrics = jax.eval_shape(
      built.train_step, built.state_shapes, teachers, built.batch_shapes
    )
  assert jax.tree.structure(state) == jax.tree.structure(built.state_shapes)
  assert metrics["loss"].sum.shape == ()


def shapes_of(batch):
  """Shapes and dtypes, wherever the arrays lie."""
  arrays, structure = jax.tree.flatten(batch)
  return structure, [(array.shape, array.dtype) for array in arrays]


def standing_alone(loaded):
  """The config with models of the same shapes for those of other runs."""

  def drawn(ref):
    other = config.load(CONFIGS[0].parent / f"{ref[5:].split('@')[0]}.py")
    try:
      return run.find_models(other).student
    except refs.Unreachable as error:
      pytest.skip(str(error))

  def is_run(spec):
    return (getattr(spec, "ref", None) or "").startswith("runs/")

  student, teachers = loaded.student, dict(loaded.teachers)
  if is_run(student):
    student = config.Fresh(drawn(student.ref))
  for name, teacher in teachers.items():
    if is_run(teacher):
      teachers[name] = config.Teacher(architecture=drawn(teacher.ref))
  return dataclasses.replace(loaded, student=student, teachers=teachers)


def tiny() -> config.Config:
  return config.Config(
    student=config.Cut((0, 2)),
    teachers={"teacher": config.Teacher("here")},
    method=methods.Sum(
      {
        "kd": methods.Part(
          methods.KD(), schedules_lib.Linear(start=1.0, end=0.5, steps=4)
        ),
        "ce": methods.Part(methods.CrossEntropy(), 0.1),
      }
    ),
    data=data.TextData(),
    steps=3,
  )


def test_flags_reach_every_depth():
  flags = (
    "--steps 7 --student.layers 0 1 --method.parts.kd.method.tau 2.0 "
    "--method.parts.kd.weight.end 0.25 --method.parts.ce.weight 0.2 "
    "--teachers.teacher.ref there --optimizer.lr 0.01 --data.seq-len 64 "
    "--mesh.tensor 2"
  )
  got = config.override(tiny(), flags.split())
  kd, ce = got.method.parts["kd"], got.method.parts["ce"]
  assert (got.steps, got.student.layers) == (7, (0, 1))
  assert (kd.method.tau, kd.weight.end, ce.weight) == (2.0, 0.25, 0.2)
  assert got.teachers["teacher"].ref == "there"
  assert (got.optimizer.lr, got.data.seq_len, got.mesh.tensor) == (0.01, 64, 2)
  assert got.method.parts["kd"].weight.start == 1.0


def test_a_number_replaces_a_schedule_and_an_absent_value():
  assert config.override(tiny(), ["--ema", "0.99"]).ema == 0.99
  got = config.override(tiny(), ["--method.parts.kd.weight=0.5"])
  assert got.method.parts["kd"].weight == 0.5
  assert config.override(tiny(), ["--steps", "5"]).ema is None


def both(**second) -> config.Stages:
  changes = {"teachers": {"teacher": config.Teacher("stage:first")}}
  later = dataclasses.replace(tiny(), **(changes | second))
  return config.Stages({"first": tiny(), "cool-down": later})


def test_flags_go_to_a_stage_or_to_all():
  flags = (
    "--steps 7 --cool-down.student.layers 0 1 --seed=3 "
    "--cool_down.steps=9 --first.method.parts.ce.weight 0.5"
  )
  got = config.override_stages(both(), flags.split()).stages
  first, second = got["first"], got["cool-down"]
  assert (first.steps, second.steps) == (7, 9)
  assert (first.seed, second.seed) == (3, 3)
  assert (first.student.layers, second.student.layers) == ((0, 2), (0, 1))
  weights = [one.method.parts["ce"].weight for one in (first, second)]
  assert weights == [0.5, 0.1]
  assert second.teachers["teacher"].ref == "stage:first"


@pytest.mark.parametrize("flags", ["--stepz 4", "--third.steps 4"])
def test_an_unknown_flag_names_the_stages(flags):
  with pytest.raises(types.UserError, match="first, cool-down") as caught:
    config.override_stages(both(), flags.split())
  assert flags.split()[0] in str(caught.value)


def test_an_unknown_flag_of_a_stage_names_it():
  with pytest.raises(types.UserError, match=r"stage cool-down: .*--stepz"):
    config.override_stages(both(), ["--cool-down.stepz", "4"])


@pytest.mark.parametrize(
  ("name", "said"),
  [
    ("steps", "a flag of every stage"),
    ("log-every", "a flag of every stage"),
    ("checkpoints", "a directory of every run"),
    ("../x", "letters, digits"),
    ("", "letters, digits"),
  ],
)
def test_names_that_no_stage_can_have(name, said):
  with pytest.raises(types.UserError, match=said):
    config.Stages({name: tiny()})


def test_names_that_flags_do_not_tell_apart():
  with pytest.raises(types.UserError, match="cannot tell them apart"):
    config.Stages({"cool-down": tiny(), "cool_down": tiny()})


def teacher(ref):
  return {"teachers": {"teacher": config.Teacher(ref)}}


@pytest.mark.parametrize(
  ("changes", "said"),
  [
    (teacher("stage:cool-down"), r"teachers.teacher.ref.*no stage before it"),
    (teacher("stage:fist"), r"fist is no stage; before it are first"),
    ({"student": config.Pretrained("stage:a")}, r"student\.ref"),
    ({"student": config.Lora(config.Cut(2, "stage:a"))}, r"student\.base\.ref"),
    ({"student": config.Fresh(like=config.Cut(2, "stage:a"))}, r"like\.ref"),
    ({"tokenizer": "stage:a@best"}, r"tokenizer is 'stage:a@best'"),
  ],
)
def test_references_to_no_earlier_stage(changes, said):
  with pytest.raises(types.UserError, match=said):
    both(**changes)


@pytest.mark.parametrize(
  ("flags", "said"),
  [
    ("--stepz 4", "--steps"),
    ("--steps many", "int"),
    ("--method.parts.kd.method.divergence klx", "forward_kl"),
    ("--optimizer.lrr 1", "--optimizer.lr"),
  ],
)
def test_a_wrong_flag_ends_with_exit_code_2(flags, said, capsys):
  with pytest.raises(SystemExit) as stop:
    config.override(tiny(), flags.split())
  assert stop.value.code == 2
  shown = capsys.readouterr()
  assert said in shown.err + shown.out
  assert "Traceback" not in shown.err


@pytest.mark.parametrize(
  ("body", "said"),
  [
    ("import jdistill\nx = 1 +\n", r"line 2: SyntaxError"),
    ("x = 1\n", "get_config"),
    ("def get_config():\n  return 3\n", "returned int"),
    (
      "from jdistill import config\ndef get_config():\n"
      "  return config.Confg(steps=3)\n",
      "line 3: AttributeError.*Confg",
    ),
  ],
)
def test_a_broken_config_file_names_the_line(tmp_path, body, said):
  path = tmp_path / "broken.py"
  path.write_text(body)
  with pytest.raises(types.UserError, match=said) as caught:
    config.load(path)
  assert str(path) in str(caught.value)


def test_a_name_alone_is_a_config_that_comes_along(tmp_path, monkeypatch):
  assert config.load("markov") == config.load(CONFIGS[0].parent / "markov.py")
  monkeypatch.chdir(tmp_path)
  (tmp_path / "markov").write_text("def get_config():\n  return 3\n")
  with pytest.raises(types.UserError, match="returned int"):
    config.load("markov")


def test_a_missing_config_file_shows_its_neighbours(tmp_path):
  (tmp_path / "mine.py").write_text("")
  with pytest.raises(types.UserError, match=r"does not exist.*mine\.py"):
    config.load(tmp_path / "min.py")


@pytest.mark.parametrize(
  ("tree", "said"),
  [
    ({"type": "os.system", "x": 1}, "not a public class"),
    ({"type": "jdistill.methods.KD", "tua": 2}, "has no field tua"),
    ({"own": "my.Module", "text": "Module()"}, "class of your own"),
  ],
)
def test_json_builds_nothing_but_public_configs(tree, said):
  with pytest.raises(types.UserError, match=said):
    config_json.decode(tree)


def test_differences_are_named_with_their_path():
  old = config_json.encode(tiny())
  new = config_json.encode(
    dataclasses.replace(tiny(), seed=4, optimizer=optim.AdamW(lr=0.5))
  )
  assert sorted(config.changed(old, new)) == [
    "optimizer.lr: 0.001 -> 0.5",
    "seed: 0 -> 4",
  ]
