"""Finds the files of a checkpoint, and flips a bit of a file."""


def step_folder(workdir, step=3):
    return workdir / "checkpoints" / str(step)


def files_of(folder):
    return sorted(p for p in folder.rglob("*") if p.is_file())


def flip(path, position, bit=0):
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << bit
    path.write_bytes(data)
