# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Teacher hacking: a student nears a teacher that errs, and leaves the truth.

jdistill train configs/teacher_hacking.py --workdir runs/offline
jdistill train configs/teacher_hacking.py --workdir runs/online_teacher \
  --distilled.rollout.parts.offline.share 0 \
  --distilled.rollout.parts.online_teacher.share 1
jdistill train configs/teacher_hacking.py --workdir runs/online_student \
  --distilled.rollout.parts.offline.share 0 \
  --distilled.rollout.parts.online_student.share 1
jdistill report runs/offline runs/online_teacher runs/online_student

Tiapkin et al., 2025, arXiv:2502.02671. A Markov chain is the oracle; the
teacher has learnt from 256 documents of it, over and over; the student, which
is smaller, starts from the same documents and is distilled for 60 epochs of
480 other prompts. The teacher's answers to them are fixed (`offline`) or new
each time, or the student writes. `eval/kl` is the distance to the teacher (the
proxy), `eval/kl_oracle` to the truth (golden), both on documents of the oracle
that nobody has seen; `own/...` on what the student writes itself.

Fewer prompts, several fixed answers to each, as many pairs:
  --distilled.data.of.num-documents 240 --distilled.data.batch-size 15 \
  --distilled.group-size 2
More answers to each prompt, twice the pairs, as many updates:
  --distilled.data.batch-size 15 --distilled.group-size 2
Reverse KL, judged by itself (likewise `jsd` with its part):
  --distilled.method.parts.kd.method.divergence reverse_kl \
  --distilled.audits.hacking.metric eval/reverse_kl \
  --distilled.audits.hacking.golden eval/reverse_kl_oracle
"""

import dataclasses
from typing import Any

from jdistill import (
  audit,
  beds,
  config,
  data,
  methods,
  models,
  optim,
  rollout,
  schedules,
)
from jdistill import sampling as sampling_lib

ORACLE = beds.MarkovChain(vocab_size=10, order=2, concentration=0.3)
PROMPT, LENGTH = 4, 32
ANSWERS = sampling_lib.Sampling(max_new_tokens=LENGTH - PROMPT + 1)
EVENLY_IN_LOG = tuple(sorted({round(4 * 1.17**i) for i in range(35)}))


def decoder(width: int) -> models.DecoderConfig:
  return models.DecoderConfig(
    vocab_size=ORACLE.vocab_size,
    width=width,
    mlp_width=4 * width,
    num_heads=2,
    num_kv_heads=2,
    head_dim=width // 2,
    segments=(models.Segment.uniform(2),),
    ropes=(models.Rope(theta=10_000.0),),
  )


def prompts(
  text: beds.BedData, batch_size: int, **changes: Any
) -> data.Prompts:
  text = dataclasses.replace(text, **changes)
  return data.Prompts(text, prompt_tokens=PROMPT, batch_size=batch_size)


def get_config() -> config.Stages:
  oracle = config.Teacher(architecture=ORACLE)
  text = beds.BedData(ORACLE, num_documents=256, seq_len=LENGTH, batch_size=32)
  evals: dict[str, data.Data] = {
    "eval": prompts(text, 128, part="heldout", seed=2),
    "own": prompts(text, 64, part="heldout", seed=2, num_documents=64),
  }
  teacher = config.Config(
    student=config.Fresh(decoder(64)),
    teachers={"oracle": oracle},
    method=methods.CrossEntropy(),
    data=text,
    evals={"eval": evals["eval"]},
    optimizer=optim.AdamW(lr=schedules.WarmupDecay(peak=3e-3, warmup=20)),
    steps=200,
    eval_every=50,
    save_every=200,
  )
  start = dataclasses.replace(
    teacher, student=config.Fresh(decoder(32)), steps=100
  )
  writers = {
    "offline": rollout.Part(rollout.Teacher(ANSWERS, anew=False), 1.0),
    "online_teacher": rollout.Part(rollout.Teacher(ANSWERS), 0.0),
    "online_student": rollout.Part(rollout.Student(ANSWERS), 0.0),
  }
  distilled = config.Config(
    student=config.Pretrained("stage:start"),
    teachers={"teacher": config.Teacher("stage:teacher"), "oracle": oracle},
    method=methods.Sum(
      {
        "kd": methods.Part(methods.KD()),
        "jsd": methods.Part(methods.JSD(), 0.0),
      }
    ),
    data=prompts(text, 30, num_documents=480, seed=1),
    rollout=rollout.Mixture(writers),
    evals=evals,
    eval_rollouts={"own": rollout.Student(ANSWERS)},
    audits={"hacking": audit.TeacherHacking(golden="eval/kl_oracle")},
    optimizer=optim.AdamW(
      lr=schedules.WarmupDecay(peak=1e-3, warmup=20, shape="constant")
    ),
    steps=960,
    eval_every=960,
    eval_at=EVENLY_IN_LOG,
    save_every=960,
  )
  return config.Stages(
    {"teacher": teacher, "start": start, "distilled": distilled}
  )
