"""Exports seeded classifiers of torchvision with torch, and lets them classify pictures. Runs in .venv-exporters.

    python export_torchvision.py PICTURES OUT NAMES

NAMES is a JSON list. Writes OUT/NAME.onnx, OUT/NAME.npz with the probabilities of each picture by the model in torch
and its weights' own preprocessing, and OUT/NAME.json with the numbers of that preprocessing. Nothing is downloaded:
batch normalisation takes its statistics from the pictures, and the last layer is scaled until classes differ.
"""

import json
import sys
from pathlib import Path

import numpy as np
import operators
import torch
from PIL import Image

LIBRARY = operators.supply()

import torchvision  # noqa: E402

SEED = 7
LOGITS = 3.0
"""Standard deviation."""


def main(pictures, out, names):
    images = {path.stem: Image.open(path).convert("RGB") for path in sorted(Path(pictures).glob("*.png"))}
    for name in json.loads(names):
        export(images, Path(out), name)


@torch.no_grad()
def export(images, out, name):
    torch.manual_seed(SEED)
    network = torchvision.models.get_model(name)
    preset = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    batch = torch.stack([preset(image) for image in images.values()])
    layers = [layer for layer in network.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    network.eval()
    for layer in layers:
        layer.train()
        layer.momentum = 1.0
    network(batch)
    network.eval()
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


if __name__ == "__main__":
    main(*sys.argv[1:])
