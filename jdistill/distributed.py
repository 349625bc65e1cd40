# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""One run in several processes: how they start, agree, and end together."""

import contextlib
import dataclasses
import functools
import itertools
import json
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from jdistill import types

HEARTBEAT_SECONDS = 30
"""A process that has been silent for so long is lost, and the run with it."""

_JOIN_SECONDS = 300
_POLL_SECONDS = 1.0
_ALIVE, _ENDED = "jdistill/alive/", "jdistill/ended/"


@dataclasses.dataclass(frozen=True)
class Cluster:
  """Which of how many processes this is.

  Attributes:
    coordinator: `host:port` of process 0, the same for all.
    process_id: this process, from 0.
    num_processes: how many there are.
    detect: leaves all three to jax, which asks what started the processes
      (TPU metadata, GKE, SLURM, Open MPI).
  """

  coordinator: str | None = None
  process_id: int | None = None
  num_processes: int | None = None
  detect: bool = False

  def __post_init__(self):
    given = {
      "--coordinator": self.coordinator,
      "--process-id": self.process_id,
      "--num-processes": self.num_processes,
    }
    named = [flag for flag, value in given.items() if value is not None]
    if self.detect and named:
      raise types.UserError(
        f"--distributed finds out by itself what {', '.join(named)} would say; "
        "give one or the other"
      )
    if not named:
      return
    missing = [flag for flag in given if flag not in named]
    if missing:
      raise types.UserError(
        f"{', '.join(missing)} is missing beside {', '.join(named)}; several "
        "processes need all three, e.g. --coordinator 10.0.0.1:8476 "
        "--process-id 0 --num-processes 2"
      )
    host, _, port = str(self.coordinator).rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
      raise types.UserError(
        f"--coordinator is {self.coordinator!r}; expected host:port of process "
        "0, e.g. 10.0.0.1:8476"
      )
    count, index = int(self.num_processes or 0), int(self.process_id or 0)
    if count < 1 or not 0 <= index < count:
      raise types.UserError(
        f"--process-id is {index} of --num-processes {count}; expected 0 to "
        "one less than their number"
      )

  @property
  def several(self) -> bool:
    """Whether there is anything to join."""
    return self.detect or self.coordinator is not None


@contextlib.contextmanager
def joined(cluster: Cluster) -> Iterator[None]:
  """Joins the other processes; enter it before anything touches a device.

  An error inside ends this process at once, and the others as soon as they
  hear of it: none waits for a message that will not come.

  Raises: UserError if the others cannot be reached.
  """
  if not cluster.several:
    yield
    return
  _connect(cluster)
  if jax.process_count() == 1:
    yield
    return
  threading.Thread(target=_listen, daemon=True).start()
  try:
    yield
  except types.UserError as error:
    _end(2, str(error))
  except SystemExit as error:
    if error.code in (None, 0):
      raise
    _end(error.code if isinstance(error.code, int) else 1, "it was told to")
  except BaseException as error:
    traceback.print_exc()
    _end(1, f"{type(error).__name__}: {error}")


def _connect(cluster: Cluster) -> None:
  # Where nobody answers, jax ends the process with words of its own.
  where = cluster.coordinator or "the address that jax finds"
  log(f"waiting up to {_JOIN_SECONDS} s for all processes, at {where}")
  try:
    jax.distributed.initialize(
      cluster.coordinator,
      cluster.num_processes,
      cluster.process_id,
      initialization_timeout=_JOIN_SECONDS,
      heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
    )
  except ValueError as error:  # jax found nothing to ask
    raise types.UserError(
      "--distributed: nothing here says which processes belong together (TPU "
      "metadata, GKE, SLURM and Open MPI were asked); name them: --coordinator "
      "HOST:PORT --process-id I --num-processes N"
    ) from error
  except RuntimeError as error:
    lines = str(error).strip().splitlines()
    raise types.UserError(
      f"cannot join the other processes at {where}: {lines[0]}"
    ) from error
  state = _state()
  log(
    f"process {state.process_id} of {state.num_processes} on "
    f"{socket.gethostname()}, pid {os.getpid()}; the leader task is process 0, "
    f"{state.coordinator_address}"
  )


def log(line: str) -> None:
  """Says a line on standard error; of several processes, which one says it."""
  print(f"{_label()}{line}", file=sys.stderr, flush=True)


