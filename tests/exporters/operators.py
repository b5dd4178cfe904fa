"""Gives torchvision's operators to a torch that torchvision's wheel was not built for. Runs in .venv-exporters.

The wheel of torchvision for Linux is built for torch with CUDA. Beside a torch for the CPU its compiled operators do
not load, and `import torchvision` fails because nothing declares them. Exports with `nms=True` need `nms`, which is
short enough to be here, and Faster R-CNN needs `roi_align`, which torchvision has in Python too.
"""

import importlib
import importlib.util
from pathlib import Path

import torch

DECLARED = ("nms", "qnms")
UNUSED = (
    *("_deform_conv2d_backward", "_ps_roi_align_backward", "_ps_roi_pool_backward", "_roi_align_backward"),
    *("_roi_pool_backward", "deform_conv2d", "ps_roi_align", "ps_roi_pool", "qroi_align", "roi_pool"),
)


def supply():
    """Import torchvision, with operators of our own where its own do not load. Returns what keeps them declared."""
    folder = Path(importlib.util.find_spec("torchvision").submodule_search_locations[0])
    try:
        torch.ops.load_library(str(next(folder.glob("_C*.so"))))
    except (OSError, StopIteration):
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in DECLARED:
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        for name in UNUSED:
            library.define(f"{name}(Tensor x) -> Tensor")
        library.impl("nms", _nms, "CPU")
        library.define(
            "roi_align(Tensor x, Tensor rois, float scale, int height, int width, int ratio, bool aligned) -> Tensor"
        )
        import torchvision.extension

        torchvision.extension._has_ops = lambda: True
        torchvision.extension._assert_has_ops = _nothing
        import torchvision.ops.boxes

        torchvision.ops.boxes._assert_has_ops = _nothing
        align = importlib.import_module("torchvision.ops.roi_align")
        align._has_ops, align._assert_has_ops = torchvision.extension._has_ops, _nothing
        library.impl("roi_align", align._roi_align.__wrapped__, "CPU")
        import torchvision.ops._register_onnx_ops

        return library
    return None


def _nothing() -> None:
    """No lambda: the exporter compiles it from its source."""


def _nms(boxes, scores, iou_threshold):
    """Keep the best box and drop those that overlap it by more than the threshold, over and over."""
    order = torch.argsort(scores, descending=True, stable=True)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept = []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        least = torch.maximum(boxes[best, :2], boxes[order, :2])
        most = torch.minimum(boxes[best, 2:], boxes[order, 2:])
        shared = (most - least).clamp(min=0).prod(1)
        order = order[shared / (areas[best] + areas[order] - shared) <= iou_threshold]
    return torch.stack(kept) if kept else torch.zeros(0, dtype=torch.int64)
