# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""What a teacher says is kept, found again, and learnt from."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdistill import (
  beds,
  cache_job,
  cached,
  config,
  data,
  losses,
  methods,
  models,
  optim,
  run,
  sharding,
  start,
  train,
  types,
)
from jdistill.cached import store

pytestmark = pytest.mark.usefixtures("caches")

CHAIN = beds.MarkovChain(vocab_size=12, order=1)
DATA = beds.BedData(CHAIN, num_documents=24, seq_len=16, batch_size=8)
LAYERS = {
  "vocab_size": 12,
  "width": 16,
  "mlp_width": 24,
  "num_heads": 2,
  "num_kv_heads": 2,
  "head_dim": 8,
  "segments": (models.Segment.uniform(1),),
}
DECODER = models.DecoderConfig(**LAYERS, tied=False, final_soft_cap=20.0)


def settings(teacher=CHAIN, **changes) -> config.Config:
  fields = {
    "student": config.Fresh(models.DecoderConfig(**LAYERS)),
    "teachers": {"teacher": config.Teacher(architecture=teacher)},
    "method": methods.KD(),
    "data": DATA,
    "evals": {"eval": dataclasses.replace(DATA, part="heldout")},
    "optimizer": optim.AdamW(lr=1e-2),
    "mesh": sharding.MeshShape(1),
    "steps": 3,
  }
  return config.Config(**fields | changes)


def with_cache(made: config.Config, directory, rest=None) -> config.Config:
  [(name, teacher)] = made.teachers.items()
  teacher = dataclasses.replace(teacher, cache=str(directory), rest=rest)
  return dataclasses.replace(made, teachers={name: teacher})


def write(directory, format, made=None, **options):
  return cache_job.cache(
    made or settings(), directory, format, log=lambda _: None, **options
  )


def rows_of(made: config.Config):
  for spec in (made.data, *made.evals.values()):
    opened = spec.open()
    for source in opened.sources:
      yield from (source[i] for i in range(len(source)))


def spoken(directory, made, rest=None) -> cached.Said:
  return run.find_models(with_cache(made, directory, rest)).said["teacher"]


@pytest.mark.parametrize("format", [cached.TopK(5), cached.TopK(12)])
def test_top_ids_are_the_teachers(tmp_path, format):
  found = write(tmp_path / "c", format)
  assert found["rows"] == 48
  said = spoken(tmp_path / "c", settings())
  model = CHAIN.bind(CHAIN.init(jax.random.key(0)))
  for row in rows_of(settings()):
    view = run.to_batch({k: jnp.asarray(v)[None] for k, v in row.items()})
    log_p = np.asarray(jax.nn.log_softmax(model(view["student"]).logits))[0]
    kept = said.row(row)
    own = np.take_along_axis(log_p, kept["ids"], -1)
    np.testing.assert_allclose(kept["log_probs"], own, rtol=6e-4)
    assert (np.diff(own) <= 0).all()
    rest = 1 - np.exp(own).sum(-1)
    np.testing.assert_allclose(np.exp(kept["log_rest"]), rest, atol=2e-3)
    assert len(set(map(len, map(set, kept["ids"])))) == 1


def test_draws_are_from_the_teacher(tmp_path):
  """A chi-square test of all draws, by the state of the chain."""
  from scipy import stats

  write(tmp_path / "c", cached.Sampled(40))
  said = spoken(tmp_path / "c", settings())
  counts = np.zeros((12, 12))
  for row in rows_of(settings()):
    kept = said.row(row)
    shares = np.exp(kept["log_probs"]) * 40
    np.testing.assert_allclose(shares.sum(-1), 40, rtol=1e-5)
    for token, ids, share in zip(
      row["tokens"], kept["ids"], shares, strict=True
    ):
      np.add.at(counts[token], ids, np.round(share))
  view = types.Tokens(
    *(jnp.asarray(x)[None] for x in (np.arange(12),) * 2),
    jnp.ones((1, 12)),
    jnp.zeros((1, 12), jnp.int32),
    jnp.arange(12)[None] + 1,
  )
  logits = CHAIN.bind(CHAIN.init(jax.random.key(0)))(view).logits
  p = np.asarray(jax.nn.softmax(logits), np.float64)[0]
  for state in range(12):
    want = p[state] / p[state].sum() * counts[state].sum()
    assert stats.chisquare(counts[state], want).pvalue > 1e-4


