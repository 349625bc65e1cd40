# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Whole runs in which somebody writes."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from jdistill import (
  beds,
  config,
  data,
  methods,
  metrics,
  models,
  optim,
  placement,
  pretrained,
  rollout,
  run,
  sampling,
  sharding,
  train,
  types,
)
from jdistill.sampling import Sampling

CHAIN = beds.MarkovChain(vocab_size=8, order=1, concentration=0.5)
SUMS = beds.Arithmetic(digits=(1, 1))
NEW = Sampling(max_new_tokens=9)


@pytest.fixture(autouse=True, scope="module")
def _caches(caches):
  """The runs here are much alike."""


def decoder(vocab):
  return models.DecoderConfig(
    vocab_size=vocab,
    width=8,
    mlp_width=16,
    num_heads=2,
    num_kv_heads=1,
    head_dim=4,
    segments=(models.Segment.uniform(1),),
    ropes=(models.Rope(theta=100.0),),
  )


def made(writer, **changes):
  of = beds.BedData(CHAIN, num_documents=64, seq_len=16)
  fields = {
    "student": config.Fresh(decoder(CHAIN.vocab_size)),
    "teachers": {"teacher": config.Teacher(architecture=CHAIN)},
    "method": methods.JSD(),
    "data": data.Prompts(of, prompt_tokens=4, batch_size=8),
    "rollout": writer,
    "optimizer": optim.AdamW(lr=1e-2),
    "steps": 8,
    "eval_every": 4,
    "save_every": 2,
    "log_every": 1,
  }
  return config.Config(**(fields | changes))


def go(cfg, path, **kwargs):
  return train.train(cfg, path, log=lambda _: None, **kwargs)


def losses_of(path):
  rows = metrics.read(path)
  return {r["step"]: r["loss"] for r in rows if "loss" in r}


@pytest.mark.slow
def test_metrics_tell_who_wrote_and_what_it_took(tmp_path):
  parts = {
    "own": rollout.Part(rollout.Student(NEW)),
    "given": rollout.Part(rollout.Dataset()),
  }
  go(made(rollout.Mixture(parts)), tmp_path / "run")
  rows = [r for r in metrics.read(tmp_path / "run") if "loss" in r]
  for row in rows:
    shares = row["rollout/from/own"], row["rollout/from/given"]
    assert sorted(shares) == [0.0, 1.0]
    assert 0 < row["generate_seconds"] < row["seconds"]
    parts = row["generate_seconds"] + row["train_seconds"]
    assert parts == pytest.approx(row["seconds"])
    assert row["rollout/tokens"] == (9.0 if shares[0] else 13.0)


@pytest.mark.parametrize(
  "kind",
  [
    pytest.param("replay", marks=pytest.mark.slow),
    pytest.param("adaptive", marks=pytest.mark.slow),
    pytest.param("reused", marks=pytest.mark.slow),
  ],
)
def test_a_stopped_run_ends_with_the_same_bits(tmp_path, kind):
  writer = {
    "replay": rollout.Replay(rollout.Student(NEW), capacity=16),
    "adaptive": rollout.AdaptiveReplay(
      rollout.Student(NEW), capacity=8, increment=1.0, margin=-10.0
    ),
    "reused": rollout.Reused(rollout.Student(NEW), updates=3),
  }[kind]
  of = beds.BedData(CHAIN, num_documents=16, part="heldout", seq_len=16)
  evals = {"eval": data.Prompts(of, prompt_tokens=4, batch_size=8)}
  cfg = made(writer, evals=evals)
  go(cfg, tmp_path / "whole")
  go(dataclasses.replace(cfg, steps=6), tmp_path / "half")
  go(cfg, tmp_path / "half")
  assert losses_of(tmp_path / "half") == losses_of(tmp_path / "whole")
  ends = [
    pretrained.find(str(tmp_path / n)).params() for n in ("whole", "half")
  ]
  jax.tree.map(np.testing.assert_array_equal, *ends)
  sources = {
    name
    for row in metrics.read(tmp_path / "whole")
    for name, share in row.items()
    if name.startswith("rollout/from/") and share
  }
  assert len(sources) == (1 if kind == "reused" else 2)


