# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""What a compiled program holds and sends, read from its text.

`jax.jit(f).lower(...).compile().as_text()` is the program of one device: the
shapes in it are those of that device's shards.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Collection, Iterator

import numpy as np

COLLECTIVES = (
  "all-gather",
  "all-reduce",
  "all-to-all",
  "collective-broadcast",
  "collective-permute",
  "ragged-all-to-all",
  "reduce-scatter",
)

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*)$")
_ARRAY = re.compile(
  r"\b([a-z]+\d*[a-z0-9]*)\[([\d,]*)\](?:\{[^{}]*?(S\(\d+\))?\})?"
)
_CALLED = re.compile(
  r"\b(calls|to_apply|body|condition|branch_computations|called_computations"
  r"|true_computation|false_computation)=(\{[^}]*\}|%?[\w.\-]+)"
)
_OP_NAME = re.compile(r'op_name="([^"]*)"')
_TARGET = re.compile(r'custom_call_target="([^"]*)"')
_CHANNEL = re.compile(r"\bchannel_id=(\d+)")
_OPERAND = re.compile(r"%([\w.\-]+)")
_GROUPS = re.compile(
  r"replica_groups=(?:\[(?P<shape>[\d,]+)\]<=\[(?P<dims>[\d,]+)\]"
  r"(?:T\((?P<order>[\d,]+)\))?"
  r"|mesh\[(?P<mesh>[^\]]*)\] \{(?P<axes>[^}]*)\}"
  r"|\{(?P<lists>\{[\d,{}]*\})\})"
)


@dataclasses.dataclass(frozen=True)
class Array:
  """The type of one array on one device.

  `space` is where it is kept: 0 is the device's main memory, others are
  nearer (on a TPU 1 is VMEM).
  """

  dtype: str
  shape: tuple[int, ...]
  space: int = 0

  @property
  def size(self) -> int:
    """Its number of elements."""
    return math.prod(self.shape)

  @property
  def nbytes(self) -> int:
    """Its bytes, layout padding left out."""
    bits = 8 if self.dtype == "pred" else re.search(r"\d+", self.dtype)
    width = bits if isinstance(bits, int) else int(bits[0]) if bits else 0
    return self.size * width // 8


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One line of a computation.

  `called` maps how a computation is used (`body`, `calls`, ...) to its names;
  `source` is the path of the JAX operation behind it, and `target` the
  function of a custom call. `number` is a constant's value or a parameter's
  index, if it is one. Of a collective, `channel` tells it from others and
  `groups` are the devices that exchange.
  """

  name: str
  opcode: str
  arrays: tuple[Array, ...]
  called: dict[str, tuple[str, ...]]
  source: str
  target: str
  operands: tuple[str, ...] = ()
  number: int | None = None
  channel: int | None = None
  groups: tuple[tuple[int, ...], ...] = ()

  @property
  def collective(self) -> str | None:
    """The collective that it starts, if any."""
    opcode = self.opcode.removesuffix("-start")
    return opcode if opcode in COLLECTIVES else None


@dataclasses.dataclass(frozen=True)
class Program:
  """Computations by name, and which of them runs first.

  `untold` are the turns of a loop whose condition does not tell them.
  """

  computations: dict[str, tuple[Instruction, ...]]
  entry: str
  untold: int = 1

  def reached(self, *names: str) -> Iterator[Instruction]:
    """All instructions of computations and of whatever they call."""
    return self._walk(names, lambda _: True)

  def buffers(self) -> Iterator[Instruction]:
    """Instructions whose results are kept in memory: none inside a fusion, a
    reduction or a sort."""
    return self._walk((self.entry,), _is_control)

  def loops(self) -> Iterator[Instruction]:
    """The `while` instructions, those inside of others too."""
    return (i for i in self.buffers() if i.opcode == "while")

  def body(self, loop: Instruction) -> Iterator[Instruction]:
    """Everything that a turn of the loop does."""
    return self.reached(*loop.called["body"], *loop.called["condition"])

  def runs(self) -> dict[str, int]:
    """How often each computation runs when the program does."""
    times: collections.Counter[str] = collections.Counter()

    def visit(name: str, count: int) -> None:
      times[name] += count
      for instruction in self.computations[name]:
        turns = self.turns(instruction) if instruction.opcode == "while" else 1
        for called in instruction.called.values():
          for one in called:
            visit(one, count * turns)

    visit(self.entry, 1)
    return dict(times)

  def turns(self, loop: Instruction) -> int:
    """How often a loop goes round: what its condition compares with."""
    numbers = {
      i.number
      for i in self.reached(*loop.called["condition"])
      if i.opcode == "constant" and i.number is not None
    }
    return max(numbers) if len(numbers) == 1 else self.untold

  def _walk(self, names, follow) -> Iterator[Instruction]:
    seen: set[str] = set()
    waiting = list(names)
    while waiting:
      name = waiting.pop()
      if name in seen:
        continue
      seen.add(name)
      for instruction in self.computations[name]:
        yield instruction
        if follow(instruction):
          for called in instruction.called.values():
            waiting += called


def parse(text: str) -> Program:
  """Reads the text of a compiled program."""
  computations: dict[str, tuple[Instruction, ...]] = {}
  entry, name, lines = "", "", []
  for line in text.splitlines():
    header = _HEADER.match(line)
    if header:
      name, lines = header[2], []
      entry = name if header[1] else entry
    elif line == "}" and name:
      found = (_INSTRUCTION.match(text) for text in lines)
      computations[name] = tuple(_instruction(f[1], f[2]) for f in found if f)
      name = ""
    elif _INSTRUCTION.match(line):
      lines.append(line)
    elif lines:  # a kernel's attributes span several
      lines[-1] += line
  if not entry:
    raise ValueError("no text of a compiled program: it has no ENTRY")
  return Program(computations, entry)


def with_axis(
  program: Program, sizes: Collection[int]
) -> list[tuple[Array, Instruction]]:
  """Arrays in memory that have an axis of one of these sizes, largest first.

  Those of a tuple that only hands others on are left out.
  """
  found = [
    (array, instruction)
    for instruction in program.buffers()
    if instruction.opcode not in ("while", "tuple", "conditional", "call")
    for array in instruction.arrays
    if set(array.shape) & set(sizes)
  ]
  return sorted(found, key=lambda pair: -pair[0].size)


def collectives(
  instructions: Iterator[Instruction],
) -> list[tuple[str, Array, Instruction]]:
  """The collectives among instructions, with their largest array each."""
  return [
    (kind, max(i.arrays, key=lambda a: a.size), i)
    for i in instructions
    if (kind := i.collective)
  ]


def _is_control(instruction: Instruction) -> bool:
  return instruction.opcode in ("while", "conditional", "call")


def _instruction(name: str, rest: str) -> Instruction:
  kind, rest = _split_type(rest)
  opcode, _, tail = rest.partition("(")
  inside, attributes = _split_operands(tail)
  called = {
    how: tuple(n.strip().lstrip("%") for n in names.strip("{}").split(","))
    for how, names in _CALLED.findall(rest)
  }
  source, target = _OP_NAME.search(rest), _TARGET.search(rest)
  channel = _CHANNEL.search(attributes)
  return Instruction(
    name=name,
    opcode=opcode,
    arrays=tuple(
      Array(dtype, _ints(shape), int(space[2:-1]) if space else 0)
      for dtype, shape, space in _ARRAY.findall(kind)
    ),
    called=called,
    source=source[1].replace("\\'", "'") if source else "",
    target=target[1] if target else "",
    operands=tuple(_OPERAND.findall(inside)),
    number=_number(opcode, inside),
    channel=int(channel[1]) if channel else None,
    groups=_groups(attributes) if "replica_groups" in attributes else (),
  )


def _number(opcode: str, inside: str) -> int | None:
  known = opcode in ("constant", "parameter") and inside.lstrip("-").isdigit()
  return int(inside) if known else None


def _split_operands(text: str) -> tuple[str, str]:
  """What is between an instruction's parentheses, and behind them."""
  depth = 1
  for at, char in enumerate(text):
    depth += (char == "(") - (char == ")")
    if depth == 0:
      return text[:at], text[at + 1 :]
  return text, ""


