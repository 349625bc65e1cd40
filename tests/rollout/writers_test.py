# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdistill import beds, data, losses, models, rollout, run, sharding, types
from jdistill.sampling import Sampling

VOCAB, WIDTH, PROMPT, NEW = 11, 24, 6, 16
END = 3


def decoder(layers=1, width=8):
  return models.DecoderConfig(
    vocab_size=VOCAB,
    width=width,
    mlp_width=16,
    num_heads=2,
    num_kv_heads=1,
    head_dim=4,
    segments=(models.Segment.uniform(layers),),
    ropes=(models.Rope(theta=100.0),),
  )


STUDENT, TEACHER = decoder(), decoder(2, 12)
HOT = Sampling(max_new_tokens=NEW)
COLD = Sampling(max_new_tokens=NEW, temperature=0.0)


@pytest.fixture(scope="module")
def weights():
  # Larger than drawn, so that what was written matters for what comes next.
  def drawn(shape, seed):
    return jax.tree.map(lambda x: 3 * x, shape.init(jax.random.key(seed)))

  return drawn(STUDENT, 1), {"teacher": drawn(TEACHER, 2)}


@pytest.fixture(scope="module")
def batch():
  chain = beds.MarkovChain(vocab_size=VOCAB, order=1)
  of = beds.BedData(chain, num_documents=64, seq_len=WIDTH)
  spec = data.Prompts(of, prompt_tokens=PROMPT, batch_size=8, shuffle=False)
  loader = data.load(spec, seed=0)
  found = run.to_batch(next(loader))
  loader.close()
  return jax.tree.map(jnp.asarray, found)


def writing(writer, *, ends=(END,), **kwargs):
  teachers = {"teacher": TEACHER}
  return jax.jit(
    rollout.make_rollout(writer, STUDENT, teachers, ends=ends, **kwargs)
  )


def kept_at_first(writer, batch):
  return writer.init(rollout.answered(batch))


def written(writer, weights, batch, *, steps=1, **kwargs):
  """The batches of so many steps, and what is kept."""
  student, teachers = weights
  write, kept = writing(writer, **kwargs), kept_at_first(writer, batch)
  found = []
  for step in range(steps):
    one, kept, said = write(student, kept, jnp.int32(step), teachers, batch)
    found.append((one, said))
  return found, kept


def answers(batch):
  view = batch["student"]
  return [
    np.asarray(row)[np.asarray(mask) > 0].tolist()
    for row, mask in zip(view.targets, view.mask, strict=True)
  ]


def scores(architecture, params, batch):
  """[B, T] log-probabilities of the targets, teacher-forced."""
  view = batch["student"]
  logits = architecture.bind(params)(view).logits
  return -losses.cross_entropy(logits, view.targets) * view.mask


def test_the_dataset_s_answers_are_left_as_they_are(weights, batch):
  [(found, said)], _ = written(rollout.Dataset(), weights, batch)
  jax.tree.map(np.testing.assert_array_equal, found.views, batch.views)
  assert said["rollout/from/dataset"].sum == 8
  assert not found.data["log_probs"].any()


def test_spans_are_runs_between_the_tokens_that_part_them(weights, batch):
  writer = rollout.Spanned(rollout.Dataset(), between=(2, 5))
  [(found, _)], _ = written(writer, weights, batch)
  view, spans = found["student"], np.asarray(found.data["spans"])
  blank = writer.blank(batch)
  np.testing.assert_array_equal(blank.data["spans"], spans)
  for row, answer in enumerate(answers(found)):
    expected, number = [], 1
    for token in answer:
      parts = token in (2, 5)
      number += parts
      expected.append(0 if parts else number)
    inside = np.asarray(view.mask)[row] > 0
    assert spans[row][inside].tolist() == expected
    assert not spans[row][~inside].any()
  assert spans.max() > 1


