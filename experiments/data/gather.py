"""Lay out the images of manifest.csv in one folder, by their hashes, from wherever they were downloaded to.

python experiments/data/gather.py FOLDER [FOLDER ...] -o DATA

Names and places of the files found do not matter. Writes DATA/manifest.csv with the rows whose files are all there, and
says how many of each source are missing; ends with 1 if any is.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from tqdm import tqdm

from sstl.data.images import list_images
from sstl.ops.files import whole_file, write_atomic

MANIFEST = Path(__file__).with_name("manifest.csv")
Row = dict[str, str]


def wanted(row: Row) -> dict[str, str]:
    """Return the files of a row, path below the manifest's folder -> SHA-256."""
    first, *others = (row[column] for column in ("rainy", "clean", "streak") if row[column])
    return {first: row["sha256"], **dict.fromkeys(others, row["sha256_clean"])}


def by_hash(folders: Iterable[Path]) -> dict[str, Path]:
    """Return the images in some folders and below by their SHA-256."""
    paths = [path for folder in folders for path in list_images(folder)]
    return {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in tqdm(paths, desc="hash", unit="image")}


def gather(rows: Sequence[Row], found: dict[str, Path], out: Path) -> list[Row]:
    """Copy the files of the rows that are complete, write their manifest, and return these rows."""
    complete = [row for row in rows if all(digest in found for digest in wanted(row).values())]
    for row in tqdm(complete, desc="copy", unit="row"):
        for name, digest in wanted(row).items():
            if not (out / name).exists():
                with whole_file(out / name) as part:
                    shutil.copyfile(found[digest], part)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(complete)
    write_atomic(out / MANIFEST.name, text.getvalue())
    return complete


def main(arguments: Sequence[str] | None = None) -> int:
    """Gather and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", metavar="FOLDER", nargs="+", type=Path)
    parser.add_argument("-o", "--out", metavar="DATA", type=Path, required=True)
    args = parser.parse_args(arguments)
    with MANIFEST.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    complete = gather(rows, by_hash(args.folders), args.out)
    counts = Counter(row["source"] for row in complete)
    for source, count in Counter(row["source"] for row in rows).items():
        print(f"{counts[source]:5} of {count:5}  {source}")
    print(f"wrote {args.out / MANIFEST.name}; next: export SSTL_DATA={args.out.resolve()}")
    return int(len(complete) < len(rows))


if __name__ == "__main__":
    raise SystemExit(main())
