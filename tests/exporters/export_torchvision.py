"""Exports seeded models of torchvision with torch, and lets them predict. Runs in .venv-exporters.

    python export_torchvision.py PICTURES OUT NAMES

NAMES is a JSON list. Writes OUT/NAME.onnx, OUT/NAME.npz with the probabilities of each picture by the model in torch
and its weights' own preprocessing, and OUT/NAME.json with the numbers of that preprocessing. Of a detector,
OUT/NAME.npz has the objects of each stretched picture by the exported file in ONNX Runtime, under "<output> <picture>".

Nothing is downloaded: batch normalisation takes its statistics from the pictures, and the layer of the classes is
scaled until classes differ.
"""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import operators
import torch
from PIL import Image

LIBRARY = operators.supply()

import torchvision  # noqa: E402

SEED = 7
LOGITS = 3.0
"""Standard deviation."""
DETECTORS = {
    "ssdlite320_mobilenet_v3_large": ("boxes", "scores", "labels"),
    "fasterrcnn_mobilenet_v3_large_320_fpn": ("boxes", "labels", "scores"),
}
"""Name to outputs, in their order."""
SIDE = 320


def main(pictures, out, names):
    images = {path.stem: Image.open(path).convert("RGB") for path in sorted(Path(pictures).glob("*.png"))}
    for name in json.loads(names):
        (export_detector if name in DETECTORS else export)(images, Path(out), name)


@torch.no_grad()
def export(images, out, name):
    torch.manual_seed(SEED)
    network = torchvision.models.get_model(name)
    preset = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    batch = torch.stack([preset(image) for image in images.values()])
    set_statistics(network, batch)
    last = [layer for layer in network.modules() if isinstance(layer, (torch.nn.Linear, torch.nn.Conv2d))][-1]
    last.weight *= LOGITS / (network(batch) - network(torch.zeros_like(batch[:1]))).std()
    torch.onnx.export(
        network, batch[:1], out / f"{name}.onnx", input_names=["input"], output_names=["logits"], dynamo=False
    )
    scores = [network(each[None]).softmax(1)[0].numpy() for each in batch]
    np.savez_compressed(out / f"{name}.npz", **dict(zip(images, scores, strict=True)))
    numbers = {"resize_to": preset.resize_size[0], "mean": list(preset.mean), "std": list(preset.std)}
    numbers["interpolation"] = preset.interpolation.value
    (out / f"{name}.json").write_text(json.dumps(numbers))


@torch.no_grad()
def export_detector(images, out, name):
    torch.manual_seed(SEED)
    network = torchvision.models.get_model(name, weights=None, weights_backbone=None)
    stretched = {stem: cv2.resize(np.asarray(image), (SIDE, SIDE)) for stem, image in images.items()}
    batch = torch.from_numpy(np.stack(list(stretched.values())).transpose(0, 3, 1, 2).astype(np.float32) / 255)
    set_statistics(network, batch)
    spread_classes(network, batch)
    file = out / f"{name}.onnx"
    torch.onnx.export(
        network, (batch[:1],), file, input_names=["images"], output_names=list(DETECTORS[name]), dynamo=False
    )
    session = onnxruntime.InferenceSession(file)
    fields = {}
    for stem, picture in zip(images, batch.numpy(), strict=True):
        found = session.run(DETECTORS[name], {"images": picture[None]})
        fields |= {f"{field} {stem}": values for field, values in zip(DETECTORS[name], found, strict=True)}
    np.savez_compressed(out / f"{name}.npz", **fields)


def spread_classes(network, batch):
    """Scale the layers of the classes until logits vary by LOGITS."""
    heads = getattr(network, "roi_heads", None)
    layers = (
        [heads.box_predictor.cls_score]
        if heads
        else [each[-1] for each in network.head.classification_head.module_list]
    )
    seen = {layer: [] for layer in layers}
    hooks = [layer.register_forward_hook(lambda layer, _, given: seen[layer].append(given)) for layer in layers]
    network(batch)
    for hook in hooks:
        hook.remove()
    for layer, outputs in seen.items():
        layer.weight *= LOGITS / torch.cat(outputs).std()


def set_statistics(network, batch):
    """Let every batch normalisation take its mean and variance from the batch, layer by layer in one pass."""
    layers = [layer for layer in network.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    network.eval()
    for layer in layers:
        layer.train()
        layer.momentum = 1.0
    network(batch)
    network.eval()


if __name__ == "__main__":
    main(*sys.argv[1:])
