# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Run directories made to harm: nothing in them runs or leaves its folder."""

import contextlib
import json
import os
import pathlib
import pickle
import shutil

import pytest
import tensorstore

from jdistill import pretrained, report, train, types


def log(line):
  del line


@pytest.fixture(scope="module")
def finished(world, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("finished") / "run"
  train.train(world.config(), workdir, log=log)
  return workdir


@pytest.fixture
def copy(finished, tmp_path):
  return pathlib.Path(shutil.copytree(finished, tmp_path / "run"))


class Bomb:
  """Leaves a file behind if anybody unpickles it."""

  def __init__(self, path):
    self.path = str(path)

  def __reduce__(self):
    return os.mkdir, (self.path,)


def test_a_pickle_can_go_off(tmp_path):
  """So that its silence below says something."""
  pickle.loads(pickle.dumps(Bomb(tmp_path / "gone-off")))
  assert (tmp_path / "gone-off").is_dir()


@pytest.mark.parametrize(
  "pattern", ["state/**/*", "position/*", "metrics/*", "_*", "**/*"]
)
def test_pickles_in_a_checkpoint_stay_closed(world, copy, tmp_path, pattern):
  marker = tmp_path / "gone-off"
  changed = 0
  for step in (copy / "checkpoints").iterdir():
    for path in step.glob(pattern):
      if path.is_file():
        path.write_bytes(pickle.dumps(Bomb(marker)))
        changed += 1
  assert changed or pattern == "metrics/*"
  for attempt in (
    lambda: train.train(world.config(steps=6), copy, log=log),
    lambda: pretrained.find(str(copy)).params(),
  ):
    with contextlib.suppress(types.UserError):
      attempt()
  assert not marker.exists()


@pytest.mark.parametrize("kind", ["os.system", "subprocess.Popen", "pathlib.P"])
def test_json_names_no_classes_but_ours(copy, kind):
  hostile = json.dumps({"type": kind, "command": "touch gone-off"})
  (copy / "student.json").write_text(hostile)
  with pytest.raises(types.UserError, match=r"student\.json"):
    pretrained.find(str(copy))
  assert not pathlib.Path("gone-off").exists()


LINKS = [
  "samples",
  "tensorboard",
  "checkpoints",
  "checkpoints/2",
  "metrics.tmp",
  "config.json.tmp",
  "result.json.tmp",
  "report.html.part",
]


@pytest.mark.parametrize("name", LINKS)
@pytest.mark.parametrize("command", ["train", "report"])
def test_nothing_is_written_through_a_link(
  world, copy, tmp_path, name, command
):
  outside = tmp_path / "outside"
  outside.mkdir()
  (outside / "thesis.tex").write_text("mine")
  link = copy / name
  if link.is_dir():
    shutil.rmtree(link)
  target = outside if "." not in link.name else outside / "thesis.tex"
  link.symlink_to(target)
  act = {
    "train": lambda: train.train(world.config(steps=6), copy, log=log),
    "report": lambda: report.write(copy),
  }[command]
  with pytest.raises(types.UserError, match="is a symbolic link to"):
    act()
  assert [p.name for p in outside.iterdir()] == ["thesis.tex"]
  assert (outside / "thesis.tex").read_text() == "mine"


def test_the_run_itself_may_be_a_link(world, copy, tmp_path):
  (tmp_path / "link").symlink_to(copy)
  train.train(world.config(steps=6), tmp_path / "link", log=log)


def test_an_array_of_absurd_size(world, copy):
  """2 ** 40 rows: refused by what is expected, before memory is asked for."""
  for step in (copy / "checkpoints").iterdir():
    shutil.rmtree(step / "state" / "array_metadatas")
    array = tensorstore.open(
      {
        "driver": "zarr",
        "kvstore": {
          "driver": "ocdbt",
          "base": f"file://{step / 'state'}",
          "path": "params.student.embedding.weight/",
        },
      }
    ).result()
    array.resize(
      exclusive_max=[1 << 40, array.shape[1]], resize_metadata_only=True
    ).result()
  for attempt in (
    lambda: train.train(world.config(steps=6), copy, log=log),
    lambda: pretrained.find(str(copy)).params(),
  ):
    with pytest.raises(types.UserError, match="1099511627776"):
      attempt()
