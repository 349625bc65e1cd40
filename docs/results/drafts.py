# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Drafts of speculative decoding, by how often their target accepts them."""

from experiments import Arm, Experiment, parts, writers
from on_chains import CHAIN, READER

DRAFT = {
  "eval/acceptance": "higher",
  "eval/block_efficiency": "higher",
  "eval/kl": "lower",
}

_OBJECTIVES = {
  "FKL": "forward_kl",
  "RKL": "reverse_kl",
  "JSD": "jsd",
  "TVD": "total_variation",
}
_TEXTS = {
  "fixed": "dataset",
  "target's": "target",
  "draft's": "draft",
  "mixed": "dataset draft",
}
DISTILLSPEC = Experiment(
  name="distillspec",
  title="DistillSpec",
  paper="Zhou et al., 2023, arXiv:2310.08461",
  methods=("KD", "JSD"),
  claim=(
    "A distilled draft is accepted more often; text that the draft or the "
    "target writes is better than fixed text; which divergence is best depends "
    "on the task."
  ),
  config="configs/distillspec_markov.py",
  arms={
    f"{objective}, {text} text": Arm(
      f"{parts(part, ' '.join(_OBJECTIVES.values()))} "
      f"{writers(who, 'dataset target draft')}",
      rate_of=None if text == "fixed" else f"{objective}, fixed text",
    )
    for objective, part in _OBJECTIVES.items()
    for text, who in _TEXTS.items()
  },
  control="FKL, fixed text",
  metrics=DRAFT,
  budget=CHAIN,
  first=READER,
  verdict="The divergence decides: total variation, which is 1 less the "
  "acceptance, is accepted most (0.816), then JSD (0.804), forward KL "
  "(0.795) and reverse KL (0.767). The text says little here, where fixed "
  "text is from the target as well: what the target writes anew gains 0.002 "
  "to 0.003 but with forward KL, what the draft writes loses 0.005 to 0.011.",
)

_ALL_IN_ONE = "--reference.steps 1 --draft.steps 400"
ADASPEC = Experiment(
  name="adaspec",
  title="AdaSPEC",
  paper="Hu et al., 2025, arXiv:2510.19779",
  methods=("AdaSPEC",),
  claim=(
    "A draft that learns the 40 % of tokens on which a reference is furthest "
    "ahead of it is accepted more often than one that learns all."
  ),
  config="configs/adaspec_markov.py",
  arms={
    "DistillSpec": Arm(f"{_ALL_IN_ONE} --draft.method.fraction 1"),
    "AdaSPEC": Arm(),
    "lowest gain": Arm("--draft.method.keep lowest", rate_of="AdaSPEC"),
    "random": Arm(
      f"{_ALL_IN_ONE} --draft.method.keep random", rate_of="DistillSpec"
    ),
    "largest loss": Arm(
      f"{_ALL_IN_ONE} --draft.method.keep largest_loss", rate_of="AdaSPEC"
    ),
    "DistillSpec, draft's updates alone": Arm(
      "--reference.steps 1 --draft.method.fraction 1", rate_of="DistillSpec"
    ),
  },
  control="DistillSpec",
  metrics=DRAFT,
  budget=(
    "400 updates of 32 answers of 20 tokens in all, from the same start: with "
    "a reference, half of them are its own"
  ),
  rate="--draft.optimizer.lr.peak",
  first=READER,
  verdict="Does not hold here: at the same budget in all, the reference's "
  "updates counted, learning from all tokens is accepted more often (0.809 "
  "against 0.789), and with the draft's updates alone as often (0.790). "
  "Tokens chosen at random do as well as those of the largest gain; those of "
  "the lowest gain are far worse, so the choice does matter.",
)
