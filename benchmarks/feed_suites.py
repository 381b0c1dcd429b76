"""The suites of measurements of feeds."""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import feeds
from benchmarks.bench import TIME, Bench, name_of, number
from benchmarks.image_trees import write_tree
from benchmarks.timing import Program, cpus


def rates_of_feeds(bench: Bench) -> None:
    """Images a second from files and from raw pixels, and what a feed costs of an epoch."""
    batch, steps = bench.options.batch or 64, 8
    with tempfile.TemporaryDirectory() as folder, feeds.cache_in(Path(folder) / "cache"):
        root = Path(folder) / "tree"
        paths = write_tree(root, 1_000, 10)
        decoded = feeds.decoded_images(root)
        index = feeds.order_of(len(paths), batch, steps)
        threads = sorted({1, 2, 4, cpus()})
        mapped = feeds.mapped_images(Path(folder) / "pixels", len(paths))
        makers: dict[str, Callable[[], Program]] = {}
        for n in threads:
            makers[f"decoded, {n} threads"] = partial(feeds.reading, decoded, index, n)
            makers[f"mapped, {n} threads"] = partial(feeds.reading, mapped, index, n)
        for n in sorted({0, 1, cpus()}):
            makers[f"DataLoader, {n} processes"] = partial(feeds.torch_reading, paths, index, n)
        group = f"{feeds.SIDE} px, batch {batch}"
        rows = bench.time("feeds", group, bench.prepare(makers, group))
        bench.table(
            f"a batch from a feed and from a DataLoader: {group}",
            rows,
            TIME | {"images/s": number("images_per_second", "{:,.0f}")},
        )
        most = f"decoded, {cpus()} threads"
        rate = next((row["images_per_second"] for row in rows if row["name"] == most), None)
        cases: dict[str, tuple[Any, int, float]] = {
            "mapped": (mapped, 1, batch / feeds.MAPPED_RATE)
        }
        if rate:
            cases["decoded"] = (decoded, cpus(), batch / (feeds.BUSY * rate))
        found = []
        for name, (images, workers, seconds) in cases.items():
            share = bench.attempt(
                f"share of an epoch, {name}",
                feeds.share_of_epoch, images, index, workers, seconds, bench.options.rounds,
            )  # fmt: skip
            found += [{"name": name, **share}] if share else []
        bench.table(
            "time that a feed adds to the steps of an epoch, over theirs",
            bench.add("feeds", "share of an epoch", found),
            {
                "": name_of,
                "share": number("share", "{:.1%}"),
                "step, ms": number("step_ms"),
                "threads": number("workers", "{}"),
            },
        )


def large_trees(bench: Bench) -> None:
    """Draws and starts of data sets as large as iNaturalist 2018 and ImageNet-LT."""
    draws = bench.attempt("draws", feeds.balanced_epoch, 437_513, 8_142, bench.options.rounds)
    rows = [{"name": "437,513 images, 8,142 classes", **draws}] if draws else []
    bench.table("drawing a balanced epoch", bench.add("large trees", "draws", rows), TIME)
    starts = bench.attempt("starts", feeds.first_steps, 115_846, 1_000, (32, 64))
    bench.table(
        "from the start of Python to the end of the first step, in seconds",
        bench.add("large trees", "115,846 JPEGs of 32 to 64 px", starts),
        {"": name_of, "first step": number("first_step_seconds")},
    )
