"""Parses the text of an optimised XLA program into computations and instructions."""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping

BITS = {"pred": 8, "token": 0, "opaque": 0}
ARRAY = re.compile(r"\b([a-z]+[a-z0-9]*)\[([\d,]*)\]")
HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
CALLED = re.compile(r"\b(calls|body|condition|to_apply)=%?([\w.\-]+)")
BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}|(?:true|false)_computation=%?([\w.\-]+)")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """An instruction of a program.

    Attributes:
        name: within the program.
        type: of its result, as text, such as "f32[128,16]{1,0}" or a tuple of these.
        opcode: such as "fusion".
        operands: names of the instructions that it reads.
        attributes: the rest of its line.
        is_root: its result is that of its computation.
    """

    name: str
    type: str
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    is_root: bool

    @property
    def bytes(self) -> int:
        """Size of the result."""
        return size(self.type)

    @property
    def op_name(self) -> str:
        """Path of the JAX operation that it comes from; "" if the compiler made it."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found[1] if found else ""

    @property
    def target(self) -> str:
        """Name of the library call of a custom call; "" for others."""
        found = re.search(r'custom_call_target="([^"]*)"', self.attributes)
        return found[1] if found else ""

    def called(self, kind: str) -> str:
        """Name of a computation that it runs: "calls" of a fusion, "body" of a loop; or ""."""
        return next((name for key, name in CALLED.findall(self.attributes) if key == kind), "")

    def branches(self) -> list[str]:
        """Names of the computations of which a conditional runs one."""
        found = []
        for several, one in BRANCHES.findall(self.attributes):
            found += [one] if one else re.findall(r"%?([\w.\-]+)", several)
        return found


@dataclasses.dataclass(frozen=True)
class Computation:
    """A sequence of instructions, by name in the order of the text."""

    name: str
    instructions: Mapping[str, Instruction]

    @property
    def root(self) -> Instruction:
        """The instruction whose result is that of the computation."""
        return next(each for each in self.instructions.values() if each.is_root)

    def parameters(self) -> list[Instruction]:
        """Its parameters in order."""
        found = [each for each in self.instructions.values() if each.opcode == "parameter"]
        return sorted(found, key=lambda each: int(each.operands[0]))

    def users(self, name: str) -> list[Instruction]:
        """The instructions that read a result."""
        return [each for each in self.instructions.values() if name in each.operands]


@dataclasses.dataclass(frozen=True)
class Program:
    """A program: its computations by name, and the name of the one that is run."""

    computations: Mapping[str, Computation]
    entry: str

    def step(self) -> Computation:
        """The computation of one training step.

        It is the body of the loop over steps if the entry has such a loop, which is recognised by
        the largest state; otherwise the entry itself.
        """
        entry = self.computations[self.entry]
        loops = [each for each in entry.instructions.values() if each.opcode == "while"]
        bodies = [self.computations[loop.called("body")] for loop in loops]
        largest = max(bodies, key=lambda body: len(body.instructions), default=entry)
        return largest if len(largest.instructions) > len(entry.instructions) / 2 else entry


def size(type_text: str) -> int:
    """Bytes of a result type; those of all elements for a tuple."""
    total = 0
    for dtype, shape in ARRAY.findall(type_text):
        bits = BITS.get(dtype)
        if bits is None:
            digits = re.search(r"\d+", dtype)
            bits = int(digits[0]) if digits else 0
        count = math.prod(int(n) for n in shape.split(",")) if shape else 1
        total += count * bits // 8
    return total


def parse(text: str) -> Program:
    """Parses the text of a program, from `compiled.as_text()`.

    Raises:
        ValueError: the text has no entry computation.
    """
    computations: dict[str, Computation] = {}
    entry = ""
    for header, lines in _blocks(text):
        is_entry, name = bool(header[1]), header[2]
        instructions = (_instruction(line) for line in lines)
        computations[name] = Computation(name, {i.name: i for i in instructions if i is not None})
        entry = name if is_entry else entry
    if not entry:
        raise ValueError("this is not the text of an XLA program: it has no ENTRY")
    return Program(computations, entry)


def _blocks(text: str) -> Iterator[tuple[re.Match[str], list[str]]]:
    header: re.Match[str] | None = None
    lines: list[str] = []
    for line in text.splitlines():
        if header is None:
            header, lines = HEADER.match(line), []
        elif line.startswith("}"):
            yield header, lines
            header = None
        else:
            lines.append(line)


def _instruction(line: str) -> Instruction | None:
    found = INSTRUCTION.match(line)
    if found is None:
        return None
    root, name, rest = found.groups()
    type_text, rest = _type(rest)
    opcode, _, rest = rest.partition("(")
    end = _closing(rest)
    inside, attributes = rest[:end], rest[end + 1 :]
    if opcode == "parameter":
        operands: tuple[str, ...] = (inside,)
    else:
        operands = tuple(re.findall(r"%([\w.\-]+)", inside))
    return Instruction(name, type_text, opcode.strip(), operands, attributes, bool(root))


def _type(rest: str) -> tuple[str, str]:
    """Splits the type from what follows; a tuple's has parentheses and spaces."""
    if not rest.startswith("("):
        type_text, _, rest = rest.partition(" ")
        return type_text, rest
    end = _closing(rest[1:]) + 2
    return rest[:end], rest[end:].lstrip()


def _closing(text: str) -> int:
    """Position of the parenthesis that closes one opened before the text."""
    depth = 1
    for i, char in enumerate(text):
        depth += (char == "(") - (char == ")")
        if not depth:
            return i
    return len(text)
