"""Exports seeded models with Ultralytics and lets Ultralytics predict with the files. Runs in .venv-exporters.

    python export_ultralytics.py PICTURES OUT JOBS

PICTURES is a folder of PNG files, JOBS a JSON object: name to job (see `jobs`). Writes OUT/NAME.onnx and
OUT/NAME.npz, with the predictions for each picture under "<field> <picture>"; or OUT/NAME.error, why there is none.
Every export has a process of its own and a limit of time.

Nothing is downloaded: the weights are random. So that there is something to find, batch normalisation takes its
statistics from the pictures, and the last convolutions of the head are scaled until boxes and scores vary. Two things
that training gives are set: boxes have sides above 0, and mask prototypes are smooth.
"""

import json
import os
import shutil
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from unittest import mock

os.environ.update(YOLO_OFFLINE="1", YOLO_AUTOINSTALL="false", YOLO_VERBOSE="false", YOLO_CONFIG_DIR=tempfile.mkdtemp())

import cv2
import numpy as np
import operators
import torch

LIBRARY = operators.supply()

import torchvision  # noqa: E402, F401 - imported before Ultralytics looks whether it is
from ultralytics import RTDETR, YOLO  # noqa: E402
from ultralytics.utils import nms  # noqa: E402
from ultralytics.utils.metrics import batch_probiou  # noqa: E402
from ultralytics.utils.nms import TorchNMS, non_max_suppression  # noqa: E402

SUPPRESS = non_max_suppression
SEED = 7
SIZE = 320
SIZES = {"classify": 224}
LEAST_SCORE = 0.25
IOU_THRESHOLD = 0.7
MAX_RESULTS = 300
WANTED = 60
"""Anchors of a picture, before suppression, that shall score above .3, where the job says nothing else."""
HIGHEST = 4.0
"""Logits of the highest score above that of .3: scores that are rounded to 1 would tie."""
LEAST_DISTANCE = 0.5
"""Grid cells from an anchor to each side of its box, where the head gives distances themselves and not their shares."""
PROCESSES = 2
MOST_S = 600
"""Of one export."""


def main(pictures, out, jobs):
    images = {path.stem: cv2.imread(str(path)) for path in sorted(Path(pictures).glob("*.png"))}
    os.chdir(out)
    running = {}
    for name, job in json.loads(jobs).items():
        if len(running) == PROCESSES:
            end_one(running)
        running[start(images, name, *job)] = name
    while running:
        end_one(running)


def start(images, name, yaml, options, wanted=WANTED):
    """Export in a process of its own: it has the imported libraries already. Returns its id."""
    Path(f"{name}.error").unlink(missing_ok=True)  # of an earlier run
    process = os.fork()
    if process:
        return process
    signal.alarm(MOST_S)
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory(dir=".") as folder:
            export(images, Path(folder), name, yaml, options, wanted)
    except BaseException:  # noqa: BLE001 - the test of this export fails with it, and the others run
        Path(f"{name}.error").write_text(traceback.format_exc())
    os._exit(0)


def end_one(running):
    process, status = os.wait()
    name = running.pop(process)
    if status:
        Path(f"{name}.error").write_text(f"the export ended with {status}: {signal.SIGALRM} is beyond {MOST_S} s")


def export(images, folder, name, yaml, options, wanted):
    torch.manual_seed(SEED)
    kind = RTDETR if "rtdetr" in yaml else YOLO
    model = kind(yaml)
    size = options.pop("imgsz", SIZES.get(model.task, SIZE))
    with torch.no_grad():
        prepare(model.model, images.values(), np.max(size), model.task, wanted)
    model.model.pt_path = str(folder / "model.pt")  # beside which the file is written
    shutil.move(model.export(format="onnx", imgsz=size, simplify=False, **options), f"{name}.onnx")
    reader = RTDETR(f"{name}.onnx") if kind is RTDETR else YOLO(f"{name}.onnx", task=model.task)
    predict(reader, images, name, model.task, size)


def predict(reader, images, name, task, size):
    given = {"imgsz": size, "conf": LEAST_SCORE, "iou": IOU_THRESHOLD, "max_det": MAX_RESULTS}
    fields = {}
    for stem, image in images.items():
        with mock.patch.object(TorchNMS, "fast_nms", greedy), mock.patch.object(nms, "non_max_suppression", exact):
            (result,) = reader.predict(image, **given, rect=False, retina_masks=True, verbose=False)
        fields |= {f"{field} {stem}": values for field, values in predicted(result, task).items()}
    np.savez_compressed(f"{name}.part.npz", task=task, **fields)
    Path(f"{name}.part.npz").rename(f"{name}.npz")  # never a part, whenever the limit ends this process


def exact(prediction, *arguments, **options):
    """Ultralytics' suppression in double precision.

    It tells classes apart by moving boxes by 7680 pixels a class: FP32 then rounds them to up to a sixteenth of a
    pixel, which decides where an IoU is close to the threshold.
    """
    prediction = prediction[0] if isinstance(prediction, (list, tuple)) else prediction
    return [found.float() for found in SUPPRESS(prediction.double(), *arguments, **options)]