@pytest.mark.parametrize("name", ["student", "teacher"])
def test_what_a_model_writes_is_scored_as_it_would_read_it(
  weights, batch, name
):
  writer = rollout.Student(HOT) if name == "student" else rollout.Teacher(HOT)
  [(found, said)], _ = written(writer, weights, batch)
  shape, params = (
    (STUDENT, weights[0])
    if name == "student"
    else (TEACHER, weights[1]["teacher"])
  )
  np.testing.assert_allclose(
    found.data["log_probs"], scores(shape, params, found), atol=1e-4
  )
  np.testing.assert_allclose(
    found.data["log_probs"], found.data["sampling_log_probs"], atol=1e-4
  )
  for row, answer in zip(found["student"].tokens, answers(found), strict=True):
    assert 1 <= len(answer) <= NEW
    assert END not in answer[:-1]
    assert len(answer) == NEW or answer[-1] == END
    assert row[:PROMPT].tolist() in batch.data["prompt"].tolist()
  lengths = [len(a) for a in answers(found)]
  assert said["rollout/tokens"].sum == sum(lengths)
  ended = sum(a[-1] == END for a in answers(found))
  assert said["rollout/ended"].sum == ended


def test_greedy_answers_are_the_likeliest_tokens(weights, batch):
  [(found, _)], _ = written(rollout.Student(COLD), weights, batch)
  view = found["student"]
  best = STUDENT.bind(weights[0])(view).logits.argmax(-1)
  learnt = np.asarray(view.mask) > 0
  np.testing.assert_array_equal(
    np.asarray(best)[learnt], np.asarray(view.targets)[learnt]
  )


@pytest.mark.slow
def test_a_student_writes_anew_and_a_teacher_may_repeat_itself(weights, batch):
  def two(writer):
    found, _ = written(writer, weights, batch, steps=2)
    return [answers(one) for one, _ in found]

  first, second = two(rollout.Student(HOT))
  assert first != second
  first, second = two(rollout.Teacher(HOT))
  assert first != second
  first, second = two(rollout.Teacher(HOT, anew=False))
  assert first == second


@pytest.mark.slow
def test_rows_write_alike_in_any_company_and_on_any_mesh(weights, batch):
  student, teachers = weights
  writer = rollout.Student(HOT)
  [(whole, _)], _ = written(writer, weights, batch)
  half = jax.tree.map(lambda x: x[4:], batch)
  [(part, _)], _ = written(writer, weights, half)
  assert answers(part) == answers(whole)[4:]
  for shape in ({"data": 8}, {"data": 2, "fsdp": 2, "tensor": 2}):
    mesh = sharding.make_mesh(sharding.MeshShape(**shape))
    with jax.set_mesh(mesh):
      placed = sharding.place_rows(jax.tree.map(np.asarray, batch), mesh)
      one, _, _ = writing(writer)(student, {}, jnp.int32(0), teachers, placed)
    assert answers(one) == answers(whole)


def test_a_mixture_draws_by_its_shares_and_says_who_wrote(weights, batch):
  parts = {
    "own": rollout.Part(rollout.Student(HOT), share=1.0),
    "given": rollout.Part(rollout.Dataset(), share=3.0),
  }
  found, _ = written(rollout.Mixture(parts), weights, batch, steps=64)
  sources = np.array([np.asarray(one.data["source"]) for one, _ in found])
  assert (sources == sources[:, :1]).all()  # one writer for the whole batch
  own = (sources[:, 0] == 0).mean()
  assert 0.1 < own < 0.4
  for one, said in found:
    mine = float(said["rollout/from/own"].sum)
    assert mine == float((np.asarray(one.data["source"]) == 0).sum())
  by_row = rollout.Mixture(parts, per="row")
  found, _ = written(by_row, weights, batch, steps=32)
  sources = np.array([np.asarray(one.data["source"]) for one, _ in found])
  assert (sources != sources[:, :1]).any()
  assert 0.15 < (sources == 0).mean() < 0.35
  given = answers(batch)
  for one, _ in found[:4]:
    for row, source in enumerate(np.asarray(one.data["source"])):
      same = answers(one)[row] == given[row]
      assert same == bool(source == 1)


def test_a_share_of_0_leaves_its_writer_out(weights, batch):
  parts = {
    "own": rollout.Part(rollout.Student(HOT), share=0.0),
    "given": rollout.Part(rollout.Dataset(), share=1.0),
  }
  writer = rollout.Mixture(parts)
  assert writer.sources() == ("given",)
  found, kept = written(writer, weights, batch, steps=8)
  assert all((one.data["source"] == 0).all() for one, _ in found)
  assert list(kept) == ["given"]


