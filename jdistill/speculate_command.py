# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""What `jdistill speculate` does."""

import argparse
import json
import pathlib

from jdistill.generate_command import add


def speculate(argv: list[str]) -> int:
  """`jdistill speculate TARGET DRAFT ... --prompts FILE`"""
  parser = argparse.ArgumentParser(
    prog="jdistill speculate",
    description="What drafts are worth to a target in speculative decoding: "
    "acceptance, tokens for each of its passes, seconds with and without.",
  )
  parser.add_argument("target", metavar="TARGET")
  parser.add_argument("drafts", nargs="+", metavar="DRAFT")
  parser.add_argument(
    "--prompts",
    type=pathlib.Path,
    required=True,
    metavar="FILE",
    help='.txt: one a line; .jsonl: objects with "prompt" or "messages"',
  )
  whole = {"type": int, "metavar": "N"}
  add(parser, "--draft-tokens", default=4, help="guesses in a row", **whole)
  parser.add_argument(
    "--tree",
    dest="children",
    type=_numbers,
    default=(),
    metavar="N,N,...",
    help="a tree of guesses: how many under each token, by depth",
  )
  add(parser, "--max-new-tokens", default=64, **whole)
  parser.add_argument(
    "--temperature", type=float, default=0.0, help="0: greedy decoding"
  )
  add(parser, "--top-k", **whole)
  add(parser, "--top-p", type=float, metavar="P")
  parser.add_argument(
    "--lenience",
    type=float,
    default=1.0,
    help="below 1 more guesses are accepted, and what is written is no longer "
    "the target's distribution",
  )
  add(parser, "--batch-size", default=1, help="prompts at once", **whole)
  parser.add_argument(
    "--repeats", default=3, help="timed turns; 0: acceptance alone", **whole
  )
  add(parser, "--max-prompts", help="stop after so many", **whole)
  parser.add_argument("--chat", action="store_true", help="use the template")
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument(
    "--dtype", choices=("float32", "bfloat16"), default="float32"
  )
  parser.add_argument(
    "--json", action="store_true", help="one JSON line for each draft"
  )
  args = vars(parser.parse_args(argv))
  from jdistill import completions, refs, startup
  from jdistill import speculate as speculate_lib

  startup.prepare(refs.cache_directory() / "compiled")
  target, drafts = args.pop("target"), args.pop("drafts")
  prompts = completions.read(args.pop("prompts"))
  as_json = args.pop("json")
  options = speculate_lib.Options(**args)
  rows = speculate_lib.speculate(target, drafts, prompts, options)
  if as_json:
    for row in rows:
      print(json.dumps(row))
    return 0
  import rich

  rich.print(speculate_lib.table(rows))
  return 0


def _numbers(text: str) -> tuple[int, ...]:
  if not all(number.isdecimal() and int(number) for number in text.split(",")):
    raise argparse.ArgumentTypeError(
      f"{text!r}: expected numbers from 1 with commas between, such as 4,2,1"
    )
  return tuple(int(number) for number in text.split(","))
