# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""The command that has a served teacher answer prompts."""

import argparse
import contextlib
import json
import pathlib
import sys
from typing import TYPE_CHECKING, Any

from jdistill.generate_command import add, progress
from jdistill.served import flags

if TYPE_CHECKING:
  from jdistill import served


def ask(argv: list[str]) -> int:
  """`jdistill ask URL --prompts FILE`"""
  args = _parser().parse_args(argv)
  from jdistill import completions, served, types

  if args.num_samples < 1:
    raise types.UserError(
      f"--num-samples is {args.num_samples}; expected at least 1"
    )
  endpoint = flags.endpoint(args, args.url)
  prompts = completions.read(args.prompts)
  by = {
    "model": args.model,
    "url": endpoint.base,
    "seed": args.seed,
    "max_new_tokens": args.max_new_tokens,
    "temperature": args.temperature,
    "top_p": args.top_p,
    "stop": args.stop,
  }
  heads = [
    completions.head(prompt, sample, by, chat=args.chat)
    for prompt in prompts
    for sample in range(args.num_samples)
  ]
  file = None if args.to is None else completions.Kept(args.to, heads)
  done = 0 if file is None else file.done
  left = heads[done:]
  path = args.kept
  if path is None and args.to is not None:
    path = args.to.with_name(f"{args.to.name}.answers")
  kept = None if path is None else served.Kept(path)
  out = contextlib.nullcontext(sys.stdout) if file is None else file.writing()
  with served.Client(endpoint, kept) as client, out as lines:
    answers = served.complete(
      client,
      [_given(head) for head in left],
      seeds=[_seed(args.seed, done + i) for i in range(len(left))],
      max_tokens=args.max_new_tokens,
      temperature=args.temperature,
      top_p=args.top_p,
      stop=args.stop,
    )
    try:
      for head, answer in zip(left, progress(answers, len(left)), strict=True):
        print(json.dumps(_row(head, answer)), file=lines, flush=True)
    finally:
      tell(client.totals)
  return 0


def tell(totals: "served.Totals") -> None:
  """Says what was asked and what it cost, if anything."""
  if totals.requests or totals.kept or totals.retries:
    print(f"jdistill: {told(totals)}", file=sys.stderr)


def told(totals: "served.Totals") -> str:
  """What was asked and what it cost, in a line."""
  return (
    f"{totals.requests} answers in {totals.seconds:.0f} s, {totals.kept} kept "
    f"from before, {totals.retries} asked again; {totals.prompt_tokens} tokens "
    f"read, {totals.completion_tokens} written"
    + (f", cost {totals.cost:.4f}" if totals.cost else "")
  )


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="jdistill ask",
    description="Have a served teacher answer the prompts of a file, through "
    "an OpenAI-compatible endpoint: one JSON object for each, as `jdistill "
    "generate` writes them. The same command goes on where it was stopped.",
  )
  parser.add_argument("url", metavar="URL", help="http://127.0.0.1:8000/v1")
  parser.add_argument(
    "--prompts",
    type=pathlib.Path,
    required=True,
    metavar="FILE",
    help='.txt: one a line; .jsonl: objects with "prompt" or "messages"',
  )
  parser.add_argument(
    "--to",
    type=pathlib.Path,
    metavar="FILE",
    help="where the objects go, a .jsonl file (default: standard output)",
  )
  parser.add_argument(
    "--chat", action="store_true", help="prompts are what the user of a chat "
    "says, which the server puts into its template"
  )  # fmt: skip
  add(parser, "--max-new-tokens", type=int, default=128, metavar="N")
  parser.add_argument("--temperature", type=float, default=0.7)
  add(parser, "--top-p", type=float, metavar="P")
  parser.add_argument("--stop", action="append", default=[], metavar="TEXT")
  add(parser, "--num-samples", type=int, default=1, metavar="N",
      help="answers to each prompt")  # fmt: skip
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument(
    "--kept",
    type=pathlib.Path,
    metavar="FILE",
    help="answers by what was asked, so that nothing is paid for twice "
    "(default: beside --to)",
  )
  flags.add(parser)
  return parser


def _given(head: dict[str, Any]) -> dict[str, Any]:
  return {k: head[k] for k in ("prompt", "messages") if k in head}


def _seed(seed: int, number: int) -> int:
  """Of one answer; others for every seed of the command."""
  return (seed * 1_000_003 + number) % (1 << 31)


def _row(head: dict[str, Any], answer: "served.Answer") -> dict[str, Any]:
  """As `completions.row`, of what a server does not say the log-probability."""
  return {
    **_given(head),
    "text": answer.text,
    "tokens": answer.tokens,
    "finish": answer.finish,
    "log_prob_sum": None,
    "log_prob_mean": None,
    "sample": head["sample"],
    "by": head["by"],
  }
