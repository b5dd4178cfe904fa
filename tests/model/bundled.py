"""The bundled models, run without the service around them."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import onnxruntime

from forebay_server.engines import open_device
from forebay_server.engines.clock import MonotonicClock
from forebay_server.service.models.completion import complete
from forebay_server.service.models.config import describe
from forebay_server.service.models.description import ModelDescription
from forebay_server.service.models.files import model_file
from forebay_server.service.models.repository import Repository
from tests.support.rig import rig_of

MODELS = Path(__file__).resolve().parents[2] / "models"
HERE = Path(__file__).resolve().parent


@dataclass
class BundledModel:
    description: ModelDescription
    session: onnxruntime.InferenceSession

    def prepare(self, frame_bgr):
        """Stretch a frame to the model's picture, shape (height, width, 3), in its order of colours."""
        image = self.description.image
        picture = cv2.resize(frame_bgr, (image.width, image.height), interpolation=cv2.INTER_LINEAR)
        return picture if image.color_order == "BGR" else cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)

    def run(self, pictures):
        return tuple(self.session.run(None, {self.description.specs.inputs[0].name: np.ascontiguousarray(pictures)}))


def open_model(name: str) -> BundledModel:
    entry = Repository([MODELS]).model(name)
    description = describe(entry)
    path = model_file(entry, 1, description)
    with rig_of(open_device("cpu", clock=MonotonicClock())) as rig:
        specs = rig.open_engine(
            description.backend,
            path,
            options=description.backend_options,
            max_batch_size=description.max_batch_size,
        ).specs
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # leave the cores to other processes
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return BundledModel(complete(description, specs), session)


def clip_frames():
    capture = cv2.VideoCapture(str(MODELS / "pedestrians.mp4"))
    try:
        while True:
            is_there, frame = capture.read()
            if not is_there:
                return
            yield frame
    finally:
        capture.release()
