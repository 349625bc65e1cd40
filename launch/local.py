# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Runs one command as several processes of this machine.

    python launch/local.py -n 2 jdistill train CONFIG --workdir runs/two

Each process gets the command as it stands and, behind it, `--coordinator
127.0.0.1:PORT --process-id I --num-processes N`. Lines of output come with the
index of the process before them. SIGTERM and SIGINT are passed on to all, so
that all save.

Exit code: 0 if all ended well; 143 (or 130) if all were told to stop, saved and
said so, which schedulers take as "start me again"; else the code of the process
that was lost first, with 128 + N for signal N as shells have it. A process that
dies takes the run with it: the others wait for it in a collective, so they get
a while to end and are killed then.
"""

import argparse
import contextlib
import math
import os
import selectors
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import BinaryIO

TOLD_TO_STOP = (143, 130)
_POLL_SECONDS = 0.05


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns the exit code of all of its processes."""
  args = _parser().parse_args(argv)
  command = args.command[args.command[:1] == ["--"] :]
  if not command or args.num_processes < 1:
    _parser().error("say at least one process, and what to run")
  with _passed_on() as signals:
    group = _Group(signals)
    try:
      group.start(command, args.num_processes, args.port or _free_port())
      return group.wait(args.grace)
    except OSError as error:
      _say(f"cannot run {shlex.join(command)}: {error}")
      return 2
    finally:
      group.close()


class _Group:
  """The processes of one run.

  Args:
    signals: filled from outside with what is to be passed on.
  """

  def __init__(self, signals: list[int]):
    self.signals = signals
    self.children: list[subprocess.Popen[bytes]] = []
    self.output = _Output()

  def start(self, command: Sequence[str], number: int, port: int) -> None:
    """Starts the command `number` times, with a coordinator at `port`."""
    for i in range(number):
      own = f"--coordinator 127.0.0.1:{port} --process-id {i} --num-processes"
      child = subprocess.Popen(
        [*command, *own.split(), str(number)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        # A terminal sends Ctrl-C to its whole group; each process is to get
        # it once, from here: a second one means "do not save".
        start_new_session=True,
      )
      self.children.append(child)
      self.output.add(f"[{i}] ", child)

  def wait(self, grace: float) -> int:
    """Waits for all; returns the exit code of the group.

    Args:
      grace: seconds that the others have once one process is lost.
    """
    lost, end = None, math.inf
    while None in (codes := [_code(child) for child in self.children]):
      self._pass_on()
      if lost is None and any(codes):
        lost = next(i for i, code in enumerate(codes) if code)
        end = time.monotonic() + grace
        if codes[lost] not in TOLD_TO_STOP:
          _say(
            f"process {lost} was lost: {_said(self.children[lost])}; the "
            f"others have {grace:g} s to end"
          )
      if time.monotonic() > end:
        late = [str(i) for i, code in enumerate(codes) if code is None]
        _say(f"killing process {', '.join(late)}")
        self.close()
      self.output.pump(_POLL_SECONDS)
    self.output.drain()
    final = [code for code in codes if code is not None]
    if len(set(final)) == 1 and final[0] in (0, *TOLD_TO_STOP):
      return final[0]
    _say("; ".join(f"{i}: {_said(c)}" for i, c in enumerate(self.children)))
    first = max(final) if lost is None else final[lost]
    # Not all have saved: nobody may take it for an orderly stop.
    return 1 if first in TOLD_TO_STOP else first

  def _pass_on(self) -> None:
    while self.signals:
      number = self.signals.pop(0)
      for child in self.children:
        child.send_signal(number)  # does nothing once the child has ended

  def close(self) -> None:
    """Kills what still runs, with the workers that it has started."""
    for child in self.children:
      if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


class _Output:
  """Prints what processes write, line by line, each with its index."""

  def __init__(self):
    self.selector = selectors.DefaultSelector()

  def add(self, prefix: str, child: subprocess.Popen[bytes]) -> None:
    streams = (
      (child.stdout, sys.stdout.buffer),
      (child.stderr, sys.stderr.buffer),
    )
    for pipe, to in streams:
      assert pipe is not None
      state = prefix.encode(), bytearray(), to
      self.selector.register(pipe, selectors.EVENT_READ, state)

  def pump(self, seconds: float) -> bool:
    """Prints what comes within so many seconds; False if nothing came."""
    if not self.selector.get_map():
      time.sleep(seconds)
      return False
    ready = self.selector.select(seconds)
    for key, _ in ready:
      data = os.read(key.fd, 1 << 16)
      prefix, rest, to = key.data
      rest += data
      if not data:
        self.selector.unregister(key.fileobj)
        if rest:
          rest += b"\n"
      *lines, last = rest.split(b"\n")
      rest[:] = last
      _write(to, b"".join(prefix + line + b"\n" for line in lines))
    return bool(ready)

  def drain(self) -> None:
    """Prints the rest; does not wait for heirs that keep a pipe open."""
    while self.selector.get_map() and self.pump(0):
      pass


def _write(to: BinaryIO, data: bytes) -> None:
  if data:
    to.write(data)
    to.flush()


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="launch/local.py",
    description="Run one command as several processes of this machine.",
  )
  parser.add_argument("-n", "--num-processes", type=int, default=2, metavar="N")
  parser.add_argument(
    "--port", type=int, default=0, help="of the coordinator (default: free)"
  )
  parser.add_argument(
    "--grace",
    type=float,
    default=60.0,
    metavar="SECONDS",
    help="that the others have once one process is lost (default: 60)",
  )
  parser.add_argument(
    "command", nargs=argparse.REMAINDER, help="such as jdistill train CONFIG"
  )
  return parser


@contextlib.contextmanager
def _passed_on() -> Iterator[list[int]]:
  """Collects SIGTERM and SIGINT instead of obeying them."""
  seen: list[int] = []
  numbers = (signal.SIGTERM, signal.SIGINT)
  old = {n: signal.signal(n, lambda n, _: seen.append(n)) for n in numbers}
  try:
    yield seen
  finally:
    for number, handler in old.items():
      signal.signal(number, handler)


def _free_port() -> int:
  with socket.socket() as found:
    found.bind(("127.0.0.1", 0))
    return found.getsockname()[1]


def _code(child: subprocess.Popen[bytes]) -> int | None:
  """Exit code as shells have it; None while the process runs."""
  code = child.poll()
  return code if code is None or code >= 0 else 128 - code


def _said(child: subprocess.Popen[bytes]) -> str:
  code = child.returncode
  if code >= 0:
    return f"exit code {code}"
  return f"killed by {signal.Signals(-code).name}"


def _say(line: str) -> None:
  print(f"launch: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
  sys.exit(main())