@pytest.mark.parametrize(
  ("dtype", "limit"),
  [
    pytest.param("bfloat16", 1e-5, marks=pytest.mark.slow),
    ("int8", 1e-3),
  ],
)
def test_hidden_states_are_the_whole_distribution(tmp_path, dtype, limit):
  """Through the head, soft cap and all."""
  made = settings(DECODER)
  write(tmp_path / "c", cached.Hidden(dtype), made)
  models_ = run.find_models(with_cache(made, tmp_path / "c"))
  head = models_.teachers["teacher"].params()
  assert head.soft_cap == 20.0
  model = DECODER.bind(DECODER.init(jax.random.key(0)))
  total = count = 0
  for row in rows_of(made):
    view = run.to_batch({k: jnp.asarray(v)[None] for k, v in row.items()})
    kept = models_.said["teacher"].row(row)["hidden"]
    logits = head(jnp.asarray(kept, jnp.float32)[None])
    total += losses.forward_kl(logits, model(view["student"]).logits).sum()
    count += 16
  assert 0 <= total / count < limit


def trained(made, workdir):
  return train.train(made, workdir, log=lambda _: None)


def finals(workdir):
  from jdistill import pretrained

  found = pretrained.find(str(workdir))
  return found.params()


@pytest.mark.slow
def test_a_run_on_hidden_states_is_the_run_itself(tmp_path):
  made = settings(DECODER, steps=4)
  write(tmp_path / "c", cached.Hidden(), made)
  live = trained(made, tmp_path / "live")
  from_cache = trained(with_cache(made, tmp_path / "c"), tmp_path / "cache")
  a, b = live["evals"]["eval"]["end"], from_cache["evals"]["eval"]["end"]
  np.testing.assert_allclose(b["kl"], a["kl"], rtol=1e-2)
  for x, y in zip(
    jax.tree.leaves(finals(tmp_path / "live")),
    jax.tree.leaves(finals(tmp_path / "cache")),
    strict=True,
  ):
    np.testing.assert_allclose(y, x, atol=2e-2)


@pytest.mark.parametrize(
  ("format", "rest"),
  [
    (cached.TopK(4), "bucket"),
    (cached.TopK(4), "gold"),
    (cached.Sampled(9), None),
  ],
)
@pytest.mark.slow
def test_steps_are_the_same_on_any_mesh(tmp_path, format, rest):
  made = settings()
  write(tmp_path / "c", format, made)
  made = with_cache(made, tmp_path / "c", rest)
  losses_by = []
  meshes = (sharding.MeshShape(1), sharding.MeshShape(4, 2))
  for shape, parts in ((meshes[0], 1), (meshes[0], 2), (meshes[1], 1)):
    own = dataclasses.replace(made, mesh=shape, microbatches=parts)
    ready = start.prepare(own, None)
    with jax.set_mesh(ready.built.mesh):
      teachers = ready.built.load_teachers()
      assert not jax.tree.leaves(teachers)
      state, seen = ready.built.init_state(teachers), []
      for _ in range(3):
        batch = run.to_batch(next(ready.loader), 1, ready.built.models.said)
        placed = sharding.place_rows(batch, ready.built.mesh)
        state, found = ready.built.train_step(state, teachers, placed)
        seen.append(float(found["loss"].sum))
      held = ready.evals["eval"].run(
        ready.built, state.params["student"], teachers
      )
      assert "coarse_kl" in held
      assert "kl" not in held
    ready.close()
    losses_by.append(seen)
  for other in losses_by[1:]:
    np.testing.assert_allclose(other, losses_by[0], rtol=1e-5)


