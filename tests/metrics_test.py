# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""The numbers of a run: counted right, read late, written once."""

import functools
import json
import pathlib
import socket
import struct
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import pytest
from tensorboardX import record_writer
from tensorboardX.proto import event_pb2

from jdistill import metrics, types
from jdistill.types import Mean


def test_sums_over_parts_are_the_means_of_the_whole():
  parts = [
    {"ce": Mean(jnp.asarray(6.0), jnp.asarray(3.0)), "a": Mean(1.0, 1.0)},
    {"ce": Mean(jnp.asarray(1.0), jnp.asarray(1.0))},
    {"ce": Mean(jnp.asarray(0.0), jnp.asarray(0.0)), "b": Mean(3.0, 2.0)},
  ]
  found = metrics.means(metrics.add(parts))
  assert found == {"ce": 7 / 4, "a": 1.0, "b": 1.5}
  assert all(type(value) is float for value in found.values())


def test_what_has_no_weight_has_no_mean():
  found = metrics.means({"none": Mean(jnp.zeros(()), jnp.zeros(()))})
  assert found == {}
  assert metrics.add([]) == {}


def test_metrics_outlive_the_state_they_came_with():
  """They are read when the next step has taken the state's memory over."""

  @functools.partial(jax.jit, donate_argnums=0)
  def step(state):
    new = types.TrainState(
      state.step + 1, state.params * 2, state.opt_state, state.extra
    )
    return new, {"sum": Mean(new.params.sum(), jnp.ones(())),
                 "step": Mean(new.step * 1.0, jnp.ones(()))}  # fmt: skip

  state = types.TrainState(jnp.zeros((), jnp.int32), jnp.ones((8, 8)), {}, {})
  pending, rows = None, []
  for _ in range(4):
    left = state
    state, found = step(state)
    assert left.params.is_deleted()
    if pending is not None:
      rows.append(metrics.means(pending))
    pending = found
  assert rows == [{"sum": 64.0 * 2**n, "step": float(n)} for n in (1, 2, 3)]


def test_the_clock_leaves_out_what_is_no_step():
  begin = time.perf_counter()
  clock = metrics.Clock()
  with clock.paused():
    time.sleep(0.2)
  row = clock.tick(1000)
  assert 0 < row["seconds"] <= time.perf_counter() - begin - 0.2
  assert row["tokens_per_s"] == pytest.approx(1000 / row["seconds"])
  assert row["data_wait"] == 0
  time.sleep(0.05)
  assert clock.tick(1)["seconds"] >= 0.05  # the pause is forgotten


def test_the_clock_tells_waiting_from_working():
  clock = metrics.Clock()
  time.sleep(0.1)
  with clock.waiting():
    time.sleep(0.2)
  row = clock.tick(1)
  assert 0.2 <= row["data_wait"] * row["seconds"] <= row["seconds"] - 0.1
  assert clock.tick(1)["data_wait"] == 0


def work(seconds: float) -> None:
  """So much processor time, whatever else the machine does."""
  begin = time.process_time()
  while time.process_time() - begin < seconds:
    sum(range(1000))


def test_the_clock_counts_processor_seconds_of_steps():
  clock, before = metrics.Clock(), time.process_time()
  work(0.1)
  first = clock.tick(1)["cpu_seconds"]
  with clock.paused():
    begin = time.process_time()
    work(0.2)
    away = time.process_time() - begin
  work(0.05)
  both = clock.tick(1)["cpu_seconds"]
  assert first >= 0.1
  assert both - first >= 0.05
  assert both <= time.process_time() - before - away


def test_the_time_left_comes_from_the_median_step():
  clock, took = metrics.Clock(), []
  for pause in (0.01, 0.2, 0.01):  # the second compiles, say
    time.sleep(pause)
    took.append(clock.tick(1)["seconds"])
  seconds = int(sorted(took)[1] * 10**6)
  hours, minutes, rest = map(int, clock.left(10**6).split(":"))
  assert 3600 * hours + 60 * minutes + rest == seconds
  assert minutes < 60
  assert rest < 60
  assert clock.left(0) == "0:00:00"


def write(directory, rows, **kwargs) -> None:
  writer = metrics.Writer(directory, **kwargs)
  for step, row in rows:
    writer.write(step, row)
  writer.close()


def losses(directory) -> list[tuple[int, float]]:
  return [(r["step"], r["loss"]) for r in metrics.read(directory)]


FIRST = [(n, {"loss": 1 / 2**n}) for n in range(1, 7)]
AGAIN = [(n, {"loss": 4.0 + n}) for n in range(5, 8)]


def test_rows_come_back_with_all_that_they_said(tmp_path):
  row = {"loss": 0.5, "note": "für", "list": [1, 2], "none": None, "big": 1e30}
  write(tmp_path, [(1, row)])
  assert metrics.read(tmp_path) == [{"step": 1, **row}]
  assert metrics.read(tmp_path / "elsewhere") == []


