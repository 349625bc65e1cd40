# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdistill import rollout, sharding, types
from jdistill.rollout import reprompted

WIDTH, PROMPT, END = 12, 4, 1
# Prompts by group, and answers; the sixth row only fills the batch.
PROMPTS = {3: [7, 8], 5: [9, 9, 9, 6]}
ROWS = [
  (3, [2, 4, END], 1.0),
  (3, [2, 5, END], 0.0),
  (5, [4, END], 1.0),
  (3, [2, 4, END], 1.0),
  (5, [4, 4, END], 2.0),
  (0, [], 0.0),
  (5, [3, 3, 3, 3, END], 1.5),
  (3, [5], 0.5),
]
SAID = [[], [11, 12], [13], [], [], [], [], [14, 15, 16]]
# Compiles in half the time; each program runs once or twice.
jit = functools.partial(
  jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)
TEXTS = {" is right. ": [20, 21], "so: ": [22], "wrong: ": [23, 24]}


def encode(text):
  return np.array(TEXTS[text], np.int32)


def padded(rows, width):
  return np.array([[*row, *[0] * (width - len(row))] for row in rows], np.int32)


def batch():
  """As `write` gives it and a reward has judged it."""
  prompts = [PROMPTS.get(group, []) for group, _, _ in ROWS]
  answers = [answer for _, answer, _ in ROWS]
  data = {
    "prompt": padded(prompts, PROMPT),
    "prompt_length": np.array([len(p) for p in prompts], np.int32),
    "group": np.array([group for group, _, _ in ROWS], np.int32),
    "reward": np.array([worth for _, _, worth in ROWS], np.float32),
    "feedback": padded(SAID, 3),
    "feedback_length": np.array([len(s) for s in SAID], np.int32),
  }
  view = rollout.base.joined(
    jnp.asarray(data["prompt"]),
    jnp.asarray(data["prompt_length"]),
    jnp.asarray(padded(answers, 6)),
    jnp.array([len(a) for a in answers]),
    WIDTH,
  )
  ids = jnp.arange(len(ROWS), dtype=jnp.int32)
  return types.Batch({"student": view}, jax.tree.map(jnp.asarray, data), ids)


def told(writer, step=0, given=None):
  tell = jit(rollout.make_tell(writer, encode, seed=3))
  return tell(jnp.int32(step), given or batch())


def able(row):
  """Rows that may be told to one, by the definition."""
  group, answer, _ = ROWS[row]
  good = [
    i
    for i, (other, _, worth) in enumerate(ROWS)
    if i != row and other == group and worth >= 1
  ]
  different = [i for i in good if ROWS[i][1] != answer]
  return different or good


@pytest.mark.slow
def test_siblings_are_successes_of_the_same_group_drawn_evenly():
  given = batch()
  answers = padded([a for _, a, _ in ROWS], 6)
  good = np.array([w >= 1 for _, _, w in ROWS])
  draw = jax.jit(jax.vmap(reprompted.siblings, (None, None, None, 0)))
  keys = jax.random.split(jax.random.key(0), (400, len(ROWS)))
  found = np.asarray(draw(answers, good, given.data["group"], keys))
  for row in range(len(ROWS)):
    expected = able(row) or [-1]
    seen, counts = np.unique(found[:, row], return_counts=True)
    assert seen.tolist() == expected
    share = 400 / len(expected)
    assert np.abs(counts - share).max() < 5 * np.sqrt(share)
  assert able(0) == [3]  # of the same text, as there is no other
  assert able(2) == [4, 6]
  assert able(7) == [0, 3]
  assert able(5) == []


def expected_prompt(row, which, unsolved):
  own, said = PROMPTS[ROWS[row][0]], SAID[row]
  text = list(own)
  if which is not None:
    text += [22, *ROWS[which][1], 20, 21]
  if said and (which is None or not unsolved):
    text += [23, 24, *said]
  return text + own


