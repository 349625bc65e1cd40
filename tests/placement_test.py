# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""What is said of a run's arrays is where they come to lie."""

import io
import json
import math

import jax
import pytest
from rich.console import Console

from jdistill import (
  cli,
  config,
  data,
  methods,
  optim,
  placement,
  run,
  sharding,
  types,
)
from jdistill.models import DecoderConfig, Segment
from jdistill.report import figures, plots, record

STUDENT = DecoderConfig(
  vocab_size=48,
  width=16,
  mlp_width=24,
  num_heads=6,
  num_kv_heads=3,
  head_dim=8,
  segments=(Segment.uniform(2),),
)
MESH = sharding.MeshShape(1, 2, 2, 2)

CONFIG = """
from jdistill import config, data, methods
from jdistill.models import DecoderConfig, Segment

def get_config():
  decoder = DecoderConfig(
    vocab_size=48, width=16, mlp_width=24, num_heads=6, num_kv_heads=3,
    head_dim=8, segments=(Segment.uniform(2),),
  )
  # A reference that is not looked up: the architecture says enough.
  teacher = config.Teacher("hf:no/where", architecture=decoder, weights="int8")
  return config.Config(
    student=config.Fresh(decoder),
    teachers={"teacher": teacher},
    method=methods.KD(),
    data=data.TextData(seq_len=8, batch_size=8),
    steps=1,
  )
"""


def settings(**changes) -> config.Config:
  fields = {
    "student": config.Fresh(STUDENT),
    "teachers": {
      "teacher": config.Teacher(
        architecture=STUDENT, dtype="bfloat16", rules={"mlp": "fsdp"}
      )
    },
    "method": methods.KD(),
    "data": data.TextData(seq_len=8, batch_size=8),
    "optimizer": optim.AdamW(lr=1e-3),
    "ema": 0.9,
    "mesh": MESH,
    "steps": 1,
  }
  return config.Config(**(fields | changes))


def on_device(tree) -> int:
  """Bytes that the first device holds of a tree."""
  shards = (x.addressable_shards for x in jax.tree.leaves(tree))
  return sum(
    shard.data.nbytes
    for all_of_it in shards
    for shard in all_of_it
    if shard.device == jax.devices()[0]
  )


def test_it_is_what_the_devices_hold():
  found = placement.layout(settings(), devices=8)
  batch = placement.batch_shapes(settings().data)
  built = run.build(settings(), run.find_models(settings()), batch)
  assert placement.of_run(built) == found
  zeros = jax.tree.map(
    lambda s, p: jax.device_put(jax.numpy.zeros(s.shape, s.dtype), p),
    (built.state_shapes, built.teacher_shapes()),
    (built.state_shardings, built.teacher_shardings),
  )
  state, teachers = zeros
  held = {
    "student": on_device(state.params["student"]),
    "teacher": on_device(teachers),
    "optimizer": on_device(state.opt_state),
    "kept": on_device(state.extra),
  }
  said = {k: v["bytes_per_device"] for k, v in found["totals"].items()}
  assert said == held
  assert found["bytes_per_device"] == sum(held.values())
  counts = 8  # of bad steps, beside the average of weights
  assert found["totals"]["kept"] == {
    size: number + counts for size, number in found["totals"]["student"].items()
  }
  whole = math.prod(STUDENT.shapes()["embedding"]["weight"].shape)
  embedding = found["parameters"][0]
  assert embedding["name"] == "embedding/weight"
  assert embedding["spec"] == [["tensor"], ["fsdp", "context"]]
  assert embedding["bytes"] == 4 * whole == 8 * embedding["bytes_per_device"]


def test_devices_and_their_parts():
  found = placement.layout(settings(), devices=8)
  mesh = sharding.make_mesh(MESH)
  devices = list(mesh.devices.flat)
  for row in found["parameters"]:
    spec = jax.sharding.PartitionSpec(*(tuple(p) or None for p in row["spec"]))
    place = jax.sharding.NamedSharding(mesh, spec)
    indices = place.devices_indices_map(tuple(row["shape"]))
    for part, numbers in placement.holders(row, found["mesh"]).items():
      parts = place.shard_shape(tuple(row["shape"]))
      starts = tuple(n * size for n, size in zip(part, parts, strict=True))
      for number in numbers:
        index = indices[devices[number]]
        assert tuple(i.start or 0 for i in index) == starts


def test_a_teacher_has_rules_of_its_own():
  rows = placement.layout(settings(), devices=8)["parameters"]
  gates = [row for row in rows if row["name"].endswith("gate/kernel")]
  specs = {row["model"]: row["spec"] for row in gates}
  assert specs == {
    "student": [[], ["fsdp", "context"], ["tensor"]],
    "teacher": [[], ["fsdp", "context"], []],  # fsdp is taken
  }


