"""The cost of a count by photo size and by number of photos, for scaling.py."""

from __future__ import annotations

import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from shelfcount.files import write_whole
from shelfcount.records import Detections
from shelfcount.runtime.bundle import Bundle, LiteRTDetector
from shelfcount.runtime.inference import MIN_PRODUCT_PX, tiles_per_side
from shelfcount.shelf.count import count_photo
from shelfcount.vision.images import encode_photo, read_photo, write_photo

# Seconds between two readings of a process's memory.
POLL_S = 0.01


def rounded(value: float) -> float:
    """Return a value rounded to four significant digits."""
    return float(f"{value:.4g}")


class Counting:
    """A detector that counts its calls and the seconds they take."""

    def __init__(self, detector: LiteRTDetector) -> None:
        self.detector, self.spec, self.looks, self.seconds = detector, detector.spec, 0, 0.0

    def detect(self, image: np.ndarray) -> Detections:
        begin = time.perf_counter()
        found = self.detector.detect(image)
        self.looks, self.seconds = self.looks + 1, self.seconds + time.perf_counter() - begin
        return found


def mosaic(detector: LiteRTDetector, photos: Sequence[np.ndarray], megapixels: float) -> np.ndarray:
    """Return a 4:3 mosaic of photos with products of the size that tiling assumes."""
    height = round(math.sqrt(megapixels * 1e6 * 3 / 4))
    width = round(height * 4 / 3)
    tiles = []
    for photo in photos:
        boxes = detector.detect(photo).boxes
        side = float(np.median(np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))))
        tiles.append(cv2.resize(photo, None, fx=MIN_PRODUCT_PX / side, fy=MIN_PRODUCT_PX / side))
    edge = min(min(tile.shape[:2]) for tile in tiles)
    across, down = math.ceil(width / edge), math.ceil(height / edge)
    lines = [
        np.concatenate([tiles[(x + y) % len(tiles)][:edge, :edge] for x in range(across)], axis=1)
        for y in range(down)
    ]
    return np.ascontiguousarray(np.concatenate(lines)[:height, :width])


def photo_sizes(
    bundle: Bundle, sizes: Sequence[int], runs: int, photos: Sequence[np.ndarray]
) -> dict[str, Any]:
    """Measure the cost of one photo, from the file to the counts, by its megapixels."""
    detector = LiteRTDetector.open(bundle)
    with tempfile.TemporaryDirectory() as folder:
        paths = {megapixels: Path(folder) / f"{megapixels}.jpg" for megapixels in sizes}
        for megapixels, path in paths.items():
            write_whole(path, encode_photo(mosaic(detector, photos, megapixels)))
        found = [photo_row(detector, megapixels, path, runs) for megapixels, path in paths.items()]
    return {"axis": "megapixels", "threads": 1, "rows": found}


def photo_row(detector: LiteRTDetector, megapixels: float, path: Path, runs: int) -> dict[str, Any]:
    """Return medians over the runs of the time for reading, network and the rest of one photo."""
    times = []
    for _ in range(runs):
        counting, begin = Counting(detector), time.perf_counter()
        image = read_photo(path)
        read = time.perf_counter()
        counted = count_photo(counting, image)
        end = time.perf_counter()
        times.append((read - begin, counting.seconds, end - read - counting.seconds))
    reading, network, rest = (float(v) for v in np.median(times, axis=0) * 1e3)
    tiles = tiles_per_side(detector.spec, image.shape[1], image.shape[0])
    return {
        "at": megapixels,
        "tiles": f"{tiles} x {tiles}",
        "looks": counting.looks,
        "products": len(counted.detections),
        "read_ms": rounded(reading),
        "network_ms": rounded(network),
        "rest_ms": rounded(rest),
        "ms": rounded(reading + network + rest),
        "photo_mb": rounded(image.nbytes / 1e6),
    }


def batches(
    bundle: Bundle, numbers: Sequence[int], runs: int, photos: Sequence[np.ndarray]
) -> dict[str, Any]:
    """Measure time and memory of one `shelfcount count` by its number of photos."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for i in range(max(numbers)):
            paths.append(Path(folder) / f"{i}.jpg")
            write_photo(paths[-1], photos[i % len(photos)])
        for n in numbers:
            times, peaks = zip(
                *(command(bundle.path, paths[:n], Path(folder)) for _ in range(runs)),
                strict=True,
            )
            seconds = float(np.median(times))
            peak = None if None in peaks else rounded(max(peaks))
            found.append(
                {
                    "at": n,
                    "s": rounded(seconds),
                    "ms_a_photo": rounded(1e3 * seconds / n),
                    "peak_mb": peak,
                }
            )
    return {
        "axis": "photos per command",
        "photo": "x".join(map(str, photos[0].shape[1::-1])),
        "threads": 1,
        "rows": found,
    }


def command(bundle: Path, photos: Sequence[Path], folder: Path) -> tuple[float, float | None]:
    """Run `shelfcount count` in a process of its own.

    Returns:
        Seconds, and peak memory in megabytes or None if the system does not report it.

    Raises:
        subprocess.CalledProcessError: If the command fails.
    """
    arguments = [sys.executable, "-m", "shelfcount", "count", str(bundle), *map(str, photos)]
    begin = time.perf_counter()
    process = subprocess.Popen(
        [*arguments, "--json", str(folder / "counts.json"), "--force", "--threads", "1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    peak = None
    while process.poll() is None:
        # wait4 reports at least the peak of the process that started this one, so it is not used.
        peak = resident_peak(process.pid) or peak
        time.sleep(POLL_S)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, arguments[:4])
    return time.perf_counter() - begin, peak


def resident_peak(process: int) -> float | None:
    """Return the peak memory of a process in megabytes, from proc(5) of Linux.

    Returns:
        None if the process has ended or the system has no proc(5).
    """
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
        # The unit is 1,024 bytes.
        return (
            next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024 / 1e6
        )
    except (OSError, StopIteration):
        return None
