"""Every classification, segmentation and detection model that torchvision can build.

Small ones run by default; ``uv run pytest -m slow tests/capture/test_breadth_torchvision.py``
takes all of them, which needs about 12 GB of memory and half an hour of two cores.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from breadth import program, prove
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models
from zoo import Case

CLASSIFICATION = models.list_models(module=models)
SEGMENTATION = models.list_models(module=models.segmentation)
DETECTION = models.list_models(module=models.detection)
SMALL = [
    "squeezenet1_1", "shufflenet_v2_x0_5", "mobilenet_v3_small", "resnet18", "googlenet",
    "lraspp_mobilenet_v3_large", "ssdlite320_mobilenet_v3_large",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
]  # fmt: skip

# Image sides that the smaller default does not suit, and arguments that fit a model to its side.
SIDES = {"inception_v3": 299, "maxvit_t": 224, "vit_h_14": 56}
CLASSES = 5


def _options(name: str) -> dict[str, Any]:
    side = SIDES.get(name, 64)
    if name.startswith("vit"):
        return {"image_size": side}
    if name == "maxvit_t":
        return {"input_size": (side, side)}
    if name in ("googlenet", "inception_v3"):  # a truncated normal by SciPy takes a minute
        return {"init_weights": False, "aux_logits": True}
    return {}


def _outputs(result: Any) -> list[Tensor]:
    if isinstance(result, Tensor):
        return [result]
    parts = result.values() if isinstance(result, dict) else result
    return [part for part in parts if part is not None]


def classification(name: str) -> Case:
    side = SIDES.get(name, 64)
    model = models.get_model(name, weights=None, num_classes=CLASSES, **_options(name))

    def loss(model: nn.Module) -> Tensor:
        outputs = _outputs(model(torch.randn(2, 3, side, side)))
        targets = torch.randint(CLASSES, (2,))
        return torch.stack([F.cross_entropy(output, targets) for output in outputs]).sum()

    return program(model, loss)


def segmentation(name: str) -> Case:
    options = {} if name.startswith("lraspp") else {"aux_loss": True}
    model = models.get_model(
        name, weights=None, weights_backbone=None, num_classes=CLASSES, **options
    )

    def loss(model: nn.Module) -> Tensor:
        outputs = _outputs(model(torch.randn(2, 3, 64, 64)))
        targets = torch.randint(CLASSES, (2, 64, 64))
        return torch.stack([F.cross_entropy(output, targets) for output in outputs]).sum()

    return program(model, loss)


def _target(name: str) -> dict[str, Tensor]:
    """Two objects; their corners are drawn anew for every image."""
    corner = torch.rand(2, 2) * 20
    boxes = torch.cat([corner, corner + 30 + torch.rand(2, 2) * 10], dim=1)
    target = {"boxes": boxes, "labels": torch.randint(1, CLASSES, (2,))}
    if name.startswith("maskrcnn"):
        target["masks"] = torch.randint(2, (2, 64, 64), dtype=torch.uint8)
    if name.startswith("keypointrcnn"):
        target["labels"] = torch.ones(2, dtype=torch.int64)
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2
        points = centre[:, None].expand(2, 17, 2)
        target["keypoints"] = torch.cat([points, torch.ones(2, 17, 1)], dim=2)
    return target


def detection(name: str) -> Case:
    options: dict[str, Any] = {"weights": None, "weights_backbone": None}
    if not name.startswith("ssd"):
        options |= {"min_size": 96, "max_size": 128}
    options["num_classes"] = 2 if name.startswith("keypoint") else CLASSES
    model = models.get_model(name, **options)

    def loss(model: nn.Module) -> Tensor:
        images = [torch.rand(3, 64, 64) for _ in range(2)]
        return torch.stack(list(model(images, [_target(name) for _ in images]).values())).sum()

    return program(model, loss)


def case(name: str) -> Case:
    build: Callable[[str], Case] = classification
    if name in SEGMENTATION:
        build = segmentation
    elif name in DETECTION:
        build = detection
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return build(name)


@pytest.mark.parametrize("name", SMALL)
def test_small_models_are_watched_exactly(name: str, tmp_path: Path) -> None:
    prove(lambda: case(name), tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", [*CLASSIFICATION, *SEGMENTATION, *DETECTION])
def test_every_model_is_watched_exactly(name: str, tmp_path: Path) -> None:
    prove(lambda: case(name), tmp_path)