def _groups(attributes: str) -> tuple[tuple[int, ...], ...]:
  """`replica_groups` in any of their three spellings."""
  found = _GROUPS.search(attributes)
  if not found:
    return ()
  if found["lists"] is not None:
    lists = re.findall(r"\{([\d,]*)\}", found["lists"])
    return tuple(_ints(one) for one in lists)
  if found["shape"] is not None:
    dims = _ints(found["dims"])
    order = _ints(found["order"]) if found["order"] else range(len(dims))
    ids = np.arange(math.prod(dims)).reshape(dims).transpose(tuple(order))
    ids = ids.reshape(_ints(found["shape"]))
  else:
    sizes = dict(re.findall(r"'([^']+)'=(\d+)", found["mesh"]))
    inner = re.findall(r"'([^']+)'", found["axes"])
    names = list(sizes)
    shape = [int(n) for n in sizes.values()]
    outer = [n for n in names if n not in inner]
    ids = np.arange(math.prod(shape)).reshape(shape)
    ids = ids.transpose([names.index(n) for n in [*outer, *inner]])
    ids = ids.reshape(-1, math.prod(int(sizes[n]) for n in inner))
  return tuple(tuple(int(i) for i in row) for row in ids)


def _ints(text: str) -> tuple[int, ...]:
  return tuple(int(n) for n in text.split(",") if n)


def _split_type(text: str) -> tuple[str, str]:
  """The type in front of an instruction, and the rest."""
  if not text.startswith("("):
    kind, _, rest = text.partition(" ")
    return kind, rest
  depth = 0
  for at, char in enumerate(text):
    depth += (char == "(") - (char == ")")
    if depth == 0:
      return text[: at + 1], text[at + 2 :]
  raise ValueError(f"unbalanced type: {text[:80]}")
