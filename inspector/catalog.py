"""What can be trained on what, in words: the sample models and data sources (stdlib only).

A page lists these without importing torch; ``training/`` builds what they name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Literal

from inspector.errors import ConfigError

Layout = Literal["image", "strip", "table", "sequence", "tokens", "other"]
Kind = Literal[
    "classification", "multi_label", "regression", "reconstruction", "sequence", "per_pixel",
    "distribution", "transcription", "own",
]  # fmt: skip
OWN_CODE = ("file", "import", "code")
OWN_FILES = ("csv", "parquet", "npz", "text", "folder")


@dataclass(frozen=True, slots=True)
class SampleModel:
    """A file of ``sample_models/``.

    Attributes:
        name: the module's name, and what ``RunConfig.model`` calls it.
        cls: the class in it.
        title, about: a label and one sentence.
        takes: layouts of samples that it understands.
        reconstructs: True if the input itself is what it is trained to give back.
    """

    name: str
    cls: str
    title: str
    about: str
    takes: tuple[Layout, ...] = ("image", "table")
    reconstructs: bool = False


@dataclass(frozen=True, slots=True)
class DataSource:
    """A source of samples.

    Attributes:
        name: what ``RunConfig.data`` calls it.
        title, about: a label and one sentence.
        layout: image [channels, height, width], strip (an image whose width varies), table
            [features], sequence [steps, features], tokens [steps] of whole numbers, other.
        kind: what is to be predicted.
        shape: shape of one sample with the default arguments.
        outputs: number of classes, or of numbers to predict, with the default arguments.
        download_bytes: size of what is fetched at the first use; 0 if nothing is.
    """

    name: str
    title: str
    about: str
    layout: Layout
    kind: Kind
    shape: tuple[int, ...]
    outputs: int
    download_bytes: int = 0


MODELS: dict[str, SampleModel] = {
    model.name: model
    for model in (
        SampleModel("mlp", "MLP", "Multilayer perceptron", "Linear maps with ReLU between them."),
        SampleModel(
            "lenet", "LeNet", "LeNet", "Two convolutions with pooling, then two linear maps.",
            ("image",),
        ),
        SampleModel("resnet", "ResNet", "Residual net", "Three residual blocks.", ("image",)),
        SampleModel(
            "deep_sigmoid", "DeepSigmoid", "Deep sigmoid net",
            "Twelve sigmoid layers: the gradient vanishes.",
        ),
        SampleModel(
            "rnn", "RNN", "Plain RNN", "A recurrent loop written out: the gradient explodes.",
            ("sequence",),
        ),
        SampleModel(
            "lstm", "LSTM", "LSTM", "Long short-term memory, read at its last state.",
            ("sequence",),
        ),
        SampleModel(
            "transformer", "Transformer", "Transformer",
            "Two encoder blocks with multi-head attention written by hand.", ("sequence",),
        ),
        SampleModel(
            "char_lstm", "CharLSTM", "Character LSTM",
            "Reads text and gives scores for each next character.",
            ("tokens",),
        ),
        SampleModel(
            "crnn", "CRNN", "Convolutions, then an LSTM",
            "Reads a strip from left to right and gives log-probabilities at each place.",
            ("strip",),
        ),
        SampleModel(
            "autoencoder", "Autoencoder", "Autoencoder",
            "Squeezes a sample through a narrow code and paints it again.",
            reconstructs=True,
        ),
        SampleModel(
            "log_trap", "LogTrap", "Log trap",
            "An MLP with a logarithm whose argument turns negative: NaN.",
        ),
        SampleModel(
            "adaptive_depth", "AdaptiveDepth", "Adaptive depth",
            "Decides from the data how often to apply its block: the graph differs per batch.",
        ),
        SampleModel(
            "binary", "BinaryMLP", "Binary net",
            "Binary activations with a hand-written backward (a custom autograd.Function).",
        ),
    )
}  # fmt: skip

TORCHVISION = (
    "resnet18", "resnet34", "resnet50", "mobilenet_v3_small", "efficientnet_b0", "densenet121",
    "vgg11_bn", "squeezenet1_1", "shufflenet_v2_x0_5", "convnext_tiny", "vit_b_16", "alexnet",
    "convnext_base", "convnext_large", "convnext_small", "densenet161", "densenet169",
    "densenet201", "efficientnet_b1", "efficientnet_b2", "efficientnet_b3", "efficientnet_b4",
    "efficientnet_b5", "efficientnet_b6", "efficientnet_b7", "efficientnet_v2_l",
    "efficientnet_v2_m", "efficientnet_v2_s", "googlenet", "inception_v3", "maxvit_t",
    "mnasnet0_5", "mnasnet0_75", "mnasnet1_0", "mnasnet1_3", "mobilenet_v2",
    "mobilenet_v3_large", "regnet_x_16gf", "regnet_x_1_6gf", "regnet_x_32gf", "regnet_x_3_2gf",
    "regnet_x_400mf", "regnet_x_800mf", "regnet_x_8gf", "regnet_y_128gf", "regnet_y_16gf",
    "regnet_y_1_6gf", "regnet_y_32gf", "regnet_y_3_2gf", "regnet_y_400mf", "regnet_y_800mf",
    "regnet_y_8gf", "resnet101", "resnet152", "resnext101_32x8d", "resnext101_64x4d",
    "resnext50_32x4d", "shufflenet_v2_x1_0", "shufflenet_v2_x1_5", "shufflenet_v2_x2_0",
    "squeezenet1_0", "swin_b", "swin_s", "swin_t", "swin_v2_b", "swin_v2_s", "swin_v2_t",
    "vgg11", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn", "vit_b_32",
    "vit_h_14", "vit_l_16", "vit_l_32", "wide_resnet101_2", "wide_resnet50_2",
)  # fmt: skip
"""Torchvision's classifiers, those first that a small machine trains soonest."""

