# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Twenty kills, by the script that anybody can run."""

import pathlib
import subprocess
import sys

import pytest

SCRIPT = pathlib.Path(__file__).parent / "kill.py"


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_twenty_kills_change_no_bit(tmp_path):
  command = [sys.executable, str(SCRIPT), "--kills", "20", "--to"]
  done = subprocess.run(
    [*command, str(tmp_path)], capture_output=True, text=True
  )
  assert done.returncode == 0, done.stdout + done.stderr
  assert done.stdout.splitlines()[-1].startswith("20 of 20 ")
  assert ": killed after: " in done.stdout
