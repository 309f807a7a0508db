"""The forms of the practices: what a person fills in becomes the configuration that starts."""

from __future__ import annotations

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from inspector.commands import Controls
from inspector.config import OPTIMIZERS, RunConfig
from inspector.presets import PRESETS
from inspector.ui.presets import nearest
from inspector.views.practices import changes
from tests.app.in_process import draft, open_app, picture


@pytest.fixture
def app(tmp_path: Path) -> AppTest:
    made = open_app(tmp_path).run()
    made.session_state["practices/0"] = True
    return made.run()


def tab(app: AppTest, name: str) -> AppTest:
    app.session_state["practices/0/tab"] = name
    app.run()
    assert not app.exception, app.exception
    return app


def said(app: AppTest) -> str:
    captions = (str(caption.value) for caption in app.caption)
    return next((text.replace("\\", "") for text in captions if "Set besides" in text), "")


def test_plain_training_says_nothing_besides(app: AppTest) -> None:
    assert said(app) == ""


def test_closed_forms_draw_nothing(app: AppTest) -> None:
    app.session_state["practices/0"] = False
    app.run()
    assert not any("Schedule" in str(box.key) for box in app.selectbox)


def test_schedule_is_chosen_with_its_arguments_and_drawn_ahead(app: AppTest) -> None:
    tab(app, "Schedule").selectbox(key="practices/0/Schedule/name").select("warmup_cosine").run()
    app.number_input(key="practices/0/Schedule/warmup_cosine/warmup_steps").set_value(20).run()
    assert draft(app).controls.schedule == {"name": "warmup_cosine", "warmup_steps": 20}
    assert "warm-up, then cosine" in said(app)
    assert "<polyline" in picture(app)


def test_a_schedule_that_cannot_be_is_said_at_its_field_and_not_taken(app: AppTest) -> None:
    tab(app, "Schedule").selectbox(key="practices/0/Schedule/name").select("multi_step").run()
    app.text_input(key="practices/0/Schedule/multi_step/milestones").set_value("[9, 3]").run()
    assert any("rising whole numbers" in str(error.value) for error in app.error)
    assert draft(app).controls.schedule == {"name": "multi_step"}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_shows_arguments_of_its_own(app: AppTest, name: str) -> None:
    tab(app, "Optimizer").selectbox(key="optimizer/0").select(name).run()
    assert not app.exception
    prefix = f"practices/0/Optimizer/{name}/"
    fields = [*app.number_input, *app.text_input, *app.toggle]
    assert any(str(field.key).startswith(prefix) for field in fields)
    assert draft(app).optimizer_args == {}


def test_arguments_and_parameter_groups_of_the_optimizer(app: AppTest) -> None:
    tab(app, "Optimizer").selectbox(key="optimizer/0").select("adam").run()
    app.text_input(key="practices/0/Optimizer/adam/betas").set_value("[0.8, 0.99]").run()
    app.button(key="practices/0/Optimizer/adam/mlp/group/add").click().run()
    app.multiselect(key="practices/0/Optimizer/adam/mlp/group/0/modules").select("head").run()
    app.number_input(key="practices/0/Optimizer/adam/mlp/group/0/lr").set_value(0.001).run()
    config = draft(app)
    assert config.optimizer_args == {"betas": [0.8, 0.99]}
    assert config.param_groups == [{"modules": ["head"], "lr": 0.001}]
    app.selectbox(key="optimizer/0").select("sgd").run()
    assert draft(app).optimizer_args == {}


def test_an_argument_of_the_wrong_shape_is_said_at_its_field(app: AppTest) -> None:
    tab(app, "Optimizer").selectbox(key="optimizer/0").select("adam").run()
    app.text_input(key="practices/0/Optimizer/adam/betas").set_value("[0.8]").run()
    assert any("Expected 2 numbers" in str(error.value) for error in app.error)
    assert draft(app).optimizer_args == {}


def test_loss_arguments_fit_the_task_and_are_checked(app: AppTest) -> None:
    tab(app, "Loss")
    key = "practices/0/Loss/cross_entropy/"
    app.number_input(key=f"{key}label_smoothing").set_value(0.1).run()
    assert draft(app).loss_args == {"label_smoothing": 0.1}
    app.text_input(key=f"{key}weight").set_value("[1, 2]").run()
    assert any("each of 10 classes" in str(error.value) for error in app.error)
    assert draft(app).loss_args == {"label_smoothing": 0.1}


def test_types_of_the_model_can_be_initialised(app: AppTest) -> None:
    app.selectbox(key="model/0").select("lenet").run()
    tab(app, "Initialisation")
    app.selectbox(key="practices/0/Initialisation/lenet/Conv2d").select("kaiming_normal").run()
    assert draft(app).init == {"Conv2d": "kaiming_normal"}


def test_precision_accumulation_and_clipping(app: AppTest) -> None:
    tab(app, "Steps").selectbox(key="practices/0/Steps/precision").select("bf16").run()
    app.number_input(key="practices/0/Steps/accumulate").set_value(4).run()
    app.button_group(key="practices/0/Steps/clip").set_value("norm").run()
    config = draft(app)
    assert (config.precision, config.controls.accumulate, config.controls.clip) == (
        "bf16", 4, "norm",
    )  # fmt: skip
    assert said(app).endswith("bf16 · 4 passes a step · clipping by norm 1")
    assert any("Acts as a batch of 256" in str(caption.value) for caption in app.caption)