def test_what_was_killed_goes_on(tmp_path, monkeypatch):
  """Every row once, whatever the moment; a half-written part is forgotten."""
  whole = tmp_path / "whole"
  write(whole, cached.TopK(3))
  places, add = [], store.Writer.add

  def dies(self, *args, **kwargs):
    places.append(1)
    if len(places) % 13 == 0:
      raise RuntimeError("killed")
    return add(self, *args, **kwargs)

  directory = tmp_path / "c"
  with monkeypatch.context() as patch:
    patch.setattr(store.Writer, "add", dies)
    patch.setattr(store.Writer, "flush", _flush_full_parts_only)
    for _ in range(20):
      try:
        write(directory, cached.TopK(3), part_rows=4)
        break
      except RuntimeError:
        with pytest.raises(types.UserError, match="not finished"):
          store.Cache(directory)
  found = write(directory, cached.TopK(3), part_rows=4)
  assert found["rows"] == 48
  keys = [k for part in store.parts(directory) for k in part.keys]
  assert len(keys) == len(set(keys)) == 48
  a, b = store.Cache(whole), store.Cache(directory)
  for row in rows_of(settings()):
    assert a.read(store.row_key(row)) == b.read(store.row_key(row))


_flush = store.Writer.flush


def _flush_full_parts_only(self):
  # A killed process closes nothing.
  if self._file is not None and len(self._keys) == self._rows:
    _flush(self)
  elif self._file is not None:
    self._file = None


def test_other_data_are_added(tmp_path):
  write(tmp_path / "c", cached.TopK(3))
  more = dataclasses.replace(DATA, num_documents=30, seed=5)
  made = settings(data=more)
  ready = with_cache(made, tmp_path / "c")
  with pytest.raises(types.UserError, match="written for other rows"):
    trained(ready, tmp_path / "run")
  found = write(tmp_path / "c", cached.TopK(3), made)
  assert found["rows"] == 48 + 30
  trained(ready, tmp_path / "run")


def damage_length(directory):
  [path] = directory.glob("*.array_record")
  path.write_bytes(path.read_bytes()[:-100])


def damage_bytes(directory):
  [path] = directory.glob("*.array_record")
  raw = bytearray(path.read_bytes())
  for at in range(400, len(raw) - 400, 37):
    raw[at] ^= 0x55
  path.write_bytes(bytes(raw))


def damage_list(directory):
  [path] = directory.glob("0*.json")
  path.write_text(path.read_text()[:50])


def damage_manifest(directory):
  (directory / store.MANIFEST).write_text("{")


def swap_lists(directory):
  [path] = directory.glob("0*.json")
  said = json.loads(path.read_text())
  said["keys"] = said["keys"][::-1]
  path.write_text(json.dumps(said))


@pytest.mark.parametrize(
  ("damage", "told"),
  [
    (damage_length, "should have"),
    (damage_bytes, "cannot be read|another row"),
    (damage_list, "no list of cached rows"),
    (damage_manifest, "no manifest"),
    (swap_lists, "another row"),
  ],
)
def test_damage_is_told(tmp_path, damage, told):
  made = settings(evals={})
  write(tmp_path / "c", cached.TopK(3), made)
  damage(tmp_path / "c")
  with pytest.raises(types.UserError, match=told):
    trained(with_cache(made, tmp_path / "c"), tmp_path / "run")


@pytest.mark.parametrize(
  ("changes", "told"),
  [
    ({"method": methods.KD("reverse_kl"), "rest": "renormalise"}, "rest"),
    ({"method": methods.KD(tau=2.0)}, "renormalise_both"),
    ({"method": methods.Hinton()}, "Hinton"),
    ({"method": methods.DKD()}, "DKD"),
    ({"rest": "drawn"}, "which nobody drew"),
    ({"method": methods.Features()}, "features"),
  ],
)
def test_what_a_few_ids_cannot_say_is_refused(tmp_path, changes, told):
  write(tmp_path / "c", cached.TopK(3), settings(evals={}))
  changes = dict(changes)
  rest = changes.pop("rest", None)
  made = with_cache(settings(evals={}, **changes), tmp_path / "c", rest)
  with pytest.raises(types.UserError, match=told):
    start.prepare(made, None)


