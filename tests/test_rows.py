"""Rows and positions on synthetic shelves with known rows, and on real labelled coolers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shelfcount.shelf.rows import Placement, rows
from shelfcount.vision import boxes as box_math

DRINKS = Path(__file__).parents[2] / "shared" / "data" / "drinks" / "train.json"
WIDTH, HEIGHT = 1500, 2000  # pixels of the synthetic shelf


def shelf(rng: np.random.Generator, n_rows: int = 5, stacks: float = 0.0, missing: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Products on level shelves: (n, 4) xyxy boxes, (n,) rows, (n,) positions."""
    boxes, row, position = [], [], []
    pitch = HEIGHT / n_rows
    for number in range(n_rows):
        line, left, place = pitch * (number + 1) - 20, 10.0, 0
        while left < WIDTH - 140:
            width, height = rng.uniform(60, 140), rng.uniform(0.35, 0.85) * pitch
            stacked = height < 0.42 * pitch and rng.random() < stacks
            for level in range(2 if stacked else 1):
                bottom = line - level * height
                if level > 0 or rng.random() >= missing:
                    boxes.append([left, bottom - height, left + width, bottom])
                    row.append(number)
                    position.append(place)
                    place += 1
            left += width + rng.uniform(2, 20)
    return np.array(boxes), np.array(row), np.array(position)


def seen_through(boxes: np.ndarray, homography: np.ndarray) -> np.ndarray:
    """Boxes around the warped corners of boxes."""
    corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)
    warped = np.concatenate([corners, np.ones((*corners.shape[:2], 1))], axis=2) @ homography.T
    warped = warped[..., :2] / warped[..., 2:]
    return np.concatenate([warped.min(axis=1), warped.max(axis=1)], axis=1)


def camera(tilt: float, yaw: float, pitch: float = 0.0) -> np.ndarray:
    """Shelf plane to a photo: degrees; a lens of 65 degrees, the shelf fills the photo when seen from the front."""
    focal = WIDTH / 2 / np.tan(np.radians(32.5))
    t, p, y = np.radians([tilt, pitch, yaw])
    roll = np.array([[np.cos(t), -np.sin(t), 0], [np.sin(t), np.cos(t), 0], [0, 0, 1]])
    turn = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    nod = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
    rotation = roll @ nod @ turn
    plane = np.stack([rotation[:, 0], rotation[:, 1], [0, 0, focal]], axis=1)
    to_photo = np.array([[focal, 0, WIDTH / 2], [0, focal, HEIGHT / 2], [0, 0, 1]])
    return to_photo @ plane @ np.array([[1, 0, -WIDTH / 2], [0, 1, -HEIGHT / 2], [0, 0, 1.0]])


def jittered(rng: np.random.Generator, boxes: np.ndarray, share: float) -> np.ndarray:
    return boxes + rng.normal(0, share, boxes.shape) * np.tile(boxes[:, 2:] - boxes[:, :2], 2)


def share_right(found: Placement, row: np.ndarray) -> float:
    return float((found.row == row).mean())


TILTS = (-15.0, -7.0, 0.0, 7.0, 15.0)
YAWS = (-30.0, -15.0, 0.0, 15.0, 30.0)
