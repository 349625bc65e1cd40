# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Updates that are not finite change nothing, are counted, and end a run."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdistill import (
  bad_steps,
  checkpoint,
  config,
  data,
  metrics,
  pretrained,
  run,
  sharding,
  train,
  types,
)
from jdistill.methods import KD, base
from jdistill.models import DecoderConfig, Segment


def log(line):
  del line


@dataclasses.dataclass(frozen=True)
class Poison(KD):
  """KD whose loss (`what`), or only its gradient, is not finite at times."""

  at: tuple[int, ...] = ()  # counted from 1
  what: str = "nan"

  def terms(self, logits, data, params, step):
    [(name, term)] = super().terms(logits, data, params, step).items()
    now = jnp.isin(step + 1, jnp.array((0, *self.at)))
    if self.what == "gradient":  # the square root of 0 has none
      own = jnp.sqrt(jnp.where(now, 0 * term.value, 1.0))
      own = own + now - 1.0
    else:
      own = jnp.where(now, float(self.what), 0.0)
    return {name: base.Term(term.value + own)}


def built(cfg):
  loader = data.load(cfg.data, None, seed=0, cache_dir=None)
  batch = run.to_batch(next(loader))
  loader.close()
  shapes = run.batch_shapes(cfg.data, batch)
  return run.build(cfg, run.find_models(cfg), shapes), batch


def bits(tree):
  return [np.asarray(x).tobytes() for x in jax.tree.leaves(tree)]


def parts(state):
  extra = {k: v for k, v in state.extra.items() if k != bad_steps.KEY}
  return state.params, state.opt_state, extra


def chain(**changes):
  """A run in a world that needs no files."""
  from jdistill import beds

  truth = beds.MarkovChain(vocab_size=16, order=1)
  student = DecoderConfig(
    vocab_size=16,
    width=16,
    mlp_width=32,
    num_heads=2,
    num_kv_heads=1,
    head_dim=8,
    segments=(Segment.uniform(2),),
  )
  base = config.Config(
    student=config.Fresh(student),
    teachers={"teacher": config.Teacher(architecture=truth)},
    method=Poison(at=(2,)),
    data=beds.BedData(truth, num_documents=64, seq_len=16, batch_size=8),
    steps=6,
    ema=0.9,
    log_every=1,
    eval_every=100,
    save_every=1,
    keep=10,
  )
  return dataclasses.replace(base, **changes)


@pytest.mark.parametrize("what", ["nan", "inf", "gradient"])
def test_nothing_changes_but_the_step(what):
  one, batch = built(chain(method=Poison(at=(2, 3), what=what)))
  with jax.set_mesh(one.mesh):
    teacher = one.load_teachers()
    state = one.init_state(teacher)
    batch = sharding.place_rows(batch, one.mesh)
    counts, seen = [], []
    for _ in range(4):
      state, found = one.train_step(state, teacher, batch)
      seen.append(bits(parts(state)))
      row = metrics.means(found)
      counts.append((row["bad_steps"], row["bad_in_a_row"]))
      if len(seen) in (2, 3):
        finite = np.isfinite([row["loss"], row["grad_norm"]]).tolist()
        assert finite == [what == "gradient", what != "gradient"]
  assert counts == [(0, 0), (1, 1), (2, 2), (2, 0)]
  assert seen[0] == seen[1] == seen[2]
  assert seen[3] != seen[2]
  assert int(state.step) == 4


@pytest.mark.slow
def test_costs_no_memory_and_changes_no_good_run(monkeypatch):
  """Against a step that does not look; both reuse the whole state."""
  wide = DecoderConfig(
    vocab_size=16,
    width=128,
    mlp_width=512,
    num_heads=4,
    num_kv_heads=4,
    head_dim=32,
    segments=(Segment.uniform(2),),
  )
  cfg = chain(method=KD(), student=config.Fresh(wide))

  def three_steps():
    one, batch = built(cfg)
    with jax.set_mesh(one.mesh):
      teacher = one.load_teachers()
      state = one.init_state(teacher)
      batch = sharding.place_rows(batch, one.mesh)
      compiled = one.train_step.lower(state, teacher, batch).compile()
      for _ in range(3):
        state, _ = one.train_step(state, teacher, batch)
    local = jax.tree.map(lambda x: x.addressable_shards[0].data, state)
    size = sum(x.nbytes for x in jax.tree.leaves(local))
    return compiled.memory_analysis(), size, bits(parts(state))

  with_care, size, ours = three_steps()
  monkeypatch.setattr(
    bad_steps,
    "update_if",
    lambda good, update, state: update(
      (state.params, state.opt_state, state.extra)
    ),
  )
  without, _, theirs = three_steps()
  assert with_care.alias_size_in_bytes >= size
  more = with_care.temp_size_in_bytes - without.temp_size_in_bytes
  assert more < 0.01 * size
  assert ours == theirs


def test_a_run_goes_on_after_a_bad_step(tmp_path):
  said = []
  train.train(chain(), tmp_path / "run", log=said.append)
  rows = {r["step"]: r for r in metrics.read(tmp_path / "run")}
  assert [rows[s]["bad_steps"] for s in range(1, 7)] == [0, 1, 1, 1, 1, 1]
  assert rows[2]["loss"] is None
  assert "bad_in_a_row" not in rows[2]
  assert any("warning: step 2: the loss is nan" in line for line in said)
  with checkpoint.Checkpoints(
    tmp_path / "run/checkpoints", read_only=True
  ) as saved:  # none of a state that may be about to fail
    assert saved.steps() == [1, 3, 4, 5, 6]


def test_too_many_in_a_row_end_it(tmp_path):
  cfg = chain(method=Poison(at=(2, 3, 4)), max_bad_steps=3)
  loader = data.load(cfg.data, None, seed=0, cache_dir=None)
  next(loader)
  ids = sorted(next(loader)["example_id"].tolist())
  loader.close()
  listed = ", ".join(map(str, ids))
  expected = f"3 updates in a row .* at step 2 with the examples {listed};"
  with pytest.raises(types.UserError, match=expected) as error:
    train.train(cfg, tmp_path / "run", log=log)
  assert "last good checkpoint is step 1 " in str(error.value)
  before = pretrained.find(f"{tmp_path}/run@1").params()
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(before))
  # Whoever allows more goes on from there, and gets over it.
  more = dataclasses.replace(cfg, max_bad_steps=4)
  train.train(more, tmp_path / "run", log=log)
  assert metrics.read(tmp_path / "run")[-1]["bad_steps"] == 3


def test_counts_survive_a_restart(tmp_path):
  cfg = chain(method=Poison(at=(2, 3, 4)), max_bad_steps=3)
  train.train(dataclasses.replace(cfg, steps=3), tmp_path / "run", log=log)
  with pytest.raises(types.UserError, match="3 updates in a row"):
    train.train(cfg, tmp_path / "run", log=log)


def test_the_limit_is_a_number_of_steps(tmp_path):
  with pytest.raises(types.UserError, match="max_bad_steps is 0"):
    train.train(chain(max_bad_steps=0), tmp_path / "run", log=log)