def greedy(boxes, scores, iou_threshold, **_):
    """Suppress rotated boxes by kept ones alone, as all other boxes are; Ultralytics lets suppressed ones do it too.

    In a graph with `nms=True` that stays as it is.
    """
    left = torch.argsort(scores, descending=True, stable=True)
    kept = []
    while len(left):
        kept.append(left[0])
        left = left[1:][batch_probiou(boxes[left[:1]], boxes[left[1:]])[0] < iou_threshold]
    return torch.stack(kept) if kept else torch.zeros(0, dtype=torch.int64)


def predicted(result, task):
    """Return arrays: scores, class_ids, and of the task boxes (pixels of the picture), masks, keypoints, rotated."""
    if task == "classify":
        return {"probabilities": result.probs.data.numpy()}
    found = result.obb if task == "obb" else result.boxes
    arrays = {"scores": found.conf, "class_ids": found.cls, "boxes": found.xyxy}
    if task == "obb":
        arrays["rotated"] = found.xywhr
    if task == "pose":
        arrays["keypoints"] = result.keypoints.data
    if task == "segment" and result.masks is not None:
        arrays["masks"] = result.masks.data > 0
    return {field: values.numpy() for field, values in arrays.items()}


def prepare(network, images, size, task, wanted):
    """Make a network whose outputs depend on the picture, with `wanted` scores above .3."""
    squares = [square(image, size)[..., ::-1].transpose(2, 0, 1) for image in images]
    batch = torch.from_numpy(np.stack(squares).astype(np.float32) / 255)
    if task == "segment":
        smooth(network.model[-1].proto)
    set_statistics(network, batch)
    if task == "classify":
        spread(network, batch, [network.model[-1].linear], 3.0)
        return
    head = network.model[-1]
    if hasattr(head, "dec_score_head"):
        spread_scores(network, batch, [head.dec_score_head[-1]], wanted)
        return
    for prefix in ("", "one2one_"):
        towers = getattr(head, f"{prefix}cv3", None)
        if towers is not None:
            sides = [tower[-1] for tower in getattr(head, f"{prefix}cv2")]
            spread(network, batch, sides, 1.0, least=LEAST_DISTANCE if head.reg_max == 1 else None)
            spread_scores(network, batch, [tower[-1] for tower in towers], wanted)


def set_statistics(network, batch):
    """Let every batch normalisation take its mean and variance from the batch, layer by layer in one pass."""
    layers = [layer for layer in network.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    network.eval()
    for layer in layers:
        layer.train()
        layer.momentum = 1.0
    network(batch)
    network.eval()


def smooth(prototypes):
    """Let the filters of mask prototypes be averages, so that they vary over several pixels."""
    with torch.no_grad():
        for layer in (prototypes.cv1.conv, prototypes.upsample, prototypes.cv2.conv):
            layer.weight[:] = layer.weight.mean((2, 3), keepdim=True)


def spread(network, batch, layers, wanted, *, least=None):
    """Scale layers until their outputs vary by `wanted`, and are above `least` if it is given."""
    for layer, values in varying(network, batch, layers).items():
        gain = wanted / values.std()
        layer.weight *= gain
        if least is not None:
            layer.bias[:] = least - gain * values.min()


def spread_scores(network, batch, layers, wanted):
    """Scale layers until `wanted` scores of every picture are above .3, and the highest is HIGHEST logits above it."""
    values = varying(network, batch, layers)
    best = torch.cat([each.amax(-1) for each in values.values()], dim=1)
    least = best.topk(wanted).values[:, -1].min()
    gain = HIGHEST / (best.max() - least)
    for layer in values:
        layer.weight *= gain
        layer.bias[:] = torch.logit(torch.tensor(0.3)) - gain * least


def varying(network, batch, layers):
    """Layer to its outputs without its bias, shape (picture, place, channel), of layers that run."""
    seen = {layer: [] for layer in layers}
    hooks = [layer.register_forward_hook(lambda layer, _, out: seen[layer].append(out)) for layer in layers]
    network(batch)
    for hook in hooks:
        hook.remove()
    return {layer: _rows(outputs) - layer.bias for layer, outputs in seen.items() if outputs}


def _rows(outputs):
    return torch.cat([out.flatten(2).transpose(1, 2) if out.ndim == 4 else out for out in outputs])


def square(image, size):
    """Fit a picture into a square, with grey below or beside it."""
    factor = size / max(image.shape[:2])
    resized = cv2.resize(image, None, fx=factor, fy=factor)
    whole = np.full((size, size, 3), 114, np.uint8)
    whole[: resized.shape[0], : resized.shape[1]] = resized[:size, :size]
    return whole


if __name__ == "__main__":
    main(*sys.argv[1:])
