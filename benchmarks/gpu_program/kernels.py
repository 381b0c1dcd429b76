"""Lists the kernels of one step of a program: where each comes from, its bytes and its FLOPs."""

import dataclasses
import math
import re
from collections.abc import Iterator

from benchmarks.gpu_program.hlo import ARRAY, Computation, Instruction, Program, size

# Instructions that run nothing on the device.
FREE = {"parameter", "get-tuple-element", "tuple", "constant", "bitcast", "after-all"}
FREE |= {"optimization-barrier", "partition-id", "replica-id", "add-dependency"}
# The end of an operation whose start is counted.
FREE |= {"async-done", "async-update", "all-reduce-done", "all-gather-done", "copy-done"}
SLICES = {"slice", "dynamic-slice", "gather"}
SAME_DATA = {"bitcast", "reshape", "convert"}
# Each element of the result needs one element of each operand.
ELEMENTWISE = SAME_DATA | {
    "abs",
    "add",
    "and",
    "compare",
    "maximum",
    "minimum",
    "multiply",
    "negate",
}
ELEMENTWISE |= {"not", "or", "select", "subtract", "transpose"}
COLLECTIVE = re.compile(r"^(all-reduce|all-gather|all-to-all|reduce-scatter|collective-\w+)")

# Origin of a kernel, and the pattern of the path of its JAX operation; the first that fits. The
# path of a fusion is that of its last operation, so that the update of a parameter, which the guard
# keeps or not, counts as the guard's choice.
ORIGINS = (
    ("guard", re.compile(r"/guard/.*(le|and|reduce_and|abs|concatenate)$")),
    ("update and guard's choice", re.compile(r"/guard/|/optimizer/")),
    ("augmentation", re.compile(r"/augment/")),
    ("noise", re.compile(r"/transforms/")),
    ("norm moments", re.compile(r"of_groups|BatchNorm.*reduce")),
    ("norm", re.compile(r"\.route|/bn\w*/|BatchNorm")),
    ("dropout", re.compile(r"Dropout")),
    ("casts and layouts of kernels", re.compile(r"conv\w*/|shortcut")),
    ("relu and sums", re.compile(r"relu|stage\w*/(add|max)|select_n|add_any")),
    ("head and loss", re.compile(r"head|objective|jvp\(")),
)


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One launch: a fusion, a library call, a copy or another single operation.

    Attributes:
        name: of its instruction.
        kind: "convolution", "library call", "collective", "fusion" or the opcode.
        origin: the part of the step that it belongs to.
        read: bytes of its operands; of an operand of which it takes a slice, those of the slice.
        written: bytes of its result; of an array updated in place, those of the update.
        flops: of a convolution or matrix product, two per multiply-add; 0 for others.
        results: bytes of its results, of each.
    """

    name: str
    kind: str
    origin: str
    read: int
    written: int
    flops: int
    op_name: str

    @property
    def bytes(self) -> int:
        """Bytes read and written."""
        return self.read + self.written


def kernels(program: Program) -> list[Kernel]:
    """The kernels of one step, in the order of the text."""
    return list(_kernels(program, program.step()))


def _kernels(program: Program, computation: Computation) -> Iterator[Kernel]:
    for instruction in computation.instructions.values():
        if instruction.opcode in FREE:
            continue
        if instruction.opcode == "while":
            body = list(_kernels(program, program.computations[instruction.called("body")]))
            trips = re.search(r'"known_trip_count":\{"n":"(\d+)"', instruction.attributes)
            yield from body * (int(trips[1]) if trips else 1)
        elif instruction.opcode == "conditional":
            branches = [program.computations[name] for name in instruction.branches()]
            runs = [list(_kernels(program, branch)) for branch in branches]
            # The dearest branch, as every step may take it.
            yield from max(runs, key=lambda run: sum(k.bytes for k in run), default=[])
        elif instruction.opcode in ("call", "async-start"):
            called = instruction.called("to_apply") or instruction.called("calls")
            yield from _kernels(program, program.computations[called])
        else:
            yield _kernel(program, computation, instruction)


def _kernel(program: Program, computation: Computation, instruction: Instruction) -> Kernel:
    read, written = traffic(program, computation, instruction)
    kind = _kind(instruction)
    return Kernel(
        name=instruction.name,
        kind=kind,
        origin=_origin(instruction, kind),
        read=read,
        written=written,
        flops=_flops(computation, instruction),
        op_name=instruction.op_name,
    )


def _kind(instruction: Instruction) -> str:
    if instruction.opcode == "custom-call":
        return "convolution" if "conv" in instruction.target.lower() else "library call"
    return "collective" if COLLECTIVE.match(instruction.opcode) else instruction.opcode


def _origin(instruction: Instruction, kind: str) -> str:
    if kind in ("convolution", "collective"):
        return kind
    path = instruction.op_name
    found = next((name for name, pattern in ORIGINS if pattern.search(path)), "other")
    if "jvp" not in path:
        return found
    return f"{found}, backward" if "transpose(jvp" in path else f"{found}, forward"


def traffic(
    program: Program, computation: Computation, instruction: Instruction
) -> tuple[int, int]:
    """Bytes that an instruction reads, and bytes that it writes."""
    types = {name: i.type for name, i in computation.instructions.items()}
    operands = [size(types.get(name, "")) for name in instruction.operands]
    opcode, result = instruction.opcode, instruction.bytes
    if opcode == "custom-call":
        # The last result of a library call is its scratch space.
        result = size(re.sub(r", u8\[\d*\]\{0\}\)$", "", instruction.type))
    if opcode in SLICES:
        return result + sum(operands[1:]), result
    if opcode == "dynamic-update-slice":
        return sum(operands[1:]), operands[1]
    if opcode != "fusion":
        return sum(dict(zip(instruction.operands, operands, strict=True)).values()), result
    fused = program.computations[instruction.called("calls")]
    read, seen = 0, set()
    for parameter, name, whole in zip(
        fused.parameters(), instruction.operands, operands, strict=True
    ):
        if name in seen:
            continue
        seen.add(name)
        read += min(_read(fused, parameter), whole)
    return read, _written(fused)


def _read(fused: Computation, parameter: Instruction) -> int:
    """Bytes that a fusion reads of a parameter: all, unless it uses only slices of it."""
    elements = _used(fused, parameter, {})
    whole = math.prod(_shapes(parameter.type)[0])
    return parameter.bytes * min(elements, whole) // whole if whole else 0


def _used(fused: Computation, value: Instruction, known: dict[str, int]) -> int:
    """Elements of an array that a fusion uses."""
    if value.name in known:
        return known[value.name]
    whole = math.prod(_shapes(value.type)[0])
    users, total = fused.users(value.name), 0
    for user in users:
        first = bool(user.operands) and user.operands[0] == value.name
        if user.opcode in SLICES and first:
            total += math.prod(_shapes(user.type)[0])
        elif user.opcode == "dynamic-update-slice" and first:
            # Updated in place: what is not replaced stays where it is.
            continue
        elif user.opcode in ELEMENTWISE and not user.is_root:
            total += _used(fused, user, known)
        else:
            total = whole
            break
    known[value.name] = min(total, whole) if users else whole
    return known[value.name]


def _written(fused: Computation) -> int:
    root = fused.root
    results = root.operands if root.opcode == "tuple" else (root.name,)
    return sum(_written_result(fused, fused.instructions[name]) for name in results)


def _written_result(fused: Computation, result: Instruction) -> int:
    source = result
    while source.opcode in SAME_DATA:
        source = fused.instructions[source.operands[0]]
    if source.opcode == "dynamic-update-slice":
        return fused.instructions[source.operands[1]].bytes
    return result.bytes


def _flops(computation: Computation, instruction: Instruction) -> int:
    """FLOPs of cuDNN's convolutions, and of the matrix products of cuBLAS."""
    if instruction.opcode != "custom-call":
        return 0
    first, *others = (
        computation.instructions[name].type
        for name in instruction.operands
        if name in computation.instructions
    )
    result = _shapes(instruction.type)[0]
    if "conv" in instruction.target.lower():
        labels = re.search(r"dim_labels=\w+_(\w+)->", instruction.attributes)
        if labels is None or not others:
            return 0
        # The images of the convolution's output, and its kernel, one of which is the result.
        if "BackwardFilter" in instruction.target:
            output, kernel = _shapes(others[0])[0], result
        elif "BackwardInput" in instruction.target:
            output, kernel = _shapes(first)[0], _shapes(others[0])[0]
        else:
            output, kernel = result, _shapes(others[0])[0]
        return 2 * math.prod(output) * math.prod(kernel) // kernel[labels[1].index("o")]
    contracted = re.search(r'"lhs_contracting_dimensions":\["(\d+)"', instruction.attributes)
    if contracted is None:
        return 0
    return 2 * math.prod(result) * _shapes(first)[0][int(contracted[1])]


def _shapes(type_text: str) -> list[list[int]]:
    """Shapes of the arrays of a type."""
    return [
        [int(n) for n in dims.split(",")] if dims else [] for _, dims in ARRAY.findall(type_text)
    ]