def test_what_does_not_divide_is_said():
  found = placement.layout(settings(), devices=8)
  line = (
    "kv_heads 3 does not divide over tensor 2 and is whole on every device "
    "(segment_0/attention/k/kernel and 1 more); 2 or 4 would divide, or "
    "tensor 1"
  )
  assert found["uneven"] == [f"student: {line}", f"teacher: {line}"]
  console = Console(width=200, record=True, file=io.StringIO())
  console.print(placement.table(found))
  text = console.export_text()
  assert line in text
  assert "48 vocab -> tensor, 16 embed -> fsdp+context" in text
  assert "mesh of 8: data 1, fsdp 2, expert 1, context 2, tensor 2" in text


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"rules": {"mpl": "tensor"}}, r"rules\.mpl: no parameter.*mean mlp"),
    ({"rules": {"mlp": "tenser"}}, r"rules\.mlp is 'tenser'.*mean tensor"),
    ({"rules": {"mlp": "fsdp+x"}}, r"no axis 'x'; it has data, fsdp"),
    (
      {
        "teachers": {
          "teacher": config.Teacher(
            architecture=STUDENT, rules={"experts": "data"}
          )
        }
      },
      r"teachers\.teacher\.rules\.experts: .* there are embed, head_dim",
    ),
    (
      {"data": data.TextData(seq_len=9, batch_size=8)},
      r"data.seq_len is 9.*context 2; take a seq_len of 8 or 10, or .* 1$",
    ),
    (
      {"attention": "flash", "data": data.TextData(seq_len=128, batch_size=8)},
      "128 x 2 parts of the context axis",
    ),
  ],
)
def test_what_cannot_work_is_refused(changes, message):
  with pytest.raises(types.UserError, match=message):
    placement.layout(settings(**changes), devices=8)


def test_examples_have_no_positions():
  spec = data.ArrayData("npz:none.npz", batch_size=8)
  with pytest.raises(types.UserError, match="a ArrayData has rows without"):
    run.build(
      settings(data=spec),
      run.find_models(settings()),
      placement.batch_shapes(settings().data),
    )


@pytest.fixture
def path(tmp_path):
  (tmp_path / "small.py").write_text(CONFIG)
  return str(tmp_path / "small.py")


def test_a_pod_on_a_laptop(path, capsys):
  flags = ["--devices", "4096", "--mesh.fsdp", "8", "--mesh.tensor", "512"]
  assert cli.main(["shardings", path, *flags, "--mesh.data", "1"]) == 0
  assert "mesh of 4096: data 1, fsdp 8" in capsys.readouterr().out
  assert cli.main(["shardings", path, "--devices", "8", "--json"]) == 0
  found = json.loads(capsys.readouterr().out)
  assert found["mesh"] == dict.fromkeys(sharding.AXES, 1) | {"data": 8}
  whole = {k: v["bytes"] for k, v in found["totals"].items()}
  assert whole == {k: v["bytes_per_device"] for k, v in found["totals"].items()}
  assert whole["teacher"] < whole["student"] / 2  # int8 and bfloat16
  assert cli.main(["shardings", path, "--devices", "6"]) == 2
  assert "batch_size is 8" in capsys.readouterr().err


def test_the_picture_has_every_device():
  row = {"shape": [2, 16, 24], "axes": ["layers", "embed", "mlp"],
         "spec": [[], ["fsdp"], ["tensor"]]}  # fmt: skip
  svg = figures._parts(row, {"data": 2, "fsdp": 2, "context": 1, "tensor": 2})
  for label in ("0, 4", "1, 5", "2, 6", "3, 7", "16 embed", "24 mlp"):
    assert f">{label}</text>" in svg
  for colour in range(4):
    assert f"var(--c{colour})" in svg
  many = plots.blocks([["a"] * 65], x_label="x", y_label="y")
  assert ">a</text>" not in many


def test_a_report_shows_three_parameters(tmp_path):
  found = placement.layout(settings(), devices=8)
  run_of = lambda layout: record.RunRecord(  # noqa: E731
    path=tmp_path, name="run", config={}, rows=[], evals={}, samples={},
    continuations=[], size=None, teacher=None, layout=layout,
  )  # fmt: skip
  cards = figures.placements(run_of(found))
  titles = ["embedding/weight", "attention/o/kernel", "mlp/down/kernel"]
  for title, card in zip(titles, cards, strict=True):
    assert f"{title}</h3><svg" in card
    assert "on each device" in card
  alone = placement.layout(settings(mesh=sharding.MeshShape(1)), devices=1)
  assert figures.placements(run_of(alone)) == []
  assert figures.placements(run_of(None)) == []
