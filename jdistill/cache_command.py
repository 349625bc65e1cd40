# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""`jdistill cache`: keeps what a teacher says of the data of a run."""

import argparse
import dataclasses
import json
import pathlib
from typing import Any, get_args

from jdistill import types
from jdistill.served import flags

FORMATS = "top_k:K, sampled:DRAWS, hidden:bfloat16 or hidden:int8"


def parse_format(text: str):
  """A `cached.Format` as the command line writes it: `top_k:32`.

  Raises: UserError for what is none.
  """
  from jdistill import cached

  name, _, value = text.partition(":")
  cls = cached.FORMATS.get(name)
  if cls is None:
    raise types.UserError(f"--format is {text!r}; expected {FORMATS}")
  if not value:
    return cls()
  [field] = dataclasses.fields(cls)
  given: Any = int(value) if value.isdecimal() else value
  choices = get_args(field.type)
  if given not in choices if choices else not isinstance(given, int):
    raise types.UserError(f"--format is {text!r}; expected {FORMATS}")
  return cls(given)


def parser() -> argparse.ArgumentParser:
  """The flags of the command, but for those of a config."""
  made = argparse.ArgumentParser(
    prog="jdistill cache",
    description="Keep what a teacher says of the data and evaluations of a "
    "run. Training reads it with --teachers.NAME.cache DIR, without the "
    "teacher's weights. The same command goes on after a kill, and adds the "
    "rows of other data to a cache of the same teacher and format.",
    epilog="Every field of the config is a flag, as for train: --mesh.fsdp 64.",
  )
  made.add_argument(
    "config", help="a Python file with get_config(), or a name: quickstart"
  )
  made.add_argument("--to", required=True, metavar="DIR", type=pathlib.Path)
  made.add_argument(
    "--format",
    default="top_k:32",
    help=f"{FORMATS} (default: %(default)s): the most probable ids with the "
    "mass of all others, ids drawn with replacement, or what the teacher's "
    "head reads",
  )
  made.add_argument(
    "--teacher", metavar="NAME", help="in the config (default: the first)"
  )
  made.add_argument(
    "--calibrate",
    action="store_true",
    help="say at which temperature these ids are best calibrated (for FIRST)",
  )
  made.add_argument(
    "--stage", metavar="NAME", help="of a run of several (default: the last)"
  )
  made.add_argument(
    "--served",
    metavar="URL",
    help="the config's teacher is asked there, in one process, instead of "
    "being loaded here",
  )
  made.add_argument(
    "--dialect",
    choices=("vllm", "llama.cpp"),
    default="vllm",
    help="how that server tells log-probabilities (default: %(default)s)",
  )
  flags.add(made)
  return made


def cache(args: argparse.Namespace, rest: list[str]) -> int:
  """Runs the command; `rest` are flags of the config. Returns its exit code."""
  format = parse_format(args.format)
  from jdistill import cache_job, refs, signals, startup
  from jdistill import config as config_lib

  config = config_lib.load(args.config, rest)
  if isinstance(config, config_lib.Stages):
    names = list(config.stages)
    name = args.stage or names[-1]
    if name not in names:
      raise types.UserError(
        f"--stage is {name!r}, and the stages are {', '.join(names)}"
      )
    config = config.stages[name]
  elif args.stage is not None:
    raise types.UserError(
      f"--stage is {args.stage!r}, but the config has no stages"
    )
  startup.prepare(refs.cache_directory() / "compiled")
  teacher = args.teacher or next(iter(config.teachers), "")
  if args.served is not None:
    return _served(args, config, format, teacher)
  try:
    found = cache_job.cache(config, args.to, format, teacher=teacher)
    if args.calibrate:
      found |= cache_job.calibrate(config, args.to, teacher=teacher)
  except signals.Stopped as stopped:
    return stopped.code
  import jax

  if jax.process_index() == 0:
    print(json.dumps({"cache": str(args.to), **found}))
  return 0


def _served(args, config, format, teacher: str) -> int:
  """The same through an endpoint; answers are kept beside the cache."""
  from jdistill import ask_command, served, served_cache

  kept = served.Kept(args.to.with_name(f"{args.to.name}.answers"))
  endpoint = flags.endpoint(args, args.served)
  with served.Client(endpoint, kept) as client:
    try:
      found = served_cache.cache(
        config, args.to, format, client, teacher=teacher, dialect=args.dialect
      )
    finally:
      ask_command.tell(client.totals)
  print(json.dumps({"cache": str(args.to), **found}))
  return 0
