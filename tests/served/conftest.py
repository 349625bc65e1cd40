# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""A server in a process of its own, on a port that is free."""

import contextlib
import json
import pathlib
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

SERVER = pathlib.Path(__file__).with_name("server.py")


class Server:
  """The process, and what it was asked."""

  def __init__(self, tmp_path: pathlib.Path, table: np.ndarray, *flags: str):
    with socket.socket() as free:
      free.bind(("127.0.0.1", 0))
      self.port = free.getsockname()[1]
    self.log = tmp_path / "asked.log"
    self.url = f"http://127.0.0.1:{self.port}/v1"
    self.table, self.flags = tmp_path / "table.npy", flags
    np.save(self.table, table)
    self.start()

  def start(self):
    words = [SERVER, self.table, self.log, self.port, *self.flags]
    self.process = subprocess.Popen([sys.executable, *map(str, words)])
    for _ in range(600):
      with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", self.port)).close()
        return
      time.sleep(0.05)
    raise AssertionError("the server does not start")

  def kill(self):
    self.process.kill()
    self.process.wait()

  def asked(self):
    if not self.log.is_file():
      return []
    return [json.loads(line) for line in self.log.read_text().splitlines()]


@pytest.fixture
def serve(tmp_path):
  running = []

  def start(table, *flags):
    running.append(Server(tmp_path, table, *flags))
    return running[-1]

  yield start
  for server in running:
    server.kill()