def decide(ask: Callable[[], Any]) -> Any:
  """What process 0 answers, on all processes; plain JSON values.

  For whatever depends on files: processes may see them at different times.

  Raises: UserError on all processes, if process 0 raises one; likewise
    RuntimeError for what else it raises, and the error itself there.
  """
  if jax.process_count() == 1:
    return ask()
  said, own = {}, None
  if jax.process_index() == 0:
    try:
      said["value"] = ask()
    except Exception as error:
      own = error
      known = isinstance(error, types.UserError)
      said = {"error": str(error), "known": known, "type": type(error).__name__}
  said = _broadcast(said)
  if own is not None:
    raise own
  if "error" not in said:
    return said["value"]
  if said["known"]:
    raise types.UserError(said["error"])
  raise RuntimeError(f"process 0: {said['type']}: {said['error']}")


def _broadcast(value: dict[str, Any]) -> dict[str, Any]:
  from jax.experimental import multihost_utils

  text = np.frombuffer(json.dumps(value).encode(), np.uint8)
  size = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
  padded = np.zeros(size, np.uint8)
  padded[: min(size, len(text))] = text[:size]
  found = np.asarray(multihost_utils.broadcast_one_to_all(padded))
  return json.loads(found.astype(np.uint8).tobytes())


def all_of(ok: bool) -> bool:
  """Whether it is so on every process."""
  if jax.process_count() == 1:
    return ok
  from jax.experimental import multihost_utils

  return bool(np.all(multihost_utils.process_allgather(np.int32(ok))))


def of_all(number: int) -> list[int]:
  """What each process gives, in their order; all have to ask."""
  if jax.process_count() == 1:
    return [number]
  from jax.experimental import multihost_utils

  return multihost_utils.process_allgather(np.int32(number)).tolist()


def whole_rows(tree: types.PyTree, mesh: jax.sharding.Mesh) -> types.PyTree:
  """Arrays of rows that all processes share, on the host of each."""
  if jax.process_count() > 1:
    tree = _gather(mesh)(tree)
  return jax.device_get(tree)


def own_rows(tree: types.PyTree) -> types.PyTree:
  """This process's rows of such arrays, in their order, on the host."""

  def one(x: jax.Array) -> np.ndarray:
    parts: dict[int, jax.Array] = {}
    for shard in x.addressable_shards:
      first = shard.index[0].start or 0
      parts.setdefault(first, shard.data)
    return np.concatenate([np.asarray(parts[k]) for k in sorted(parts)])

  return jax.tree.map(one, tree)


@functools.lru_cache(maxsize=1)
def _gather(mesh: jax.sharding.Mesh) -> Callable[[types.PyTree], types.PyTree]:
  whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
  return jax.jit(lambda tree: tree, out_shardings=whole)


def _state() -> Any:
  # jax has no public name for the store that its processes share.
  from jax._src import distributed

  return distributed.global_state


def _label() -> str:
  return f"[{jax.process_index()}] " if _state().num_processes > 1 else ""


def _listen() -> None:
  """Watches the other processes: the silent are named, an end is followed.

  What ends this process when another is silent is jax's own heartbeat, which
  needs no turn of the interpreter; it gives a number, and this a name.
  """
  client, own = _state().client, str(_state().process_id)
  place = f"{socket.gethostname()}, pid {os.getpid()}"
  heard: dict[str, tuple[str, float]] = {}  # by process: its words, and when
  warned: set[str] = set()
  for beat in itertools.count():
    try:
      client.key_value_set(
        f"{_ALIVE}{own}", f"{beat} on {place}", allow_overwrite=True
      )
      alive = client.key_value_dir_get(_ALIVE)
      ended = client.key_value_dir_get(_ENDED)
    except Exception:  # the store is gone, and process 0 with it
      return
    now = time.monotonic()
    for key, words in alive:
      index = key.rsplit("/", 1)[-1]
      if heard.get(index, ("", 0))[0] != words:
        heard[index] = words, now
        warned.discard(index)
      elif now - heard[index][1] > HEARTBEAT_SECONDS / 2:
        if index not in warned:
          where = words.split(" on ", 1)[1]
          log(
            f"warning: nothing heard from process {index} ({where}) for "
            f"{HEARTBEAT_SECONDS // 2} s; if it is lost, this process ends soon"
          )
        warned.add(index)
    for key, words in ended:
      index = key.rsplit("/", 1)[-1]
      if index != own:
        said = json.loads(words)
        log(f"jdistill: process {index} has ended: {said['message']}")
        _leave(said["code"])
    time.sleep(_POLL_SECONDS)


def _end(code: int, message: str) -> None:
  log(f"jdistill: {message}")
  words = json.dumps({"code": code, "message": message})
  with contextlib.suppress(Exception):
    _state().client.key_value_set(f"{_ENDED}{_state().process_id}", words)
    if _state().process_id == 0:  # it keeps what the others are to read
      time.sleep(3 * _POLL_SECONDS)
  _leave(code)


def _leave(code: int) -> None:
  # A normal exit would wait for all processes, of which one is stuck.
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(code)