def kept_by(writer, mesh):
  """What it keeps, and what of it is on a device."""
  cfg = made(writer, mesh=mesh)
  built = run.build(
    cfg, run.find_models(cfg), placement.batch_shapes(cfg.data), devices=8
  )
  kept = built.state_shapes.extra[rollout.KEY]
  places = built.state_shardings.extra[rollout.KEY]
  return kept, jax.tree.map(lambda k, p: p.shard_shape(k.shape), kept, places)


def test_kept_rows_are_divided_over_the_devices():
  for writer in (
    rollout.Replay(rollout.Student(NEW), capacity=64),
    rollout.Reused(rollout.Student(NEW)),
  ):
    kept, here = kept_by(writer, sharding.MeshShape(2, 2, 2))
    sizes = jax.tree.leaves(here, is_leaf=lambda x: isinstance(x, tuple))
    for whole, part in zip(jax.tree.leaves(kept), sizes, strict=True):
      assert (
        part == (whole.shape[:1] and (whole.shape[0] // 4,)) + (whole.shape[1:])
      )
  kept, here = kept_by(
    rollout.Replay(rollout.Student(NEW), capacity=30),
    sharding.MeshShape(2, 2, 2),
  )
  assert here["ring"]["rows"]["example_id"] == (30,)


@pytest.mark.slow
def test_kept_rows_are_the_same_on_any_mesh(tmp_path):
  writer = rollout.Replay(rollout.Student(NEW), capacity=16)
  for name, sizes in (("one", (1, 1, 1)), ("other", (4, 2, 1))):
    go(made(writer, mesh=sharding.MeshShape(*sizes)), tmp_path / name)
  one, other = (metrics.read(tmp_path / name) for name in ("one", "other"))
  assert {row["rollout/from/replay"] for row in one} == {0.0, 1.0}
  for row, same in zip(one, other, strict=True):
    for key in ("loss", "rollout/from/replay", "rollout/age"):
      assert same[key] == pytest.approx(row[key], rel=1e-5)


@pytest.mark.slow
def test_microbatches_and_meshes_change_nothing(tmp_path):
  writer = rollout.Student(NEW)
  one = made(writer, steps=3, mesh=sharding.MeshShape(1, 1, 1))
  go(one, tmp_path / "one")
  go(made(writer, steps=3, microbatches=2, mesh=sharding.MeshShape(2, 2, 2),
          rollout_rules={"embed": None}),
     tmp_path / "other")  # fmt: skip
  expected, found = losses_of(tmp_path / "one"), losses_of(tmp_path / "other")
  assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_evaluations_may_be_of_what_the_student_writes(tmp_path):
  of = beds.BedData(CHAIN, num_documents=16, part="heldout", seq_len=16)
  prompts = data.Prompts(of, prompt_tokens=4, batch_size=8)
  cfg = made(
    rollout.Student(NEW),
    evals={"eval": prompts, "own": prompts, "theirs": prompts},
    eval_rollouts={
      "own": rollout.Student(NEW),
      "theirs": rollout.Teacher(NEW),
    },
    steps=4,
  )
  go(cfg, tmp_path / "run")
  row = metrics.read(tmp_path / "run")[-1]
  assert row["eval/tokens"] == 16 * 13
  assert row["own/tokens"] == row["theirs/tokens"] == 16 * 9
  # The teacher writes likelier text than a student that has learnt nothing.
  assert row["theirs/teacher_ce"] < row["own/teacher_ce"]
  assert row["own/reverse_kl"] > 0


@pytest.mark.slow
def test_groups_and_rewards(tmp_path):
  of = beds.BedData(SUMS, num_documents=32, seq_len=12)
  cfg = made(
    rollout.Student(Sampling(max_new_tokens=4)),
    student=config.Fresh(decoder(SUMS.vocab_size)),
    teachers={"teacher": config.Teacher(architecture=decoder(SUMS.vocab_size))},
    method=methods.KD("reverse_kl"),
    data=data.Prompts(of, prompt_tokens=8, batch_size=4),
    group_size=2,
    reward=rollout.ExactMatch(),
    steps=2,
  )
  go(cfg, tmp_path / "run")
  rows = [r for r in metrics.read(tmp_path / "run") if "loss" in r]
  assert all(0 <= r["rollout/reward"] <= 1 for r in rows)
  assert all(r["annotate_seconds"] > 0 for r in rows)
  always = dataclasses.replace(cfg, rollout=rollout.Dataset())
  go(always, tmp_path / "given")
  rows = [r for r in metrics.read(tmp_path / "given") if "loss" in r]
  assert all(r["rollout/reward"] == 1 for r in rows)


@dataclasses.dataclass(frozen=True)
class Even(rollout.Reward):
  """1 for answers whose first token is even."""

  def __call__(self, answers):
    return [float(a.answer[0] % 2 == 0) for a in answers if len(a.prompt)] + [
      1.0 for a in answers if not len(a.prompt)
    ]


@pytest.mark.slow
def test_what_is_written_to_held_out_prompts_is_judged_too(tmp_path):
  """Twelve prompts in batches of eight: rows that fill up do not count."""
  of = beds.BedData(SUMS, num_documents=12, part="heldout", seq_len=12)
  cfg = made(
    None,
    student=config.Fresh(decoder(SUMS.vocab_size)),
    teachers={},
    method=methods.CrossEntropy(),
    data=beds.BedData(SUMS, num_documents=32, seq_len=12, batch_size=8),
    evals={"own": data.Prompts(of, prompt_tokens=8, batch_size=8)},
    eval_rollouts={
      "own": rollout.Student(Sampling(max_new_tokens=4, temperature=0.0))
    },
    reward=Even(),
    steps=4,
  )
  go(cfg, tmp_path / "run")
  found = pretrained.find(str(tmp_path / "run"))
  answers = sampling.generate(
    found.architecture,
    found.params(),
    [d.prompt for d in SUMS.documents(0, 12, "heldout")],
    max_new_tokens=4,
    temperature=0,
    eos_id=SUMS.end_ids[0],
  )
  expected = np.mean([ids[0] % 2 == 0 for ids in answers])
  row = metrics.read(tmp_path / "run")[-1]
  assert row["own/reward"] == pytest.approx(expected)


class Odd(rollout.Reward):
  """Right if the first token is odd; what is wrong is told how."""

  def __call__(self, answers):
    return [
      rollout.Judged(float(a.answer[0] % 2), [] if a.answer[0] % 2 else [3])
      for a in answers
    ]


def told_of_siblings(**changes):
  """SDPO beside GRPO."""
  of = beds.BedData(SUMS, num_documents=32, seq_len=12)
  own = methods.SelfDistillation(rows="told", top=4)
  parts = {"rl": (methods.GRPO(), 0.25), "self": (own, 0.75)}
  fields = {
    "student": config.Fresh(decoder(SUMS.vocab_size)),
    "teachers": {"teacher": config.Teacher("ema")},
    "ema": 0.9,
    "method": methods.Sum(
      {name: methods.Part(*both) for name, both in parts.items()}
    ),
    "data": data.Prompts(of, prompt_tokens=8, batch_size=4),
    "group_size": 4,
    "reward": Odd(),
    "steps": 3,
  }
  writer = rollout.Reprompted(
    rollout.Student(Sampling(max_new_tokens=4)),
    feedback_tokens=2,
    prompt_tokens=24,
  )
  return made(writer, **fields | changes)


@pytest.mark.slow
def test_a_teacher_that_is_told_what_happened(tmp_path):
  one = told_of_siblings(mesh=sharding.MeshShape(1, 1, 1))
  go(one, tmp_path / "one")
  rows = [r for r in metrics.read(tmp_path / "one") if "loss" in r]
  for row in rows:
    assert row["self/jsd"] > 0
    assert 0 < row["rollout/solved"] <= row["rollout/told"] <= 1
  assert any(row["rl/policy"] for row in rows)
  mesh = sharding.MeshShape(2, 2, 2)
  go(told_of_siblings(mesh=mesh, microbatches=2), tmp_path / "other")
  expected, found = losses_of(tmp_path / "one"), losses_of(tmp_path / "other")
  assert found == pytest.approx(expected, rel=1e-5)
  go(dataclasses.replace(one, steps=2), tmp_path / "half")
  go(one, tmp_path / "half")
  assert losses_of(tmp_path / "half") == expected


@pytest.mark.slow
def test_kept_answers_are_judged_again(tmp_path):
  inner = rollout.Student(Sampling(max_new_tokens=4))
  kept = rollout.Replay(inner, capacity=16, fresh=0.5)
  cfg = told_of_siblings(rollout=rollout.Reprompted(kept), steps=6)
  go(cfg, tmp_path / "run")
  rows = [r for r in metrics.read(tmp_path / "run") if "loss" in r]
  assert {r["rollout/from/replay"] for r in rows} == {0.0, 1.0}
  assert all(0 < r["rollout/reward"] < 1 for r in rows)


@pytest.mark.slow
def test_the_student_may_be_its_own_teacher(tmp_path):
  of = beds.BedData(SUMS, num_documents=32, seq_len=12)
  spec = data.Prompts(
    of, prompt_tokens=8, batch_size=8, privileged="{prompt}{answer}{prompt}",
    privileged_tokens=24,
  )  # fmt: skip
  cfg = made(
    rollout.Privileged(rollout.Student(Sampling(max_new_tokens=4))),
    student=config.Fresh(decoder(SUMS.vocab_size)),
    teachers={"teacher": config.Teacher("ema")},
    ema=0.9,
    method=methods.SelfDistillation(top=4),
    data=spec,
    steps=3,
  )
  go(cfg, tmp_path / "run")
  assert all(np.isfinite(v) for v in losses_of(tmp_path / "run").values())
  same = dataclasses.replace(
    cfg,
    ema=None,
    teachers={"teacher": config.Teacher("student")},
    method=methods.KD("reverse_kl"),
    steps=2,
  )
  go(same, tmp_path / "same")  # reads the same prompt: nothing to learn
  assert losses_of(tmp_path / "same") == pytest.approx({1: 0, 2: 0}, abs=1e-6)
  first = str(tmp_path / "run")
  base = dataclasses.replace(
    cfg,
    ema=None,
    student=config.Pretrained(first),
    teachers={"teacher": config.Teacher(first)},
  )
  go(base, tmp_path / "base")  # the teacher is the student as it was
  live = dataclasses.replace(
    base, teachers={"teacher": config.Teacher("student")}
  )
  go(live, tmp_path / "live")
  own, moving = losses_of(tmp_path / "base"), losses_of(tmp_path / "live")
  assert own[1] == pytest.approx(moving[1], rel=1e-5)  # still the same weights
  assert own[3] != pytest.approx(moving[3], rel=1e-3)
  saved = json.loads((tmp_path / "run" / "config.json").read_text())
  assert saved["rollout"]["type"] == "jdistill.rollout.Privileged"


@pytest.mark.parametrize(
  ("changes", "said"),
  [
    (
      {"data": beds.BedData(CHAIN, num_documents=8, seq_len=16)},
      "take data.Prompts",
    ),
    ({"rollout": rollout.Teacher(NEW, name="other")}, "named 'other' is to"),
    (
      {"rollout": rollout.Student(Sampling(max_new_tokens=20))},
      "take 23 places",
    ),
    ({"eval_rollouts": {"own": rollout.Student(NEW)}}, "evals has no 'own'"),
    ({"rollout": rollout.Privileged()}, "reads 'privileged'"),
    (
      {"rollout": rollout.AdaptiveReplay(rollout.Student(NEW))},
      "goes by the metric 'eval/ce'",
    ),
    ({"rollout": rollout.Reprompted()}, "give the run a reward"),
    (
      {"rollout": rollout.Reprompted(), "reward": rollout.ExactMatch()},
      "group_size is 1",
    ),
    (
      {
        "rollout": rollout.Reprompted(
          rollout.Student(NEW), template="{prompt} or {solution}"
        ),
        "reward": rollout.ExactMatch(),
        "group_size": 2,
      },
      "the text ' or ' is to be read",
    ),
    ({"teachers": {"teacher": config.Teacher("ema")}}, "no average is kept"),
    (
      {"teachers": {"teacher": config.Teacher("student", dtype="bfloat16")}},
      "nothing but the ref",
    ),
    ({"rollout_rules": {"embedd": None}}, "rollout_rules.embedd"),
  ],
)
def test_refusals_before_anything_is_written(tmp_path, changes, said):
  cfg = made(rollout.Student(NEW), **changes)
  with pytest.raises(types.UserError, match=said):
    go(cfg, tmp_path / "run")
  assert not (tmp_path / "run").exists()