def test_a_writer_left_out_asks_for_nothing_and_changes_no_draw(weights, batch):
  told = rollout.Privileged(rollout.Teacher(HOT, name="other"))
  parts = {
    "told": rollout.Part(told),
    "own": rollout.Part(rollout.Student(HOT)),
  }
  both = rollout.Mixture(parts)
  assert both.teachers() == ("other",)
  assert both.needs() == ("privileged", "privileged_length")
  parts["told"] = rollout.Part(told, share=0.0)
  alone = rollout.Mixture(parts)
  assert alone.teachers() == alone.needs() == ()
  parts["told"] = rollout.Part(rollout.Dataset(), share=1e-9)
  [(one, _)], _ = written(alone, weights, batch)
  [(two, _)], _ = written(rollout.Mixture(parts), weights, batch)
  assert answers(one) == answers(two)


def test_reused_answers_age(weights, batch):
  writer = rollout.Reused(rollout.Student(HOT), updates=3)
  found, _ = written(writer, weights, batch, steps=4)
  texts = [answers(one) for one, _ in found]
  assert texts[0] == texts[1] == texts[2] != texts[3]
  ages = [int(one.data["age"][0]) for one, _ in found]
  assert ages == [0, 1, 2, 0]


def test_a_replay_buffer_gives_back_what_was_put_in(weights, batch):
  writer = rollout.Replay(rollout.Student(HOT), capacity=24, fresh=0.5)
  found, kept = written(writer, weights, batch, steps=24)
  assert writer.sources() == ("student", "replay")
  fresh = {}
  replayed = 0
  for step, (one, _) in enumerate(found):
    texts = answers(one)
    rows = np.asarray(one["student"].tokens)
    for row, source in enumerate(np.asarray(one.data["source"]).tolist()):
      text = (tuple(rows[row].tolist()), tuple(texts[row]))
      age = int(one.data["age"][row])
      if source == 0:
        assert age == 0
        fresh.setdefault(text, []).append(step)
      else:
        replayed += 1
        assert step - age in fresh[text]
  assert replayed > 24
  assert kept["ring"]["pushed"] == 8 * sum(
    int(one.data["source"][0]) == 0 for one, _ in found
  )


def test_adaptive_replay_follows_the_released_rule(weights, batch):
  writer = rollout.AdaptiveReplay(
    rollout.Student(HOT), capacity=16, increment=0.5, metric="eval/ce"
  )
  kept = kept_at_first(writer, batch)

  def told(loss, kept):
    kept = writer.on_eval(kept, {"eval/ce": loss})
    return kept, float(kept["threshold"]), float(kept["reference"])

  kept, *found = told(2.0, kept)
  assert found == [0.0, 2.0]
  kept, *found = told(1.0, kept)  # better: the reference stays
  assert found == [0.0, 2.0]
  kept, *found = told(2.05, kept)  # not by the margin
  assert found == [0.0, 2.0]
  kept, *found = told(2.5, kept)
  assert found == [0.5, 2.5]
  kept, *found = told(2.75, kept)
  assert found == [1.0, 2.75]
  kept, *found = told(4.0, kept)
  assert found == [1.0, 4.0]
  with pytest.raises(types.UserError, match=r"metric is 'eval/ce'"):
    writer.on_eval(kept, {"own/ce": 1.0})


def test_adaptive_replay_writes_replays_or_takes_the_dataset(weights, batch):
  writer = rollout.AdaptiveReplay(rollout.Student(HOT), capacity=16, steps=100)
  student, teachers = weights
  write, kept = writing(writer), kept_at_first(writer, batch)

  def source(step, kept):
    one, kept, _ = write(student, kept, jnp.int32(step), teachers, batch)
    return int(one.data["source"][0]), kept

  found, kept = zip(*[source(s, kept) for s in range(8)], strict=True)
  assert set(found) == {2}  # at threshold 0 the dataset alone
  kept = {**kept[-1], "threshold": jnp.float32(1.0)}
  for step in range(2):  # until the ring is full everything is anew
    found, kept = source(step, kept)
    assert found == 0
  found, kept = source(100, kept)  # no writing anew at the end
  assert found == 1


