# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""A teacher and a student of stated shapes, drawn at random, as a real run."""

import argparse
import dataclasses
import pathlib
from typing import Any

import jax
import measure
import numpy as np

from jdistill import config, data, methods, optim, pretrained, refs, run, types
from jdistill.models import DecoderConfig, Segment
from jdistill.models.spec import Remat

METHODS = {
  "forward_kl": methods.KD("forward_kl"),
  "reverse_kl": methods.KD("reverse_kl"),
  "jsd": methods.JSD(),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Flags for the shapes of both models and of the batch."""
  for flag, default in (
    ("t-layers", 8),
    ("t-dim", 512),
    ("t-ffn", 1536),
    ("s-layers", 4),
    ("s-dim", 256),
    ("s-ffn", 768),
    ("heads", 8),
    ("kv-heads", 4),
    ("vocab", 32_768),
    ("batch", 8),
    ("seq", 256),
  ):
    parser.add_argument(f"--{flag}", type=int, default=default)


class Drawn(pretrained.Found):
  """A model whose weights are drawn, not read."""

  def params(self, *, dtype="float32", shardings=None):
    draw = np.random.default_rng(7)

    def one(path, shape):
      if path[-1].key == "scale":  # of norms
        return np.ones(shape.shape, dtype)
      values = draw.standard_normal(shape.shape, np.float32)
      values *= shape.shape[-1] ** -0.5
      return values.astype(dtype)

    shapes = self.architecture.shapes()
    params = jax.tree_util.tree_map_with_path(one, shapes)
    if shardings is None:
      return jax.device_put(params)
    return jax.device_put(params, shardings(self.architecture, shapes))


def build(
  args: argparse.Namespace,
  method: methods.Method,
  *,
  remat: Remat = "elementwise",
) -> run.Run:
  """The product's run of these shapes, on one device."""
  teacher = _decoder(args, args.t_layers, args.t_dim, args.t_ffn)
  student = dataclasses.replace(
    _decoder(args, args.s_layers, args.s_dim, args.s_ffn), remat=remat
  )
  nowhere = refs.Located("drawn", "huggingface", pathlib.Path("drawn"))
  found = {"teacher": Drawn("drawn", nowhere, teacher)}
  settings = config.Config(
    student=config.Fresh(student),
    method=method,
    data=data.TextData(seq_len=args.seq, batch_size=args.batch),
    teachers={"teacher": config.Teacher("drawn")},
    steps=1000,
    optimizer=optim.AdamW(weight_decay=0.1),
  )
  models = run.Models(found, student, None, None)
  shapes = jax.eval_shape(lambda: tokens(args))
  return run.build(settings, models, shapes, devices=jax.devices()[:1])


def tokens(args: argparse.Namespace) -> types.Batch:
  """A batch of random tokens, one document to each row."""
  shape = (args.batch, args.seq)
  draw = np.random.default_rng(0).integers(
    args.vocab, size=(args.batch, args.seq + 1), dtype=np.int32
  )
  view = types.Tokens(
    tokens=draw[:, :-1],
    targets=draw[:, 1:],
    mask=np.ones(shape, np.float32),
    positions=np.broadcast_to(np.arange(args.seq, dtype=np.int32), shape),
    segment_ids=np.ones(shape, np.int32),
  )
  return types.Batch(
    {"student": view}, {}, np.arange(args.batch, dtype=np.int32)
  )


def step_arm(
  args: argparse.Namespace, built: run.Run, train_step: Any
) -> measure.Arm:
  """An arm whose turns are updates; compile times and temporaries its facts."""
  batch = jax.device_put(tokens(args))
  with jax.set_mesh(built.mesh):
    teacher_params = built.load_teachers()
    state = built.init_state(teacher_params)
    compiled, compile_s, compile_cpu_s = measure.timed(
      lambda: train_step.lower(state, teacher_params, batch).compile()
    )

  def work():
    nonlocal state
    with jax.set_mesh(built.mesh):
      state, _ = jax.block_until_ready(compiled(state, teacher_params, batch))

  temp = compiled.memory_analysis().temp_size_in_bytes
  return measure.Arm(
    work,
    {
      "compile_s": compile_s,
      "compile_cpu_s": compile_cpu_s,
      "xla_temp_mib": temp / measure.MIB,
    },
  )


def _decoder(
  args: argparse.Namespace, layers: int, width: int, mlp_width: int
) -> DecoderConfig:
  return DecoderConfig(
    vocab_size=args.vocab,
    width=width,
    mlp_width=mlp_width,
    num_heads=args.heads,
    num_kv_heads=args.kv_heads,
    head_dim=width // args.heads,
    segments=(Segment.uniform(layers),),
  )
