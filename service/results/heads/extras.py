"""The values that follow the class scores of a YOLO candidate: keypoints, an angle or mask coefficients. Pure."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from forebay_server.service.errors import CorruptResultError
from forebay_server.service.request import OutputArrays
from forebay_server.service.results.arrays import frame_row
from forebay_server.service.results.heads.candidates import Floats


class ExtraValues(NamedTuple):
    """The last attributes of `Candidates`, in its order."""

    keypoints: Floats | None = None
    angles: Floats | None = None
    coefficients: Floats | None = None
    prototypes: NDArray[Any] | None = None


NO_EXTRA_VALUES = ExtraValues()


@dataclass(frozen=True, slots=True)
class Extras:
    """The meaning of the last values of each candidate; at most one of the three kinds.

    Attributes:
        keypoint_count: number of keypoints.
        keypoint_values: 3 for x, y and a score, 2 without the score.
        has_angle: whether the one last value is an angle in radians; boxes are then rotated.
        coefficient_count: number of mask coefficients.
        prototypes_output: index of the output [coefficients, height, width]; None without masks.
    """

    keypoint_count: int = 0
    keypoint_values: int = 3
    has_angle: bool = False
    coefficient_count: int = 0
    prototypes_output: int | None = None

    @property
    def value_count(self) -> int:
        """Number of values for each candidate."""
        return self.keypoint_count * self.keypoint_values + self.has_angle + self.coefficient_count

    def read(self, values: Floats, outputs: OutputArrays) -> ExtraValues:
        """Return the values of candidates.

        Args:
            values: float32 [n, value_count].
            outputs: all outputs of the frame.

        Raises:
            CorruptResultError: the prototypes do not fit the coefficients.
        """
        if self.keypoint_count:
            return ExtraValues(keypoints=self._keypoints(values))
        if self.has_angle:
            return ExtraValues(angles=values[:, 0])
        if self.prototypes_output is not None:
            return ExtraValues(coefficients=values, prototypes=self._prototypes(outputs))
        return NO_EXTRA_VALUES

    def _keypoints(self, values: Floats) -> Floats:
        points = values.reshape(len(values), self.keypoint_count, self.keypoint_values)
        if self.keypoint_values == 3:
            return points
        return np.concatenate([points, np.ones((*points.shape[:2], 1), np.float32)], axis=2)

    def _prototypes(self, outputs: OutputArrays) -> NDArray[Any]:
        assert self.prototypes_output is not None  # noqa: S101 - for mypy: the caller has looked
        prototypes = frame_row(outputs, self.prototypes_output, 3, "mask prototypes")
        if prototypes.shape[0] != self.coefficient_count or 0 in prototypes.shape:
            raise CorruptResultError(
                f"mask prototypes have shape {list(prototypes.shape)}; a box has {self.coefficient_count} coefficients"
            )
        return prototypes


NO_EXTRAS = Extras()
