# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Prints the JobSet of a run on TPU slices of GKE, for `kubectl apply -f -`.

    python launch/jobset.py --name mine --tpu v5e --topology 4x4 \
      --image REGISTRY/jdistill train CONFIG --workdir gs://BUCKET/mine \
      | kubectl apply -f -

Spot nodes unless told otherwise. What follows the flags is the command of
`jdistill` in each pod; `train` gets `--distributed` behind it.
"""

import argparse
import json
import math
import pathlib
import re
import string
import sys
from collections.abc import Sequence

TEMPLATE = pathlib.Path(__file__).with_name("jobset.yaml")

ACCELERATORS = {
  "v4": "tpu-v4-podslice",
  "v5e": "tpu-v5-lite-podslice",
  "v5p": "tpu-v5p-slice",
  "v6e": "tpu-v6e-slice",
  "tpu7x": "tpu7x",
}
"""GKE's label of each kind of TPU."""

COMMANDS = ("train", "cache", "evaluate", "generate", "speculate", "export")
"""Those of `jdistill` that make sense in a pod."""

_ONE_HOST_OF_8 = ("v5e", "v6e")


def main(argv: Sequence[str] | None = None) -> int:
  """Prints the manifest; returns the exit code."""
  parser = _parser()
  args = parser.parse_args(argv)
  command = args.command[args.command[:1] == ["--"] :]
  try:
    if not command:
      raise ValueError("say what to run, such as train CONFIG --workdir DIR")
    if not re.fullmatch(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", args.name):
      raise ValueError(
        f"--name {args.name}: at most 40 small letters, digits and dashes, a "
        "letter first"
      )
    if command[0] not in COMMANDS:
      raise ValueError(
        f"{command[0]!r} is no command of jdistill; expected one of "
        f"{', '.join(COMMANDS)}"
      )
    if args.slices < 1 or args.max_restarts < 0:
      raise ValueError(
        f"--slices is {args.slices} and --max-restarts {args.max_restarts}; "
        "expected at least 1 and at least 0"
      )
    chips, hosts = hosts_of(args.tpu, args.topology)
  except ValueError as error:
    print(f"launch: {error}", file=sys.stderr)
    return 2
  print(manifest(args, command, chips, hosts), end="")
  return 0


def hosts_of(tpu: str, topology: str) -> tuple[int, int]:
  """Chips of a host and hosts of a slice.

  Args:
    tpu: one of ACCELERATORS.
    topology: of the slice, such as 4x4 or 2x2x4.
  Raises: ValueError if there is no such slice.
  """
  flat = tpu in _ONE_HOST_OF_8
  pattern = r"\d+x\d+" if flat else r"\d+x\d+x\d+"
  if not re.fullmatch(pattern, topology):
    example = "4x4" if flat else "2x2x4"
    raise ValueError(f"--topology {topology}: for {tpu} say it as {example}")
  total = math.prod(map(int, topology.split("x")))
  if not total:
    raise ValueError(f"--topology {topology}: a slice has at least one chip")
  if total <= 4 or (flat and total == 8):
    return total, 1
  if total % 4:
    raise ValueError(f"--topology {topology}: a host has 4 chips")
  return 4, total // 4


def manifest(
  args: argparse.Namespace, command: Sequence[str], chips: int, hosts: int
) -> str:
  """The template, filled in; every value is JSON, which is YAML."""
  node = {
    "cloud.google.com/gke-tpu-accelerator": ACCELERATORS[args.tpu],
    "cloud.google.com/gke-tpu-topology": args.topology,
  }
  if not args.on_demand:
    node["cloud.google.com/gke-spot"] = "true"
  labels = {"app": "jdistill"}
  if args.queue:
    labels["kueue.x-k8s.io/queue-name"] = args.queue
  command = [*command, *(["--distributed"] if command[0] == "train" else [])]
  values = {
    "name": args.name,
    "labels": labels,
    "max_restarts": args.max_restarts,
    "slices": args.slices,
    "hosts": hosts,
    "chips": chips,
    "service_account": args.service_account,
    "node_selector": node,
    "image": args.image,
    # Kubernetes itself would fill in $(NAME).
    "args": [word.replace("$(", "$$(") for word in command],
  }
  text = TEMPLATE.read_text()
  lines = [line for line in text.splitlines(True) if not line.startswith("#")]
  return string.Template("".join(lines)).substitute(
    {key: json.dumps(value) for key, value in values.items()}
  )


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="launch/jobset.py",
    description="Print the JobSet of a run on TPU slices of GKE.",
  )
  parser.add_argument("--name", required=True)
  parser.add_argument("--image", required=True, help="see launch/Dockerfile")
  parser.add_argument("--tpu", choices=ACCELERATORS, default="v5e")
  parser.add_argument("--topology", default="4x4", help="of a slice")
  parser.add_argument("--slices", type=int, default=1)
  parser.add_argument("--on-demand", action="store_true", help="not spot nodes")
  parser.add_argument("--queue", default="", help="a local queue of Kueue")
  parser.add_argument(
    "--service-account",
    default="default",
    help="of Kubernetes; it must be allowed to write into the bucket",
  )
  parser.add_argument(
    "--max-restarts", type=int, default=20, help="after crashes (default: 20)"
  )
  parser.add_argument("command", nargs=argparse.REMAINDER)
  return parser


if __name__ == "__main__":
  sys.exit(main())
