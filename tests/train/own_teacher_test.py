# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Somebody's own Linen language model teaches, from its Orbax checkpoint."""

import json

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
import pytest

from jdistill import cli, config

CONFIG = """
import dataclasses
from flax import linen as nn
from jdistill import config, data, methods, models, optim


class Bigram(nn.Module):
  @nn.compact
  def __call__(self, tokens):
    x = nn.Embed(320, 12)(tokens)
    x = nn.tanh(nn.Dense(24)(x))
    return nn.Dense(320)(x)


def get_config():
  text = data.TextData(
    (data.Source("{text}", split="[:75%]"),), seq_len=16, batch_size=8
  )
  held = dataclasses.replace(
    text, sources=(data.Source("{text}", split="[98%:]"),)
  )
  shape = models.DecoderConfig(
    vocab_size=320, width=16, mlp_width=32, num_heads=2, num_kv_heads=1,
    head_dim=8, segments=(models.Segment.uniform(2),),
  )
  module = models.LinenArchitecture(Bigram())
  return config.Config(
    student=config.Fresh(shape),
    teachers={{
      "teacher": config.Teacher("orbax:{teacher}", architecture=module)
    }},
    tokenizer="{tokenizer}",
    method=methods.KD(),
    data=text,
    evals={{"eval": held}},
    optimizer=optim.AdamW(lr=1e-2),
    steps=8, log_every=1, eval_every=8, save_every=8,
  )
"""


@pytest.fixture
def own(world, tmp_path):
  """A config file whose teacher is a checkpoint of the module in it."""
  path = tmp_path / "own.py"
  path.write_text(
    CONFIG.format(
      text=world.text, teacher=tmp_path / "teacher", tokenizer=world.teacher
    )
  )
  module = config.load(path).teachers["teacher"].architecture.module
  params = module.init(jax.random.key(3), jnp.zeros((1, 4), int))
  # With opinions, so that there is something to learn.
  params["params"]["Dense_1"]["bias"] = 3 * jax.random.normal(
    jax.random.key(4), (320,)
  )
  with ocp.StandardCheckpointer() as writer:
    writer.save(tmp_path / "teacher", params)
  return path


def test_a_linen_language_model_teaches_a_decoder(own, tmp_path, capsys):
  run = tmp_path / "run"
  assert cli.main(["train", str(own), "--workdir", str(run)]) == 0
  rows = [json.loads(line) for line in (run / "metrics.jsonl").open()]
  start, end = [row["eval/kl"] for row in rows if "eval/kl" in row]
  assert end < 0.9 * start
  assert cli.main(["evaluate", str(run), "--teacher", str(run)]) == 0
  said = json.loads(capsys.readouterr().out.splitlines()[-1])
  assert said["kl"] == pytest.approx(0.0, abs=1e-5)


def test_its_module_must_stand_in_the_config(own, tmp_path, capsys):
  text = own.read_text().replace(", architecture=module)", ")")
  own.write_text(text)
  assert cli.main(["train", str(own), "--workdir", str(tmp_path / "no")]) == 2
  assert "architecture" in capsys.readouterr().err
  assert not (tmp_path / "no").exists()


@pytest.mark.slow
def test_so_may_a_student_be(own, tmp_path, capsys):
  text = own.read_text().replace("config.Fresh(shape)", "config.Fresh(module)")
  own.write_text(text)
  run = tmp_path / "run"
  assert cli.main(["train", str(own), "--workdir", str(run)]) == 0
  assert f"report: {run / 'report.html'}" in capsys.readouterr().out
  assert "a module of one" in (run / "report.html").read_text()