def test_a_row_can_be_read_at_once(tmp_path):
  writer = metrics.Writer(tmp_path)
  writer.write(1, {"loss": 0.5})
  assert losses(tmp_path) == [(1, 0.5)]
  writer.close()


def test_what_a_restored_checkpoint_has_undone_is_dropped(tmp_path):
  write(tmp_path, FIRST)
  write(tmp_path, AGAIN, from_step=5)
  expected = [(n, 1 / 2**n) for n in range(1, 5)]
  assert losses(tmp_path) == [*expected, (5, 9.0), (6, 10.0), (7, 11.0)]
  names = {path.name for path in tmp_path.iterdir()}
  assert names == {"metrics.jsonl", "tensorboard"}


def test_a_start_from_nothing_drops_everything(tmp_path):
  write(tmp_path, FIRST)
  write(tmp_path, [(1, {"loss": 7.0})])
  assert losses(tmp_path) == [(1, 7.0)]


def test_a_row_cut_off_by_a_kill_spoils_no_other(tmp_path):
  write(tmp_path, FIRST[:2])
  file = tmp_path / "metrics.jsonl"
  with file.open("a") as out:
    out.write('{"step": 3, "lo')
  assert losses(tmp_path) == [(1, 0.5), (2, 0.25)]
  write(tmp_path, [(3, {"loss": 3.0})], from_step=3)
  assert [json.loads(line)["step"] for line in file.open()] == [1, 2, 3]


def events(file: pathlib.Path) -> list[event_pb2.Event]:
  """The events of one file, each checked against its checksums."""
  data, found, at = file.read_bytes(), [], 0
  while at < len(data):
    head = data[at : at + 8]
    size, crc = struct.unpack("<QI", data[at : at + 12])
    body = data[at + 12 : at + 12 + size]
    (body_crc,) = struct.unpack("<I", data[at + 12 + size : at + 16 + size])
    assert crc == record_writer.masked_crc32c(head)
    assert body_crc == record_writer.masked_crc32c(body)
    found.append(event_pb2.Event.FromString(body))
    at += 16 + size
  return found


def files(directory) -> list[pathlib.Path]:
  return sorted((directory / "tensorboard").iterdir())


def test_tensorboard_files_hold_the_numbers(tmp_path):
  write(tmp_path, [(3, {"loss": 0.5, "note": "x", "eval/kl": 2, "no": None})])
  (file,) = files(tmp_path)
  assert file.name.startswith("events.out.tfevents.")
  version, *_ = found = events(file)
  assert version.file_version == "brain.Event:2"
  said = {
    (event.step, value.tag): value.simple_value
    for event in found
    for value in event.summary.value
  }
  assert said == {(3, "loss"): 0.5, (3, "eval/kl"): 2.0}


def test_starts_in_the_same_second_do_not_overwrite_each_other(tmp_path):
  for n in range(4):
    write(tmp_path, [(n, {"loss": 1.0})], from_step=n)
  steps = [
    event.step
    for file in files(tmp_path)
    for event in events(file)
    if event.summary.value
  ]
  assert steps == [0, 1, 2, 3]


def test_tensorboard_is_told_which_steps_are_undone(tmp_path):
  write(tmp_path, FIRST)
  write(tmp_path, AGAIN, from_step=5)
  start = event_pb2.SessionLog.START
  purged = [
    event.step
    for event in events(files(tmp_path)[-1])
    if event.session_log.status == start
  ]
  assert purged == [5]


def test_tensorboard_shows_the_rows_of_the_run(tmp_path):
  accumulator = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator"
  )
  write(tmp_path, FIRST)
  write(tmp_path, AGAIN, from_step=5)
  board = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
  board.Reload()
  found = [(event.step, event.value) for event in board.Scalars("loss")]
  assert found == losses(tmp_path)


PROCESS = """
import pathlib, sys
import jax
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
from jdistill import metrics
writer = metrics.Writer(pathlib.Path(sys.argv[3]), from_step=3)
writer.write(3, {"loss": float(sys.argv[2])})
writer.close()
"""


def test_of_two_processes_the_first_writes(tmp_path):
  write(tmp_path, FIRST)
  with socket.socket() as free:
    free.bind(("localhost", 0))
    address = f"localhost:{free.getsockname()[1]}"
  processes = [
    subprocess.Popen(
      [sys.executable, "-c", PROCESS, address, str(n), str(tmp_path)],
      stderr=subprocess.PIPE,
    )
    for n in range(2)
  ]
  for process in processes:
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said.decode()
  assert losses(tmp_path) == [(1, 0.5), (2, 0.25), (3, 0.0)]
  assert len(files(tmp_path)) == 2
