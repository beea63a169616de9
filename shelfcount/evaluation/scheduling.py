"""Where repeats run: in processes of this machine, or on a Ray cluster. Both draw a task when a worker is free."""

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

from shelfcount.evaluation.repeats import Repeat, Study, Task, repeat
from shelfcount.records import ShelfcountError
from shelfcount.training import frozen

Work = Callable[[Study, Task], Repeat]
# A worker that dies once ran out of memory or was killed; one that dies with every task does so again.
MOST_DEATHS = 3


def processes(
    count: int, work: Work = repeat
) -> Callable[[Study, Iterator[Task]], Iterator[Repeat]]:
    """A scheduler on this machine, with one thread a process.

    Args:
        count: Of processes.
        work: What to run, for tests; a function that can be pickled.

    Returns:
        As `studies.run` takes it. It raises ShelfcountError when workers keep dying.
    """

    def schedule(study: Study, tasks: Iterator[Task]) -> Iterator[Repeat]:
        left: list[Task] = []
        for _ in range(MOST_DEATHS):
            running: dict[Future[Repeat], Task] = {}
            try:
                # Not forked: PyTorch's threads do not survive it.
                with ProcessPoolExecutor(
                    count, multiprocessing.get_context("spawn"), _begin
                ) as pool:
                    while True:
                        for task in _next(left, tasks, count - len(running)):
                            running[pool.submit(work, study, task)] = task
                        if not running:
                            return
                        for future in wait(running, return_when=FIRST_COMPLETED).done:
                            result = future.result()
                            del running[future]
                            yield result
            except BrokenProcessPool:
                left += running.values()
        raise ShelfcountError(
            f"worker processes died {MOST_DEATHS} times, at last with seeds {[task.seed for task in left]}. Is memory short?"
        )

    return schedule


def on_ray(
    address: str, work: Work = repeat
) -> Callable[[Study, Iterator[Task]], Iterator[Repeat]]:
    """A scheduler on a Ray cluster, a task for each of its processors; nodes may come and go.

    Cached features travel with the study. For the full depth the photos must lie at the same place on each node.

    Args:
        address: Of the cluster, as `ray.init` takes it; 'auto' finds the one this machine is part of.
        work: What to run, for tests.

    Raises:
        ShelfcountError: If Ray is not installed or does not answer.
    """
    try:
        import ray
    except ImportError as error:
        raise ShelfcountError(
            "--ray needs Ray on every machine: pip install 'shelfcount[ray]'"
        ) from error

    def schedule(study: Study, tasks: Iterator[Task]) -> Iterator[Repeat]:
        mine = not ray.is_initialized()
        try:
            if mine:
                _knock(address)
                ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
        except (OSError, ValueError, RuntimeError) as error:
            raise ShelfcountError(f"no Ray cluster answers at '{address}': {error}") from error
        try:
            yield from _drawn(ray, study, tasks, work)
        finally:
            if mine:
                ray.shutdown()

    return schedule


def _knock(address: str) -> None:
    """Raise OSError where nothing listens: Ray itself goes on asking for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def _drawn(ray: Any, study: Study, tasks: Iterator[Task], work: Work) -> Iterator[Repeat]:
    views = frozen.load(study.views, mapped=False) if isinstance(study.views, Path) else study.views
    shared = ray.put(Study(study.data, study.groups, study.plan, views, study.commit))
    # A worker that is killed takes its task back to the queue, as often as it takes; an error of the task itself is raised here.
    remote = ray.remote(num_cpus=1, max_retries=-1)(work)
    running: list[Any] = []
    while True:
        # Asked again each time: nodes join and leave.
        free = max(1, int(ray.cluster_resources().get("CPU", 1))) - len(running)
        running += [remote.remote(shared, task) for task in _next([], tasks, free)]
        if not running:
            return
        done, running = ray.wait(running)
        yield from ray.get(done)


def _next(left: list[Task], tasks: Iterable[Task], number: int) -> list[Task]:
    """So many tasks, those that a dead worker left first."""
    taken = [left.pop(0) for _ in range(min(len(left), max(number, 0)))]
    return taken + list(islice(tasks, max(number - len(taken), 0)))


def _begin() -> None:
    """What a worker process does first."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # The workers of a process that is killed would wait for their next task for ever.
    if parent := multiprocessing.parent_process():
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
