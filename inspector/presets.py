"""Ready-made runs, each with one thing worth seeing (standard library only)."""

from __future__ import annotations

from inspector.commands import Controls
from inspector.config import RunConfig
from inspector.practice_presets import PRACTICES
from inspector.preset import Preset

__all__ = ["DEFAULT", "PRESETS", "Preset", "find"]


PRESETS: tuple[Preset, ...] = (
    Preset(
        "digits-mlp",
        "Handwritten digits",
        "A small multilayer perceptron reads 8×8 digits.",
        "Both losses fall and accuracy passes 95%. Raise the learning rate tenfold and watch "
        "the gradient norm; then turn zero_grad off and count the backward passes piling up.",
        RunConfig(
            model="mlp",
            data="digits",
            lr=0.05,
            epochs=200,
            controls=Controls(capture_every=1, max_steps_per_s=40.0),
        ),
    ),
    Preset(
        "convolution",
        "Convolutions",
        "A LeNet reads the same digits through two convolutions.",
        "Half the parameters of the perceptron, and a higher accuracy. In the heat map the "
        "gradient grows from the first convolution to the last linear map.",
        RunConfig(
            model="lenet",
            data="digits",
            optimizer="adam",
            lr=2e-3,
            epochs=60,
            controls=Controls(capture_every=1, max_steps_per_s=40.0),
        ),
    ),
    Preset(
        "vanishing",
        "Deep sigmoid network",
        "Twelve sigmoid layers in a row try to learn the digits.",
        "In the gradient heat map every layer further from the loss is darker, by about a "
        "factor of ten: the first layers receive nothing, and the loss stays where it began.",
        RunConfig(
            model="deep_sigmoid",
            data="digits",
            lr=0.1,
            epochs=60,
            controls=Controls(capture_every=1, max_steps_per_s=40.0),
        ),
    ),
    Preset(
        "exploding",
        "Exploding gradient",
        "A plain recurrent network has to remember a symbol over 30 steps.",
        "Just as the loss begins to fall the gradient norm jumps a hundredfold, and what was "
        "learnt is gone. Start again with clipping by norm at 1: the same net learns it all.",
        RunConfig(
            model="rnn",
            data="long_memory",
            data_args={"length": 30},
            lr=0.2,
            epochs=40,
            controls=Controls(capture_every=1, max_steps_per_s=30.0),
        ),
    ),
    Preset(
        "memory",
        "Memory that lasts",
        "An LSTM learns to remember the first of 20 symbols.",
        "For a while nothing happens; then the gates open and the loss drops. Compare the "
        "gradient norms with those of the plain RNN.",
        RunConfig(
            model="lstm",
            data="long_memory",
            data_args={"length": 20},
            optimizer="adam",
            lr=0.01,
            epochs=40,
            controls=Controls(capture_every=1, max_steps_per_s=20.0),
        ),
    ),
    Preset(
        "residual",
        "Residual net",
        "Three residual blocks with batch normalisation read the digits.",
        "The gradient reaches the first convolution as strongly as the last: the shortcuts "
        "carry it. Open the autograd graph to see the additions.",
        RunConfig(
            model="resnet",
            data="digits",
            lr=0.05,
            momentum=0.9,
            epochs=15,
            controls=Controls(capture_every=1),
        ),
    ),
    Preset(
        "attention",
        "Attention by hand",
        "A transformer reads each digit as eight rows.",
        "Queries and keys have smaller gradients than values. The autograd graph shows what "
        "einsum really does: permute, reshape, bmm.",
        RunConfig(
            model="transformer",
            data="digit_rows",
            optimizer="adamw",
            lr=2e-3,
            epochs=40,
            controls=Controls(capture_every=1, max_steps_per_s=40.0),
        ),
    ),
    Preset(
        "autoencoder",
        "Autoencoder",
        "Digits go through a code of eight numbers and are painted again.",
        "There is no accuracy, only the distance between picture and copy. The narrow code "
        "sets how far it falls.",
        RunConfig(
            model="autoencoder",
            data="digits",
            optimizer="adam",
            lr=2e-3,
            epochs=100,
            controls=Controls(capture_every=1, max_steps_per_s=40.0),
        ),
    ),
    Preset(
        "nan",
        "A NaN on the way",
        "A network takes a logarithm whose argument nobody guards.",
        "All is well at first. Then one score turns negative and its logarithm is NaN: the update "
        "is held back, the step is run again, and module, line and sample are named.",
        RunConfig(
            model="log_trap",
            data="digits",
            lr=0.02,
            loss="nll",
            epochs=60,
            controls=Controls(on_nonfinite="pause", capture_every=1, max_steps_per_s=20.0),
        ),
    ),
    Preset(
        "control_flow",
        "A graph that changes",
        "A network applies its block as often as the data asks for.",
        "Capture the autograd graph at different steps: its depth differs. One block, used "
        "several times, gathers the gradients of all its uses.",
        RunConfig(
            model="adaptive_depth",
            data="spirals",
            optimizer="adam",
            lr=5e-3,
            epochs=100,
            controls=Controls(capture_every=1, max_steps_per_s=40.0),
        ),
    ),
    Preset(
        "binary",
        "A gradient by hand",
        "Activations are only +1 or -1; a custom autograd function makes up the derivative.",
        "It learns although its true derivative is zero. Look for StraightThroughSign in the "
        "autograd graph, and at the share of gradients it lets through.",
        RunConfig(
            model="binary",
            data="digits",
            optimizer="adam",
            lr=2e-3,
            epochs=60,
            controls=Controls(capture_every=1, max_steps_per_s=40.0),
        ),
    ),
    Preset(
        "regression",
        "Regression",
        "A perceptron predicts the progress of diabetes from ten measurements.",
        "The training loss goes on falling while the validation loss turns and rises: 350 "
        "patients are learnt by heart. Raise the weight decay while it runs.",
        RunConfig(
            model="mlp",
            data="diabetes",
            optimizer="adam",
            lr=2e-3,
            batch_size=32,
            epochs=150,
            controls=Controls(capture_every=1, max_steps_per_s=40.0),
        ),
    ),
    Preset(
        "resnet18",
        "ResNet-18",
        "torchvision's ResNet-18 learns random labels of random images by heart.",
        "62 parameters, 20 convolutions: a heat map with something to see. Fold the autograd "
        "graph by module. On a CPU a step takes about a second.",
        RunConfig(
            model="torchvision:resnet18",
            data="fake_images",
            data_args={"samples": 256},
            lr=0.01,
            momentum=0.9,
            batch_size=32,
            epochs=15,
            controls=Controls(capture_every=1),
        ),
    ),
    *PRACTICES,
)

DEFAULT = PRESETS[0]
"""What the first screen has loaded."""


def find(key: str) -> Preset | None:
    """The preset of that key."""
    return next((preset for preset in PRESETS if preset.key == key), None)