def test_modules_are_frozen_by_path_and_forgotten_with_their_model(app: AppTest) -> None:
    tab(app, "Regularisation").multiselect(key="practices/0/Regularisation/mlp/frozen").select(
        "head"
    ).run()
    app.number_input(key="practices/0/Regularisation/stopping").set_value(5).run()
    assert (draft(app).controls.frozen, draft(app).early_stopping) == (("head",), 5)
    app.selectbox(key="model/0").select("lenet").run()
    assert draft(app).controls.frozen == ()


def test_checkpoints_and_checks(app: AppTest) -> None:
    tab(app, "Checkpoints").number_input(key="practices/0/Checkpoints/every").set_value(50).run()
    tab(app, "Checks").number_input(key="practices/0/Checks/overfit").set_value(1).run()
    app.toggle(key="practices/0/Checks/deterministic").set_value(True).run()
    config = draft(app)
    assert (config.checkpoint_every, config.overfit_batches, config.deterministic) == (50, 1, True)


def test_a_preset_fills_the_forms_afresh(app: AppTest) -> None:
    tab(app, "Checks").number_input(key="practices/0/Checks/overfit").set_value(1).run()
    app.button(key="load/vanishing").click().run()
    assert said(app) == ""
    assert draft(app).overfit_batches == 0


def test_every_practice_has_its_phrase() -> None:
    config = RunConfig(
        optimizer_args={"nesterov": True, "betas": [0.8, 0.9]},
        param_groups=[{"modules": ["head"]}],
        loss_args={"label_smoothing": 0.1},
        init={"Linear": {"name": "orthogonal", "gain": 2}},
        precision="fp16",
        early_stopping=3,
        checkpoint_every=100,
        resume="run@last",
        overfit_batches=1,
        compile="aot_eager",
        deterministic=True,
        metrics=["f1"],
        augment=[{"name": "flip"}],
        controls=Controls(
            schedule={"name": "cosine"}, accumulate=2, frozen=("a", "b", "c", "d"),
            eval_modules=("BatchNorm2d",), zero_grad=False, clip="value", clip_threshold=0.5,
        ),
    )  # fmt: skip
    assert changes(config) == [
        "nesterov", "betas [0.8, 0.9]", "1 parameter group", "schedule cosine",
        "label smoothing 0.1", "Linear initialised orthogonal", "fp16", "2 passes a step",
        "clipping by value 0.5", "zero_grad off", "a, b, c and 1 more frozen",
        "BatchNorm2d in eval mode", "stops after 3 epochs without improvement",
        "checkpoint every 100 steps", "goes on from run@last", "overfits 1 batch",
        "deterministic", "compiled by aot_eager", "1 augmentation", "metrics f1",
    ]  # fmt: skip
    assert changes(RunConfig()) == []


def test_what_is_done_to_the_data_is_said_on_the_first_screen() -> None:
    config = RunConfig(
        weights="/home/me/best.pt", task="multi_label", validation=0.1, test=0.2, stratify=True,
        normalize=True, balance=True, momentum=0.9, weight_decay=1e-4, loss="mse",
        workers=1, pin_memory=True, controls=Controls(on_nonfinite="pause"),
    )  # fmt: skip
    assert changes(config) == [
        "weights from best.pt", "task multi label", "10% for validation", "20% for a test",
        "stratified by class", "normalised by the training part", "each class drawn equally often",
        "momentum 0.9", "weight decay 0.0001", "loss mse", "pauses at NaN or infinity",
        "1 loading process", "pinned memory",
    ]  # fmt: skip


def test_looking_up_modules_draws_no_random_numbers(app: AppTest) -> None:
    import torch

    before = torch.random.get_rng_state()
    for model in ("lenet", "transformer", "torchvision:resnet18"):
        app.selectbox(key="model/0").select(model).run()
        app.selectbox(key="data/0").select(
            "digit_rows" if model == "transformer" else "digits"
        ).run()
        tab(app, "Regularisation")
        options = app.multiselect(key=f"practices/0/Regularisation/{model}/frozen").options
        assert options, model
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_hint_beside_a_run_is_that_of_the_preset_it_was_made_from() -> None:
    for preset in PRESETS:
        found = nearest(preset.config.to_dict())
        assert found is not None
        assert found.config == preset.config, preset.key
    assert nearest(RunConfig(model="rnn", data="two_moons").to_dict()) is None


def test_presets_of_the_practices_are_folded_under_their_heading(app: AppTest) -> None:
    folded = [preset for preset in PRESETS if preset.group]
    titles = [expander.label for expander in app.expander]
    for group in {preset.group for preset in folded}:
        count = sum(preset.group == group for preset in folded)
        assert f"{group} ({count})" in titles
    for preset in folded:
        app.button(key=f"load/{preset.key}").click().run()
        assert draft(app) == preset.config, preset.key
