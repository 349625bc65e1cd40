# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Drafts of one target, by features and without, measured in speculation.

python -m jdistill.beds.draft_trial

The target, a decoder of four layers, has learnt a mixture of Markov chains;
which of them writes a document it has to find out from the text. Drafts of one
layer learn from it, all from the same documents, and guess what it writes after
held-out prompts. Prints one JSON object: accepted guesses for each pass of the
target, likewise by depth, parameters, and KL(target || draft) with the target's
own features, in nats per token of held-out documents.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jdistill import data, methods, step, types
from jdistill.beds import trial
from jdistill.beds.chain_mixture import ChainMixture
from jdistill.beds.documents import BedData
from jdistill.models import base, feature_draft
from jdistill.sampling import speculative
from jdistill.sampling.speculative.tree import Shape, Tree

CHAINS = ChainMixture(num_chains=8)
TARGET = trial.small_decoder(
  CHAINS.vocab_size, width=64, num_layers=4, num_heads=4
)
LEARNT = BedData(CHAINS, num_documents=8000, seq_len=64, batch_size=16)
HELDOUT = dataclasses.replace(
  LEARNT, part="heldout", num_documents=256, batch_size=256,
  shuffle=False, epochs=1,
)  # fmt: skip
TARGET_BUDGET = trial.Budget(steps=600, lr=5e-3)
BUDGET = trial.Budget(steps=400, lr=5e-3)
SEEDS = (0, 1, 2)
PROMPT_TOKENS, NEW_TOKENS = 16, 48
SHAPES: Mapping[str, Shape] = {
  "chain": Tree.chain(4),
  "tree": Tree.branching((3, 2, 1, 1)),
}
TEMPERATURES = {"greedy": 0.0, "T=1": 1.0}


def draft(mlp_width: int = 256, **fields: Any) -> feature_draft.FeatureDraft:
  """One layer like those of the target."""
  return feature_draft.FeatureDraft(
    vocab_size=TARGET.vocab_size,
    width=TARGET.width,
    mlp_width=mlp_width,
    num_heads=TARGET.num_heads,
    num_kv_heads=TARGET.num_kv_heads,
    head_dim=TARGET.head_dim,
    ropes=TARGET.ropes,
    **fields,
  )


PLAIN = trial.small_decoder(
  CHAINS.vocab_size, width=64, num_layers=1, num_heads=4
)
ARMS: dict[str, tuple[base.Architecture, methods.Method]] = {
  "kd": (dataclasses.replace(PLAIN, mlp_width=293), methods.KD()),
  "eagle": (draft(), methods.EAGLE()),
  "feature sampling": (draft(sampling=2), methods.EAGLE()),
  "partial alignment": (draft(unaligned=32), methods.EAGLE()),
  "both": (draft(sampling=2, unaligned=32), methods.EAGLE()),
  "wide eagle": (draft(mlp_width=608), methods.EAGLE()),
  "input norm": (draft(input_norm=True), methods.EAGLE()),
  "no noise": (draft(noise=0.0), methods.EAGLE()),
  "no feature loss": (draft(), methods.KD()),
}
"""Students and methods; "kd" has as many parameters as "eagle", "wide eagle"
as "both"."""


def target() -> types.PyTree:
  """What the target has learnt of the truth."""
  truth = CHAINS.init(jax.random.key(0))
  taught = trial.Trial(
    TARGET, methods.KD(), TARGET_BUDGET, {"teacher": (CHAINS, truth)}
  )
  return taught.run(LEARNT, seed=0)


def measured(
  student: base.Architecture,
  params: types.PyTree,
  target_params: types.PyTree,
  view: types.Tokens,
) -> dict[str, Any]:
  """Accepted guesses, by shape and temperature."""
  drafting: Any = speculative.ModelDraft(student)
  if isinstance(student, feature_draft.FeatureDraft):
    drafting = speculative.FeatureDraft(student)
    params = drafting.params(params, TARGET, target_params)
  prompts = [np.asarray(row[:PROMPT_TOKENS]) for row in view.tokens]
  found = {}
  for shape, tree in SHAPES.items():
    for name, temperature in TEMPERATURES.items():
      one = speculative.measure(
        TARGET,
        drafting,
        target_params,
        params,
        prompts,
        max_new_tokens=NEW_TOKENS,
        tree=tree,
        temperature=temperature,
        key=jax.random.key(7),
        batch_size=len(prompts),
        repeats=0,
      )
      # Greedy text is the target's own, but where rounding decides.
      assert (one.different or 0) <= one.close
      found[f"{shape}, {name}"] = {
        "accepted": one.accepted_per_pass,
        "by depth": one.acceptance,
      }
  return found


def arm(name: str, target_params: types.PyTree, view: types.Tokens):
  """What a draft reaches, over seeds."""
  student, method = ARMS[name]
  teachers = {"teacher": (TARGET, target_params)}
  taught = trial.Trial(student, method, BUDGET, teachers)
  judge = jax.jit(step.make_eval_step(student, TARGET))
  rows = types.Batch({"student": view}, {}, np.arange(len(view.tokens)))
  kl, guesses = [], []
  for seed in SEEDS:
    params = taught.run(LEARNT, seed=seed)
    said = judge(params, target_params, rows)["kl"]
    kl.append(float(said.sum / said.weight))
    guesses.append(measured(student, params, target_params, view))
  found: dict[str, Any] = {
    "parameters": base.num_params(student.shapes()),
    "kl": trial.summary(kl),
  }
  for key in guesses[0]:
    found[key] = trial.summary([one[key]["accepted"] for one in guesses])
    depths = np.array([one[key]["by depth"] for one in guesses], float)
    found[key]["by depth"] = depths.mean(0).round(3).tolist()
  return found


def main() -> None:
  """Runs all arms and prints the result."""
  params = target()
  [rows] = [trial.to_batch(arrays) for arrays in data.load(HELDOUT, seed=0)]
  view = rows["student"]
  assert isinstance(view, types.Tokens)
  truth = CHAINS.init(jax.random.key(0))
  judge = jax.jit(step.make_eval_step(TARGET, CHAINS))
  said = judge(params, truth, rows)["kl"]
  result: dict[str, Any] = {
    "target": {
      "parameters": base.num_params(TARGET.shapes()),
      "golden": round(float(said.sum / said.weight), 4),
    }
  }
  trial.tell("target", result["target"])
  for name in ARMS:
    result[name] = arm(name, params, view)
    trial.tell(name, result[name])
  print(json.dumps(result))


if __name__ == "__main__":
  main()
