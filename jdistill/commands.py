# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""What each command of the command line does."""

import argparse
import pathlib
import sys


def train(argv: list[str]) -> int:
  """`jdistill train CONFIG ...`"""
  parser = argparse.ArgumentParser(
    prog="jdistill train",
    description="Start a run, or go on with the one in its directory.",
    epilog="Every field of the config is a flag: --steps 20 --optimizer.lr "
    "1e-3. `jdistill train CONFIG --fields` lists them.",
  )
  parser.add_argument("config", help="a Python file with get_config()")
  parser.add_argument(
    "--workdir",
    type=pathlib.Path,
    help="the run's directory (default: runs/NAME of the config file)",
  )
  parser.add_argument("--resume", choices=("auto", "never"), default="auto")
  parser.add_argument(
    "--fields", action="store_true", help="list the config's flags"
  )
  args, rest = parser.parse_known_args(argv)
  from jdistill import config as config_lib

  if args.fields:
    rest = ["--help"]
  config = config_lib.load(args.config, rest)
  from jdistill import train as train_lib

  workdir = args.workdir or pathlib.Path("runs") / pathlib.Path(args.config).stem
  try:
    result = train_lib.train(config, workdir, resume=args.resume)
  except train_lib.Stopped as stopped:
    print(
      f"jdistill: saved at step {stopped.step} in {workdir}; the same command "
      "goes on from there",
      file=sys.stderr,
    )
    return stopped.code
  print(result)
  return 0