@pytest.mark.slow
def test_revised_answers_take_one_token_of_the_teacher(weights, batch):
  student, teachers = weights
  [(before, _)], _ = written(rollout.Student(HOT), weights, batch)
  writer = rollout.Revised(rollout.Student(HOT))
  [(after, _)], _ = written(writer, weights, batch)
  view = before["student"]
  q = jax.nn.log_softmax(STUDENT.bind(student)(view).logits)
  p = jax.nn.log_softmax(TEACHER.bind(teachers["teacher"])(view).logits)
  kl = np.asarray((jnp.exp(p) * (p - q)).sum(-1))
  best = np.asarray(p.argmax(-1))
  wrong = (np.asarray(view.mask) > 0) & (best != np.asarray(view.targets))
  changed = 0
  for row in range(8):
    assert wrong[row].any()
    place = int(np.where(wrong[row], kl[row], -1).argmax())
    targets = np.asarray(after["student"].targets)[row]
    np.testing.assert_array_equal(
      targets[:place], np.asarray(view.targets)[row, :place]
    )
    assert targets[place] == best[row, place]
    assert after.data["sampling_log_probs"][row, place] == 0
    changed += targets.tolist() != np.asarray(view.targets)[row].tolist()
    answer = answers(after)[row]
    assert END not in answer[:-1]
  assert changed == 8
  np.testing.assert_allclose(
    after.data["log_probs"], scores(STUDENT, student, after), atol=1e-4
  )


@pytest.mark.slow
def test_an_answer_that_the_teacher_would_give_is_not_revised(weights, batch):
  student, teachers = weights
  same = {"teacher": student}
  write = jax.jit(
    rollout.make_rollout(
      rollout.Revised(rollout.Student(COLD)), STUDENT, {"teacher": STUDENT},
      ends=(END,),
    )
  )  # fmt: skip
  found, _, _ = write(student, {}, jnp.int32(0), same, batch)
  [(plain, _)], _ = written(rollout.Student(COLD), weights, batch)
  assert answers(found) == answers(plain)
  del teachers


@pytest.mark.parametrize(
  "make",
  [
    lambda: rollout.Blend(weights={"student": 0.5, "teacher": 0.4}),
    lambda: rollout.Mixture({}),
    lambda: rollout.Mixture({"a": rollout.Part(rollout.Dataset(), share=0.0)}),
    lambda: rollout.Reused(rollout.Student(), updates=0),
    lambda: rollout.Replay(capacity=0),
    lambda: rollout.Revised(corrections=0),
  ],
)
def test_refusals(make):
  with pytest.raises(types.UserError, match="found"):
    make()


@pytest.mark.slow
def test_blends_write_by_the_mean_of_their_models(weights, batch):
  alone = rollout.Blend(HOT, weights={"student": 1.0})
  [(found, _)], _ = written(alone, weights, batch)
  [(plain, _)], _ = written(rollout.Student(HOT), weights, batch)
  assert answers(found) == answers(plain)
  half = rollout.Blend(HOT, weights={"student": 0.5, "teacher": 0.5})
  [(found, _)], _ = written(half, weights, batch)
  both = [
    scores(STUDENT, weights[0], found),
    scores(TEACHER, weights[1]["teacher"], found),
  ]
  mean = jnp.logaddexp(*both) - jnp.log(2.0)
  mask = found["student"].mask
  np.testing.assert_allclose(
    found.data["sampling_log_probs"], mean * mask, atol=1e-4
  )
  np.testing.assert_allclose(found.data["log_probs"], both[0], atol=1e-4)


def test_two_may_write_beside_each_other(weights, batch):
  writer = rollout.Beside(rollout.Dataset(), rollout.Teacher(HOT))
  [(found, _)], _ = written(writer, weights, batch)
  assert answers(found) == answers(batch)
  other = dataclasses.replace(found, views={"student": found["teacher_text"]})
  assert answers(other) != answers(batch)
  assert all(1 <= len(answer) <= NEW for answer in answers(other))
  blank = jax.eval_shape(writer.blank, batch)
  assert jax.tree.structure(blank) == jax.tree.structure(found)
