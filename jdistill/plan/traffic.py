# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Bytes that one device moves in one step, read from its program."""

import dataclasses
from collections.abc import Iterator, Sequence

from jdistill import hlo

_NOTHING = {
  "after-all",
  "bitcast",
  "call",
  "conditional",
  "constant",
  "get-tuple-element",
  "parameter",
  "partition-id",
  "tuple",
  "while",
}
"""Instructions that move no bytes themselves."""

_UPDATES = {"dynamic-update-slice", "scatter"}
"""Instructions that write a part of what they are given, in place."""

_NAMES_ONLY = {"AllocateBuffer", "ConcatBitcast", "AssumeGatherIndicesInBound"}


@dataclasses.dataclass(frozen=True)
class Sent:
  """The collectives of one kind over groups of one size.

  `payload` are bytes of the whole arrays on one device, over all of a step;
  `wire` those of them that leave it, over a ring of the group.
  """

  kind: str
  group: int
  across_slices: bool
  times: int
  payload: float
  wire: float


def collectives(program: hlo.Program, per_slice: int) -> list[Sent]:
  """What one device exchanges in a step, most first.

  Args:
    program: of one device.
    per_slice: devices of a slice; groups that span several go over DCN.
  """
  runs = program.runs()
  seen: dict[tuple[str, int | str], tuple[int, hlo.Instruction]] = {}
  for name, times in runs.items():
    for i in program.computations[name]:
      if i.collective is None:
        continue
      # An asynchronous one is written out in every fusion that it overlaps.
      key = i.collective, i.channel if i.channel is not None else i.name
      if key not in seen or seen[key][0] < times:
        seen[key] = times, i
  total: dict[tuple[str, int, bool], list[float]] = {}
  for (kind, _), (times, i) in seen.items():
    group = len(i.groups[0]) if i.groups else 2
    if group < 2:
      continue
    payload = float(max(a.nbytes for a in i.arrays))
    across = any(len({d // per_slice for d in g}) > 1 for g in i.groups)
    sums = total.setdefault((kind, group, across), [0, 0.0, 0.0])
    sums[0] += times
    sums[1] += times * payload
    sums[2] += times * payload * _ring(kind, group)
  found = [Sent(*key, int(s[0]), s[1], s[2]) for key, s in total.items()]
  return sorted(found, key=lambda s: -s.wire)


def _ring(kind: str, group: int) -> float:
  """Bytes that leave a device for each byte of the whole array."""
  if kind == "all-reduce":
    return 2 * (group - 1) / group
  if kind in ("collective-permute", "collective-broadcast"):
    return 1.0
  return (group - 1) / group


def memory_bytes(program: hlo.Program) -> float:
  """Bytes that a step reads from and writes to the device's main memory.

  Operands and results of every instruction that is not inside a fusion, those
  in nearer memory left out; of what is only sliced or updated, the part.
  """
  runs = program.runs()
  inside = {
    name
    for instructions in program.computations.values()
    for i in instructions
    if i.opcode not in ("while", "conditional", "call")
    for names in i.called.values()
    for name in names
  }
  total = 0.0
  for name, times in runs.items():
    if name not in inside:
      known = {i.name: i for i in program.computations[name]}
      total += sum(times * _moved(program, i, known) for i in known.values())
  return total


def _moved(
  program: hlo.Program,
  i: hlo.Instruction,
  known: dict[str, hlo.Instruction],
) -> float:
  if i.opcode in _NOTHING or i.opcode.endswith("-done"):
    return 0.0
  if i.target in _NAMES_ONLY:
    return 0.0
  operands = [known.get(name) for name in i.operands]
  if i.opcode in _UPDATES:
    return sum(2.0 * _bytes(operands[at]) for at in _updates(i))
  if i.opcode in ("dynamic-slice", "gather"):
    return _bytes(i) * (1.0 + _main(operands[0]))
  if i.opcode == "fusion":
    return sum(_of_fusion(program, i, operands))
  return _bytes(i) + sum(_bytes(o) for o in operands)


def _of_fusion(program, i, operands) -> Iterator[float]:
  inner = _inner(program, i)
  known = {j.name: j for j in inner}
  numbers = {j.name: j.number for j in inner if j.opcode == "parameter"}
  updated: set[str] = set()
  for j in inner:
    if j.opcode in _UPDATES:
      updated.update(_origin(n, known) for n in j.operands[: _updated(j)])
      for at in _updates(j):
        yield 2.0 * _bytes(known.get(j.operands[at]), anywhere=True)
  for name, number in numbers.items():
    if name in updated or number is None or number >= len(operands):
      continue
    if _main(operands[number]):
      whole = _bytes(operands[number])
      yield min(whole, _read(program, inner, name, whole))
  if not updated:
    yield _bytes(i)


def _read(program, inner, name: str, whole: float) -> float:
  """Bytes that a fusion reads of one of its values of `whole` bytes.

  Slices read what they take; fusions inside of it, slices of their own.
  """
  read = 0.0
  for j in inner:
    if name not in j.operands:
      continue
    if j.opcode in ("dynamic-slice", "gather"):
      read += _bytes(j, anywhere=True)
    elif j.opcode == "bitcast":
      read += _read(program, inner, j.name, whole)
    elif j.opcode == "fusion":
      deeper = _inner(program, j)
      places = [n for n, o in enumerate(j.operands) if o == name]
      for k in deeper:
        if k.opcode == "parameter" and k.number in places:
          read += _read(program, deeper, k.name, whole)
    else:
      return whole
  return read


def _inner(program, fusion) -> Sequence[hlo.Instruction]:
  return program.computations[fusion.called["calls"][0]]


def _updated(i: hlo.Instruction) -> int:
  """How many of its first operands an instruction writes into."""
  return (len(i.operands) - 1) // 2 if i.opcode == "scatter" else 1


def _updates(i: hlo.Instruction) -> range:
  """The operands that it writes there."""
  first = _updated(i) + (i.opcode == "scatter")
  return range(first, first + _updated(i))


def _origin(name: str, known: dict[str, hlo.Instruction]) -> str:
  """The parameter behind bitcasts and copies of it."""
  while known[name].opcode in ("bitcast", "copy", "convert") and (
    known[name].operands
  ):
    name = known[name].operands[0]
  return name


def _main(i: hlo.Instruction | None) -> bool:
  return i is not None and any(a.space == 0 for a in i.arrays)


def _bytes(i: hlo.Instruction | None, *, anywhere: bool = False) -> float:
  if i is None:
    return 0.0
  return float(sum(a.nbytes for a in i.arrays if anywhere or a.space == 0))
