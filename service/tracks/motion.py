"""Predicts and corrects the boxes of many tracks at once: a Kalman filter with a constant velocity that fades.

A box is centre x, centre y, width and height, each with a velocity. The four are independent of each other in the model
and in the noise, so the covariance of a track is not 8 x 8: it is one symmetric 2 x 2 matrix (position and velocity)
for each coordinate. Both centre coordinates always have the same matrix, and so have width and height: two matrices of
three numbers a track.

The velocity is an Ornstein-Uhlenbeck process: it keeps its value over times that are short beside `persistence_s`, and
fades to 0 over longer ones, so that a prediction over seconds neither runs out of the picture nor turns a box inside
out. Its integrals are exact for any interval: one prediction over a gap equals many over its parts.

Lengths are in the unit of the boxes, and all noise is relative to the size of the box (the square root of its area), so
that pixels and shares of the picture are tracked alike. Arrays are float32, and no function writes to its arguments.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
SMALLEST = 1e-6
"""Least width and height of a box, in its unit; a prediction that shrinks further stops here."""


@dataclass(frozen=True, slots=True)
class Noise:
    """How two coordinates move and how exactly they are measured, relative to the size of the box.

    Attributes:
        speed: standard deviation of the velocity, in sizes per second.
        persistence_s: time in which a velocity fades to a third.
        measured: standard deviation of a detector's coordinate, in sizes.
    """

    speed: float
    persistence_s: float
    measured: float


NOISE = (Noise(speed=1.2, persistence_s=1.5, measured=0.05), Noise(speed=0.3, persistence_s=0.5, measured=0.07))
"""Of the centre and of the size. A walking person moves 0.8 of their height, 1.3 of their box's size, in a second."""

_MEASURED = np.array([noise.measured**2 for noise in NOISE], np.float32)
_BEGIN = np.array([(noise.measured**2, noise.speed**2) for noise in NOISE], np.float32)


class Motion(NamedTuple):
    """The estimates of n tracks.

    Attributes:
        position: shape (n, 4): centre x, centre y, width, height.
        velocity: shape (n, 4): of the same, per second.
        variance: shape (n, 2, 3): for centre and size the variance of the position, the covariance, and the variance
            of the velocity.
    """

    position: Floats
    velocity: Floats
    variance: Floats

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> "Motion":
        """Return some tracks."""
        return Motion(self.position[rows], self.velocity[rows], self.variance[rows])

    def plus(self, other: "Motion") -> "Motion":
        """Return these tracks and those of another."""
        return Motion(*(np.concatenate(pair) for pair in zip(self, other, strict=True)))


def to_centres(corners: Floats) -> Floats:
    """Return boxes as centre and size, from corners; both of shape (n, 4)."""
    least, most = corners[:, :2], corners[:, 2:]
    return np.concatenate(((least + most) * np.float32(0.5), most - least), axis=1)


def begin(position: Floats) -> Motion:
    """Return new tracks at measured positions of shape (n, 4): velocity 0, as uncertain as velocities are at all."""
    variance = np.zeros((len(position), 2, 3), np.float32)
    variance[:, :, ::2] = _BEGIN * _square_of_size(position)[:, None, None]
    return Motion(position, np.zeros_like(position), variance)


def predict(motion: Motion, seconds: float) -> Motion:
    """Return the estimates `seconds` later; 0 changes nothing."""
    kept, path, added = (np.array(values, np.float32) for values in zip(*_transitions(seconds), strict=True))
    square = _square_of_size(motion.position)
    position = motion.position + path.repeat(2) * motion.velocity
    np.maximum(position[:, 2:], SMALLEST, out=position[:, 2:])
    pp, pv, vv = _terms(motion.variance)
    arriving = pv + path * vv
    variance = added * square[:, None, None]
    variance[..., 0] += pp + path * (pv + arriving)
    variance[..., 1] += kept * arriving
    variance[..., 2] += kept * kept * vv
    return Motion(position, kept.repeat(2) * motion.velocity, variance)


def correct(motion: Motion, measured: Floats) -> Motion:
    """Return the estimates after each track was seen at a position, shape (n, 4)."""
    pp, pv, vv = _terms(motion.variance)
    noise = _MEASURED * _square_of_size(motion.position)[:, None]
    total = pp + noise
    left = noise / total  # share of the variance that remains; above 0 however large pp is
    gain = pv / total
    difference = measured - motion.position
    position = motion.position + (pp / total).repeat(2, axis=1) * difference
    np.maximum(position[:, 2:], SMALLEST, out=position[:, 2:])
    variance = np.empty_like(motion.variance)
    variance[..., 0], variance[..., 1] = pp * left, pv * left
    # rounding must not make the variance smaller than any covariance allows
    np.maximum(vv - gain * pv, vv * left, out=variance[..., 2])
    return Motion(position, motion.velocity + gain.repeat(2, axis=1) * difference, variance)


def _terms(variance: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the variance of the position, the covariance, and the variance of the velocity; shape (n, 2) each."""
    return variance[..., 0], variance[..., 1], variance[..., 2]


def _transitions(seconds: float) -> Iterator[tuple[float, float, tuple[float, float, float]]]:
    """Yield the effects of a time on centre and on size.

    Each is the share of a velocity that is kept, the path of a velocity of 1, and the three terms that are added to the
    variance: the integrals of the noise that keeps the variance of a velocity at the square of `speed`.
    """
    for noise in NOISE:
        persistence_s, square = noise.persistence_s, noise.speed**2
        lost = -math.expm1(-seconds / persistence_s)
        lost_twice = -math.expm1(-2 * seconds / persistence_s)
        added = 2 * persistence_s * (seconds - 2 * persistence_s * lost + persistence_s / 2 * lost_twice)
        terms = (max(added, 0.0) * square, persistence_s * lost * lost * square, lost_twice * square)
        yield 1 - lost, persistence_s * lost, terms


def _square_of_size(position: Floats) -> Floats:
    return position[:, 2] * position[:, 3]