TORCHVISION_DATA = (
    "CIFAR100", "EMNIST", "KMNIST", "SVHN", "STL10", "USPS", "GTSRB", "EuroSAT", "Flowers102",
)  # fmt: skip
"""Some of torchvision's data sets; ``torchvision:NAME`` takes any whose targets are classes."""

DATA: dict[str, DataSource] = {
    source.name: source
    for source in (
        DataSource(
            "digits", "Handwritten digits",
            "1,797 images of 8×8 pixels that come with scikit-learn.",
            "image", "classification", (1, 8, 8), 10,
        ),
        DataSource(
            "digit_rows", "Digits, row by row",
            "The same digits as sequences of eight rows.",
            "sequence", "classification", (8, 8), 10,
        ),
        DataSource(
            "digit_strips", "Strips of digits",
            "Two to five of the digits side by side, to be read as a sequence.",
            "strip", "transcription", (1, 8, 61), 11,
        ),
        DataSource(
            "soft_digits", "Digits with a teacher's doubts",
            "The same digits; the targets are the probabilities that a teacher gives each class.",
            "image", "distribution", (1, 8, 8), 10,
        ),
        DataSource(
            "two_moons", "Two moons", "Points in the plane on two interleaved half circles.",
            "table", "classification", (2,), 2,
        ),
        DataSource(
            "spirals", "Spirals", "Points in the plane on three interleaved spirals.",
            "table", "classification", (2,), 3,
        ),
        DataSource(
            "long_memory", "Long memory",
            "Sequences of symbols; the class is the first one, many steps ago.",
            "sequence", "classification", (60, 8), 8,
        ),
        DataSource(
            "diabetes", "Diabetes", "442 patients, ten measurements, disease progress a year on.",
            "table", "regression", (10,), 1,
        ),
        DataSource(
            "mnist", "MNIST", "60,000 handwritten digits of 28×28 pixels.",
            "image", "classification", (1, 28, 28), 10, 9_941_303,
        ),
        DataSource(
            "fashion_mnist", "Fashion-MNIST", "60,000 pieces of clothing of 28×28 pixels.",
            "image", "classification", (1, 28, 28), 10, 26_451_029,
        ),
        DataSource(
            "cifar10", "CIFAR-10", "50,000 colour photographs of 32×32 pixels in ten classes.",
            "image", "classification", (3, 32, 32), 10, 170_498_071,
        ),
        DataSource(
            "fake_images", "Random images",
            "Noise with random labels: nothing to learn but by heart.",
            "image", "classification", (3, 32, 32), 10,
        ),
    )
}  # fmt: skip


