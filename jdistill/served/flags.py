# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""An endpoint on the command line."""

import argparse
import dataclasses

from jdistill.served.endpoint import Endpoint

_FLAGS = {
  "model": ("NAME", "served there, where there are several"),
  "key_from": ("VARIABLE", "the environment variable that holds the key"),
  "concurrency": ("N", "requests at a time"),
  "timeout": ("SECONDS", "until an answer is given up"),
  "attempts": ("N", "of each request, with growing waits"),
  "requests_per_minute": ("N", None),
  "tokens_per_minute": ("N", None),
  "input_price": ("PRICE", "of a million tokens read"),
  "output_price": ("PRICE", "of a million tokens written"),
}
_KINDS = {"model": str, "key_from": str, "concurrency": int, "attempts": int}


def add(parser: argparse.ArgumentParser) -> None:
  """Flags for the fields of an `Endpoint` but the url."""
  defaults = {f.name: f.default for f in dataclasses.fields(Endpoint)}
  group = parser.add_argument_group("the server")
  for name, (metavar, text) in _FLAGS.items():
    group.add_argument(
      f"--{name.replace('_', '-')}",
      *([f"--{name}"] if "_" in name else []),
      type=_KINDS.get(name, float),
      default=defaults[name],
      metavar=metavar,
      help=text,
    )


def endpoint(args: argparse.Namespace, url: str) -> Endpoint:
  """What those flags say."""
  return Endpoint(url, **{name: getattr(args, name) for name in _FLAGS})
