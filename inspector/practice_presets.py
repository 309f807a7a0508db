"""Ready-made runs that each show one practice of training (standard library only)."""

from __future__ import annotations

from inspector.commands import Controls
from inspector.config import RunConfig
from inspector.preset import Preset

GROUP = "Practices of training"

PRACTICES: tuple[Preset, ...] = (
    Preset(
        "first-weights",
        "First weights",
        "Twelve ReLU layers learn the digits, since their first weights are Kaiming's.",
        "Activations keep their spread from the first module to the last, and the loss falls. "
        "Start again with PyTorch's default: each layer halves them, and nothing is learnt.",
        RunConfig(
            model="mlp",
            model_args={"depth": 12},
            data="digits",
            lr=0.02,
            epochs=60,
            init={"Linear": "kaiming_normal"},
            controls=Controls(capture_every=1, max_steps_per_s=40.0),
        ),
        GROUP,
    ),
    Preset(
        "equal-weights",
        "All weights equal",
        "A perceptron begins with the same number in every weight.",
        "All units of a layer get the same gradient and stay equal for ever: accuracy stops far "
        "below that of random weights. Compare the weight histograms with another run's.",
        RunConfig(
            model="mlp",
            data="digits",
            lr=0.05,
            epochs=40,
            init={"Linear": {"name": "constant", "val": 0.01}},
            controls=Controls(capture_every=1, max_steps_per_s=40.0),
        ),
        GROUP,
    ),
    Preset(
        "label-smoothing",
        "Label smoothing",
        "Cross entropy asks for 91% certainty instead of 100%.",
        "The loss comes to rest near 0.5, its lowest possible value, and the gradient norm with "
        "it; accuracy is as high as without.",
        RunConfig(
            model="mlp",
            data="digits",
            optimizer="adam",
            lr=2e-3,
            epochs=60,
            loss_args={"label_smoothing": 0.1},
            controls=Controls(capture_every=1, max_steps_per_s=40.0),
        ),
        GROUP,
    ),
    Preset(
        "one-cycle",
        "One cycle",
        "A LeNet is trained in few epochs: the rate rises to its peak and falls to nothing.",
        "After twelve epochs it reads 97 of 100 digits, although at its peak the rate is one at "
        "which the net learns badly: held constant, it ends near 70.",
        RunConfig(
            model="lenet",
            data="digits",
            lr=0.2,
            momentum=0.9,
            epochs=12,
            controls=Controls(
                schedule={"name": "one_cycle"}, capture_every=1, max_steps_per_s=20.0
            ),
        ),
        GROUP,
    ),
    Preset(
        "warm-up",
        "Warm-up, then cosine",
        "A transformer begins with a hundredth of its rate.",
        "The rate rises over the first tenth of the steps and falls along a cosine. Set it by hand "
        "meanwhile: the schedule goes on in proportion.",
        RunConfig(
            model="transformer",
            data="digit_rows",
            optimizer="adamw",
            lr=5e-3,
            epochs=20,
            controls=Controls(
                schedule={"name": "warmup_cosine"}, capture_every=1, max_steps_per_s=30.0
            ),
        ),
        GROUP,
    ),
    Preset(
        "plateau",
        "Lower it on a plateau",
        "The rate is halved whenever the validation loss has not fallen for over three epochs.",
        "Each fall of the rate is an event, and the validation loss comes to rest. With a constant "
        "rate it turns and rises.",
        RunConfig(
            model="mlp",
            data="diabetes",
            lr=0.05,
            momentum=0.9,
            batch_size=32,
            epochs=80,
            controls=Controls(
                schedule={
                    "name": "reduce_on_plateau",
                    "patience": 3,
                    "factor": 0.5,
                    "min_lr": 1e-4,
                },
                capture_every=1,
                max_steps_per_s=40.0,
            ),
        ),
        GROUP,
    ),
    Preset(
        "accumulation",
        "Small batches, large steps",
        "Eight batches of eight samples make one step.",
        "Backward passes since zero_grad count to eight. Set accumulate to 1: the loss becomes "
        "restless, and so does the gradient norm.",
        RunConfig(
            model="mlp",
            data="digits",
            lr=0.1,
            batch_size=8,
            epochs=40,
            controls=Controls(accumulate=8, capture_every=1, max_steps_per_s=30.0),
        ),
        GROUP,
    ),
    Preset(
        "mixed-precision",
        "Mixed precision",
        "A plain recurrent network computes in float16; its loss is scaled up for the way back.",
        "Gradients are shown without the scale, which begins at 65,536. Where one explodes beyond "
        "float16 the step is skipped and the scale halved: compare the events with its chart.",
        RunConfig(
            model="rnn",
            data="long_memory",
            data_args={"length": 30},
            lr=0.2,
            epochs=20,
            precision="fp16",
            controls=Controls(capture_every=1, max_steps_per_s=30.0),
        ),
        GROUP,
    ),
    Preset(
        "frozen",
        "Train the head only",
        "A LeNet's convolutions stay as they were drawn; only its linear maps learn.",
        "Frozen parameters have no gradient and no update, and still it reads nine digits of ten. "
        "Release them while it runs: half of the remaining errors go.",
        RunConfig(
            model="lenet",
            data="digits",
            optimizer="adam",
            lr=2e-3,
            epochs=60,
            controls=Controls(frozen=("conv1", "conv2"), capture_every=1, max_steps_per_s=40.0),
        ),
        GROUP,
    ),
    Preset(
        "two-rates",
        "A rate for each group",
        "The convolutions of a LeNet learn with a tenth of the rate of its head.",
        "Two learning rates in the chart, in proportion. Setting the rate moves both.",
        RunConfig(
            model="lenet",
            data="digits",
            lr=0.1,
            momentum=0.9,
            epochs=30,
            param_groups=[{"modules": ["conv1", "conv2"], "lr": 0.01}],
            controls=Controls(capture_every=1, max_steps_per_s=40.0),
        ),
        GROUP,
    ),
    Preset(
        "dropout",
        "Dropout in two modes",
        "Seven of ten hidden units are silenced at random while a perceptron trains.",
        "The validation loss is the lower one: there, all units work. Hold Dropout in eval mode "
        "while it runs, and the training loss falls below it at once.",
        RunConfig(
            model="mlp",
            model_args={"dropout": 0.7},
            data="digits",
            optimizer="adam",
            lr=2e-3,
            epochs=50,
            controls=Controls(capture_every=1, max_steps_per_s=40.0),
        ),
        GROUP,
    ),
    Preset(
        "batch-norm-eval",
        "Batch norm in eval mode",
        "A residual net trains with the running statistics it began with: mean 0, variance 1.",
        "Nothing is normalised, and it hardly learns. Let go of BatchNorm2d while it runs: the "
        "loss falls within a few steps.",
        RunConfig(
            model="resnet",
            data="digits",
            lr=0.01,
            momentum=0.9,
            epochs=10,
            controls=Controls(eval_modules=("BatchNorm2d",), capture_every=1),
        ),
        GROUP,
    ),
    Preset(
        "early-stopping",
        "Early stopping",
        "350 patients are soon learnt by heart; training ends before.",
        "The run ends by itself, and says which epoch had the lowest validation loss.",
        RunConfig(
            model="mlp",
            data="diabetes",
            optimizer="adam",
            lr=2e-3,
            batch_size=32,
            epochs=200,
            early_stopping=10,
            controls=Controls(capture_every=1, max_steps_per_s=40.0),
        ),
        GROUP,
    ),
    Preset(
        "second-order",
        "A step that looks around",
        "LBFGS evaluates the loss up to 25 times in a step, on all patients at once.",
        "The training loss is gone within twenty steps, and the validation loss rises: all 350 are "
        "learnt by heart. In batches of 32 it ends in NaN: their difference looks like slope.",
        RunConfig(
            model="mlp",
            data="diabetes",
            optimizer="lbfgs",
            optimizer_args={"line_search_fn": "strong_wolfe"},
            lr=1.0,
            batch_size=512,
            steps=20,
            controls=Controls(capture_every=1, max_steps_per_s=2.0),
        ),
        GROUP,
    ),
)