def test_another_teacher_is_refused(tmp_path):
  write(tmp_path / "c", cached.TopK(3), settings(evals={}))
  other = beds.MarkovChain(vocab_size=12, order=1, seed=7)
  with pytest.raises(types.UserError, match="of a teacher whose architecture"):
    start.prepare(with_cache(settings(other), tmp_path / "c"), None)
  with pytest.raises(types.UserError, match="another teacher"):
    write(tmp_path / "c", cached.TopK(3), settings(other))
  with pytest.raises(types.UserError, match="another signal"):
    write(tmp_path / "c", cached.TopK(4))
  (tmp_path / "full").mkdir()
  (tmp_path / "full" / "x").write_text("")
  with pytest.raises(types.UserError, match="holds x and no cache"):
    write(tmp_path / "full", cached.TopK(3))


def test_texts_of_the_run_itself_cannot_be_cached(tmp_path):
  from jdistill import rollout
  from jdistill.sampling import Sampling

  write(tmp_path / "c", cached.TopK(3), settings(evals={}))
  prompts = data.Prompts(DATA, prompt_tokens=4, batch_size=8)
  made = settings(
    evals={},
    data=prompts,
    rollout=rollout.Student(Sampling(max_new_tokens=8)),
  )
  with pytest.raises(types.UserError, match="writes its own texts"):
    start.prepare(with_cache(made, tmp_path / "c"), None)
  with pytest.raises(types.UserError, match="writes its own texts"):
    write(tmp_path / "d", cached.TopK(3), made)


def test_the_command_writes_and_is_told_of_faults(tmp_path, capsys):
  from jdistill import cli

  file = tmp_path / "config.py"
  file.write_text(
    "from jdistill import beds, config, methods, models\n"
    "CHAIN = beds.MarkovChain(vocab_size=5, order=1)\n"
    "def get_config():\n"
    "  return config.Config(\n"
    "    student=config.Fresh(models.DecoderConfig(vocab_size=5, width=8,"
    " mlp_width=8, num_heads=1, num_kv_heads=1, head_dim=8,"
    " segments=(models.Segment.uniform(1),))),\n"
    "    teachers={'teacher': config.Teacher(architecture=CHAIN)},\n"
    "    method=methods.KD(), steps=1,\n"
    "    data=beds.BedData(CHAIN, 8, seq_len=8, batch_size=8))\n"
  )
  argv = ["cache", str(file), "--to", str(tmp_path / "c")]
  assert cli.main([*argv, "--format", "sampled:5"]) == 0
  told = json.loads(capsys.readouterr().out.splitlines()[-1])
  assert told["rows"] == 8
  assert told["tokens"] == 64
  for more, said in (
    (["--format", "top:5"], "top_k:K"),
    (["--format", "top_k:many"], "top_k:K"),
    (["--format", "hidden:int4"], "hidden:int8"),
    (["--format", "sampled:300"], "1 to 255"),
    (["--teacher", "nobody"], "teachers has teacher"),
    (["--stage", "first"], "no stages"),
    (["--format", "top_k:5"], "another signal"),
  ):
    assert cli.main([*argv, *more]) == 2
    assert said in capsys.readouterr().err


def test_a_temperature_is_found_where_confidence_is_right(tmp_path):
  """Of a chain that wrote the text it is 1."""
  sharp = dataclasses.replace(CHAIN, vocab_size=4, concentration=1.0)
  made = settings(
    sharp,
    data=dataclasses.replace(DATA, bed=sharp, num_documents=600),
    student=config.Fresh(models.DecoderConfig(**LAYERS | {"vocab_size": 4})),
    evals={},
  )
  write(tmp_path / "c", cached.TopK(4), made)
  found = cache_job.calibrate(
    made, tmp_path / "c", temperatures=(0.5, 1.0, 2.0)
  )
  assert found["temperature"] == 1.0
  assert found["ece"][1.0] < 0.03 < min(found["ece"][0.5], found["ece"][2.0])
  write(tmp_path / "d", cached.Sampled(4), made)
  with pytest.raises(types.UserError, match="likeliest ids"):
    cache_job.calibrate(made, tmp_path / "d")


def test_answers_of_the_data_are_cached(tmp_path):
  prompts = data.Prompts(DATA, prompt_tokens=4, batch_size=8)
  made = settings(data=prompts, evals={})
  found = write(tmp_path / "c", cached.TopK(3), made)
  assert found["tokens"] == 24 * 13  # what follows the prompts
  trained(with_cache(made, tmp_path / "c"), tmp_path / "run")