@pytest.mark.parametrize(
  "feedback_for",
  [pytest.param("unsolved", marks=pytest.mark.slow), "all"],
)
def test_the_teacher_s_text_is_laid_out_as_the_template_says(feedback_for):
  writer = rollout.Reprompted(
    solution="so: {solution} is right. ",
    feedback="wrong: {feedback}",
    feedback_tokens=3,
    feedback_for=feedback_for,
    prompt_tokens=15,
  )
  given = batch()
  if feedback_for == "unsolved":  # nobody of the second group is a success
    reward = jnp.where(given.data["group"] == 5, 0.0, given.data["reward"])
    given = dataclasses.replace(given, data=given.data | {"reward": reward})
  found, said = told(writer, given=given)
  view, view_of_student = found["privileged"], given["student"]
  index = np.asarray(found.data["teacher_index"])
  solved, reached = 0, 0
  for row, (group, answer, _) in enumerate(ROWS):
    options = [] if group == 5 and feedback_for == "unsolved" else able(row)
    texts = [
      expected_prompt(row, which, feedback_for == "unsolved")
      for which in options or [None]
      if answer
    ]
    solved += bool(options)
    known = bool(options) or (bool(SAID[row]) and bool(answer))
    fits = [t for t in texts if known and len(t) <= 15]
    if found.data["told"][row] == 0:
      # What was drawn for it does not fit, or there was nothing to tell.
      assert not known or len(fits) < len(texts)
      assert not view.mask[row].any()
      assert not view.segment_ids[row].any()
      continue
    reached += 1
    n = int(view.segment_ids[row].sum())
    text = [*view.tokens[row, :n].tolist(), int(view.targets[row, n - 1])]
    prompt = text[: len(text) - len(answer)]
    assert prompt in fits
    assert text[len(prompt) :] == answer
    assert view.positions[row, :n].tolist() == list(range(n))
    assert view.mask[row].sum() == len(answer)
    # Where the student predicts a target, the teacher predicts the same one.
    for place in np.flatnonzero(view_of_student.mask[row]):
      at = index[row, place]
      assert view.mask[row, at] == 1
      assert view.targets[row, at] == view_of_student.targets[row, place]
  there = sum(bool(a) for _, a, _ in ROWS)
  assert said["rollout/told"].sum == reached
  assert said["rollout/solved"].sum == solved
  assert said["rollout/solved"].weight == there
  assert 0 < reached < there


@pytest.mark.slow
def test_layout_and_what_is_masked_change_nothing():
  writer = rollout.Reprompted(feedback_tokens=3)
  expected, _ = told(writer, step=2)
  assert {int(n) for n in expected.data["told"]} == {0, 1}
  other, _ = told(writer, step=3)
  assert (other["privileged"].tokens != expected["privileged"].tokens).any()
  view = batch()["student"]
  junk = jnp.where(view.mask > 0, view.targets, 17)
  full = jnp.arange(3)[None] < batch().data["feedback_length"][:, None]
  dirty = dataclasses.replace(
    batch(),
    views={"student": dataclasses.replace(view, targets=junk)},
    data=batch().data
    | {"feedback": jnp.where(full, batch().data["feedback"], 19)},
  )
  found, _ = told(writer, step=2, given=dirty)
  names = ("told", "teacher_index")
  for name in names:
    np.testing.assert_array_equal(found.data[name], expected.data[name])
  jax.tree.map(
    np.testing.assert_array_equal, found["privileged"], expected["privileged"]
  )
  mesh = sharding.make_mesh(sharding.MeshShape(data=4, fsdp=2))
  with jax.set_mesh(mesh):
    placed = sharding.place_rows(jax.tree.map(np.asarray, batch()), mesh)
    found, _ = told(writer, step=2, given=placed)
  jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize(
  ("changes", "said"),
  [
    ({"template": "{prompt}"}, "{solution} or {feedback}"),
    ({"template": "{solution}"}, "with {prompt}"),
    ({"prompt_tokens": 0}, "prompt_tokens: found 0"),
  ],
)
def test_refusals(changes, said):
  with pytest.raises(types.UserError, match=said):
    rollout.Reprompted(**changes)