METRICS: dict[Kind, tuple[str, ...]] = {
    "classification": ("accuracy", "f1", "precision", "recall", "auroc", "confusion_matrix"),
    "multi_label": ("accuracy", "exact_match", "f1", "precision", "recall", "auroc"),
    "regression": ("mae", "rmse", "r2"),
    "reconstruction": ("mae", "rmse"),
    "sequence": ("accuracy", "perplexity"),
    "per_pixel": (
        "accuracy", "mean_iou", "f1", "precision", "recall", "confusion_matrix",
    ),
    "distribution": ("accuracy", "kl_divergence"),
    "transcription": ("sequence_accuracy", "char_error_rate"),
    "own": (),
}  # fmt: skip
"""Of held-out samples, by task; classification takes ``top2_accuracy`` and so on as well."""

_USUAL_METRICS: dict[Kind, tuple[str, ...]] = {
    "multi_label": ("f1",),
    "regression": ("mae", "r2"),
    "sequence": ("perplexity",),
    "per_pixel": ("mean_iou",),
    "transcription": ("sequence_accuracy", "char_error_rate"),
}


def metrics(wanted: Sequence[Any], kind: Kind) -> list[str]:
    """The accuracy, where there is one, then what is asked for, or else what is usual.

    Raises:
        ConfigError: the task has no such metric.
    """
    known = METRICS[kind]
    for name in wanted:
        if isinstance(name, str) and (name in known or places_of(name, kind)):
            continue
        if not known:
            raise ConfigError(
                f"metrics {list(wanted)} are made of 'predictions' and 'targets', but your "
                "training_step (or validation_step) does not return them beside 'loss'; return "
                "both, or leave metrics empty."
            )
        more = ", top2_accuracy, top3_accuracy, …" * (kind == "classification")
        raise ConfigError(
            f"There is no metric {name!r} for the task {kind}; choose from "
            f"{', '.join(known)}{more}."
        )
    first = ["accuracy"] if "accuracy" in known else []
    return list(dict.fromkeys([*first, *(wanted or _USUAL_METRICS.get(kind, ()))]))


def places_of(name: str, kind: Kind) -> int:
    """k of the metric ``topk_accuracy``; 0 if it is another one."""
    found = re.fullmatch(r"top([1-9]\d{0,3})_accuracy", name)
    return int(found[1]) if found and kind == "classification" else 0


def fits(model: str, data: str) -> str:
    """Why a model cannot be trained on a data source, as one sentence; empty if it can.

    Unknown names are none of its business (the builders name the choices), nor is data of the
    user's own, which :func:`suits` judges when it is loaded.
    """
    source = DATA.get(data)
    return suits(model, data, source.layout, source.kind, source.shape) if source else ""


def suits(model: str, data: str, layout: Layout, kind: Kind, shape: tuple[int, ...]) -> str:
    """Why a model cannot be trained on samples of that layout; empty if it can."""
    if model.startswith("torchvision:"):
        if layout == "image" and kind in ("classification", "multi_label", "distribution"):
            return ""
        return (
            f"{model} classifies images, but {data} is a {layout} for {kind}; "
            f"choose {_names('image', 'classification')}."
        )
    entry = MODELS.get(model)
    if entry is None or layout in entry.takes:
        return ""
    wanted = " or ".join(entry.takes)
    fitting = [name for name, one in DATA.items() if one.layout in entry.takes]
    choice = ", ".join(fitting) or "text:PATH"
    return (
        f"{model} takes samples of layout {wanted}, but {data} has layout {layout} "
        f"{shape}; choose {choice}, or another model."
    )


def is_own(name: str) -> bool:
    """Whether a name of ``RunConfig`` refers to something of the user's own."""
    return name.partition(":")[0] in (*OWN_CODE, *OWN_FILES)


def layout_of(data: str) -> Layout | None:
    """The layout of a source's samples; None where only reading them tells."""
    if data in DATA:
        return DATA[data].layout
    known: dict[str, Layout] = {
        "csv": "table", "parquet": "table", "text": "tokens", "folder": "image",
        "torchvision": "image",
    }  # fmt: skip
    return known.get(data.partition(":")[0])


def title(name: str) -> str:
    """A label for a model or a data source: its title, or the end of what it refers to."""
    known = MODELS.get(name) or DATA.get(name)
    if known:
        return known.title
    kind, _, rest = name.partition(":")
    if kind in OWN_CODE:
        place, _, found = rest.rpartition(":")
        return found or PurePath(place).name
    return PurePath(rest).name or rest if kind in OWN_FILES else name.removeprefix("torchvision:")


def _names(layout: Layout, kind: Kind) -> str:
    return ", ".join(
        name for name, one in DATA.items() if one.layout == layout and one.kind == kind
    )
