"""Schedulers of repeats: processes of this machine, or a Ray cluster.

Both take the next task from the iterator when a worker is free.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import torch

from shelfcount.records import ShelfcountError
from shelfcount.studies.repeats import Repeat, RepeatStudy, Task, repeat
from shelfcount.training import frozen_features

Work = Callable[[RepeatStudy, Task], Repeat]
# Number of deaths of workers after which a study is stopped. A single worker may have been killed,
# but repeated deaths have a permanent cause.
MAX_DEATHS = 3


def processes(
    count: int, work: Work = repeat
) -> Callable[[RepeatStudy, Iterator[Task]], Iterator[Repeat]]:
    """Create a scheduler that runs repeats in processes of this machine, each with one thread.

    Args:
        count: Number of processes.
        work: Function that runs one repeat; it must be possible to pickle it.

    Returns:
        A scheduler for `run_repeats`. It raises ShelfcountError if worker processes die
        `MAX_DEATHS` times.
    """

    def schedule(study: RepeatStudy, tasks: Iterator[Task]) -> Iterator[Repeat]:
        lost: list[Task] = []
        for _ in range(MAX_DEATHS):
            running: dict[Future[Repeat], Task] = {}
            try:
                # Processes are spawned, since PyTorch's threads do not survive a fork.
                with ProcessPoolExecutor(
                    count, multiprocessing.get_context("spawn"), _begin
                ) as pool:
                    while True:
                        for task in _next(lost, tasks, count - len(running)):
                            running[pool.submit(work, study, task)] = task
                        if not running:
                            return
                        for future in wait(running, return_when=FIRST_COMPLETED).done:
                            result = future.result()
                            del running[future]
                            yield result
            except BrokenProcessPool:
                lost += running.values()
        raise ShelfcountError(
            f"worker processes died {MAX_DEATHS} times, most recently with seeds "
            f"{[task.seed for task in lost]}. Use fewer --processes if the machine ran out of "
            "memory."
        )

    return schedule


def on_ray(
    address: str, work: Work = repeat
) -> Callable[[RepeatStudy, Iterator[Task]], Iterator[Repeat]]:
    """Create a scheduler that runs repeats on a Ray cluster, one per processor.

    Nodes may join and leave during the study. Cached features are sent to the nodes. For the full
    depth, the photos must have the same path on every node.

    Args:
        address: Address of the cluster for ``ray.init``; 'auto' finds the cluster that contains
            this machine.
        work: Function that runs one repeat.

    Returns:
        A scheduler for `run_repeats`. It raises ShelfcountError if the cluster does not answer.

    Raises:
        ShelfcountError: If Ray is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise ShelfcountError(
            "--ray needs Ray on every machine: pip install 'shelfcount[ray]'"
        ) from error

    def schedule(study: RepeatStudy, tasks: Iterator[Task]) -> Iterator[Repeat]:
        connect = not ray.is_initialized()
        try:
            if connect:
                _knock(address)
                ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
        except (OSError, ValueError, RuntimeError) as error:
            raise ShelfcountError(f"no Ray cluster answers at '{address}': {error}") from error
        try:
            yield from _drawn(ray, study, tasks, work)
        finally:
            if connect:
                ray.shutdown()

    return schedule


def _knock(address: str) -> None:
    """Raise OSError if no server listens at the address; Ray itself would retry for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def _drawn(ray: Any, study: RepeatStudy, tasks: Iterator[Task], work: Work) -> Iterator[Repeat]:
    views = (
        frozen_features.load_features(study.views, mapped=False)
        if isinstance(study.views, Path)
        else study.views
    )
    shared = ray.put(RepeatStudy(study.data, study.groups, study.plan, views, study.commit))
    # The task of a killed worker is retried without limit. An exception of the task itself is
    # raised here.
    remote = ray.remote(num_cpus=1, max_retries=-1)(work)
    running: list[Any] = []
    while True:
        # The resources are read each time, since nodes join and leave.
        free = max(1, int(ray.cluster_resources().get("CPU", 1))) - len(running)
        running += [remote.remote(shared, task) for task in _next([], tasks, free)]
        if not running:
            return
        done, running = ray.wait(running)
        yield from ray.get(done)


def _next(pending: list[Task], tasks: Iterable[Task], number: int) -> list[Task]:
    """Return the next `number` tasks, those of dead workers (`pending`) first."""
    retried = [pending.pop(0) for _ in range(min(len(pending), max(number, 0)))]
    return retried + list(islice(tasks, max(number - len(retried), 0)))


def _begin() -> None:
    """Initialize a worker process."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # If the parent process is killed, its workers would wait for the next task forever.
    if parent := multiprocessing.parent_process():
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
