"""Training loops of Lightning, Fabric, Trainer and accelerate, watched as the documentation says.

Each trains twins from one seed, one of them watched, which must end the same to the bit; what was
recorded is compared with what the script itself has seen of its gradients.
"""

from __future__ import annotations

import logging
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, TensorDataset

import inspector
from inspector.events import Notice, Origin, ProbeFailed, StepSkipped
from inspector.store.reader import Run

pytestmark = pytest.mark.slow
MISSING = "not installed: uv sync --group zoo"
STEPS = 20
DOCUMENT = Path(__file__).parents[2] / "docs" / "watching.md"
SNIPPETS = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)

Seen = dict[str, list[float]]


class Silent:
    """Stands for a watch that nobody asked for."""

    should_stop = False

    def __getattr__(self, _name: str) -> Callable[..., None]:
        return lambda *_args, **_options: None

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *_: object) -> None: ...


def snippet(about: str) -> str:
    """The one block of the documentation that has this in it."""
    (found,) = (code for code in SNIPPETS if about in code)
    return str(found)


def watching(folder: Path | None) -> SimpleNamespace:
    """The package with a ``watch()`` into the folder; one that does nothing for None."""
    if folder is None:
        return SimpleNamespace(watch=lambda *_args, **_options: Silent())
    return SimpleNamespace(
        watch=lambda *args, **options: inspector.watch(
            *args, run_dir=folder, name="run", every=1, **options
        )
    )


def norm(model: nn.Module) -> float:
    gradients = [p.grad.double() for p in model.parameters() if p.grad is not None]
    return math.sqrt(sum(float(g.square().sum()) for g in gradients))


def same(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 5))


def batches(count: int = STEPS) -> DataLoader[Any]:
    inputs = torch.randn(32 * count, 20)
    targets = (inputs @ torch.randn(20, 5)).argmax(1)
    return DataLoader(TensorDataset(inputs, targets), batch_size=32, shuffle=True)


Trained = tuple[nn.Module, Optimizer, Seen]


def prove(train: Callable[[Any, Seen], Trained], folder: Path, *, steps: int = STEPS) -> Run:
    """Trains twins and compares them; gives the run of the watched one, which must be sound."""
    results = []
    for place in (None, folder):
        torch.manual_seed(0)
        model, optimizer, seen = train(watching(place), defaultdict(list))
        state = [p.detach() for p in model.parameters()], list(model.buffers())
        moments = [v for s in optimizer.state.values() for v in s.values()]
        tensors = [t for t in (*state[0], *state[1], *moments) if isinstance(t, Tensor)]
        results.append((tensors, torch.get_rng_state(), seen))
        assert not optimizer._optimizer_step_post_hooks and "zero_grad" not in vars(optimizer)
    (bare, random, seen), (watched, random_then, seen_then) = results
    assert len(bare) == len(watched) and all(map(same, bare, watched))
    assert torch.equal(random, random_then) and seen == seen_then
    run = inspector.open_run(folder / "run")
    assert run.status in ("finished", "stopped")
    assert not [e for e in run.events() if isinstance(e.event, ProbeFailed)]
    for name, expected in seen.items():
        series = run.series(name)
        assert list(series.steps) == list(range(steps)), name
        assert list(series.values) == pytest.approx(expected, rel=2e-4), name
    return run


# ---------------------------------------------------------------- Lightning


@pytest.fixture
def lightning() -> Any:
    found = pytest.importorskip("lightning", reason=f"lightning is {MISSING}")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return found


def lightning_trainer(lightning: Any, callbacks: list[Any], **options: Any) -> Any:
    return lightning.Trainer(
        accelerator="cpu", devices=1, max_steps=STEPS, enable_progress_bar=False,
        enable_model_summary=False, logger=False, enable_checkpointing=False,
        callbacks=callbacks, **options,
    )  # fmt: skip


def lightning_fit(
    lightning: Any, product: Any, seen: Seen, *, optimizer: Any = AdamW, at_step: Any = None,
    micro: int = 1, **options: Any,
) -> Trained:  # fmt: skip
    names: dict[str, Any] = {"lightning": lightning, "inspector": product}
    exec(snippet("lightning.Callback"), names)
    callback = names["watching"]

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def training_step(self, batch: Any, index: int) -> Tensor:
            inputs, targets = batch
            if at_step is not None:
                inputs = at_step(self.global_step, inputs, callback)
            loss = F.cross_entropy(self.net(inputs), targets)
            callback.watch.record(loss=loss)
            if index % micro == micro - 1:
                seen["loss"].append(float(loss))
            return loss

        def validation_step(self, batch: Any, _index: int) -> None:
            F.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            made = optimizer(self.parameters(), lr=0.01)
            return [made], [{"scheduler": StepLR(made, 5, 0.5), "interval": "step"}]

        def on_before_optimizer_step(self, _optimizer: Any) -> None:
            seen["total_grad_norm"].append(norm(self))

        def configure_gradient_clipping(self, optimizer: Any, **given: Any) -> None:
            super().configure_gradient_clipping(optimizer, **given)
            seen["clipped_grad_norm"].append(norm(self))
            seen["lr"].append(optimizer.param_groups[0]["lr"])

    module = Module()
    trainer = lightning_trainer(lightning, [callback], accumulate_grad_batches=micro, **options)
    trainer.fit(module, batches(10 * micro), batches(2))
    return module, trainer.optimizers[0], seen


@pytest.mark.parametrize(
    ("micro", "precision"), [(1, "32-true"), (3, "32-true"), (1, "bf16-mixed")]
)
def test_lightning_is_right_before_and_after_clipping(
    lightning: Any, tmp_path: Path, micro: int, precision: str
) -> None:
    def train(product: Any, seen: Seen) -> Trained:
        return lightning_fit(
            lightning, product, seen, micro=micro, precision=precision, gradient_clip_val=0.3
        )

    with prove(train, tmp_path) as run:
        assert set(run.series("clipped").values) == {1.0}
        assert set(run.series("backward_passes").values) == {float(micro)}
        assert set(run.matrix("activation_mean").subjects) >= {"0", "1", "3"}
        assert [f.code for f in run.findings() if f.level != "note"] == []


def test_lightning_names_where_a_nan_comes_from(lightning: Any, tmp_path: Path) -> None:
    def spoil(step: int, inputs: Tensor, _callback: Any) -> Tensor:
        return inputs * math.nan if step == 7 else inputs

    def train(product: Any, seen: Seen) -> Trained:
        found = lightning_fit(lightning, product, seen, at_step=spoil)
        seen.clear()
        return found

    with prove(train, tmp_path) as run:
        origins = [e for e in run.events() if isinstance(e.event, Origin)]
        assert [(e.step, e.event.phase) for e in origins] == [(7, "data")]  # type: ignore[union-attr]
        assert [f.code for f in run.findings()] == ["nonfinite"]


def test_lightning_is_stopped_and_steered(lightning: Any, tmp_path: Path) -> None:
    from inspector.commands import Command

    def steer(step: int, inputs: Tensor, callback: Any) -> Tensor:
        if step == 4:
            callback.watch.apply(Command(name="set", control="lr", value=0.002))
        if step == 8:
            callback.watch.apply(Command(name="stop"))
        return inputs

    torch.manual_seed(0)
    lightning_fit(lightning, watching(tmp_path), defaultdict(list), at_step=steer)
    with inspector.open_run(tmp_path / "run") as run:
        assert run.status == "stopped"
        rates = [0.01] * 4 + [0.002] + [0.001] * 4
        assert list(run.series("lr").values) == pytest.approx(rates)


@pytest.mark.parametrize("whole", [True, False])
def test_lightning_steps_that_a_scaler_skips_are_told(
    lightning: Any, tmp_path: Path, whole: bool
) -> None:
    from lightning.pytorch.plugins import MixedPrecision

    def train(product: Any, seen: Seen) -> Trained:
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20)
        given = product.watch
        if whole:
            product.watch = lambda *args: given(*args, scaler=scaler)
        plugin = MixedPrecision("16-mixed", "cpu", scaler)
        found = lightning_fit(lightning, product, seen, plugins=[plugin], gradient_clip_val=0.3)
        seen.clear()
        return found

    with prove(train, tmp_path) as run:
        told = [e.event for e in run.events() if isinstance(e.event, StepSkipped)]
        assert told
        assert not whole or {event.reason for event in told} == {
            "GradScaler found non-finite gradients"
        }
        assert [f.code for f in run.findings() if f.level != "note"] == []


def test_lightning_with_manual_optimization(lightning: Any, tmp_path: Path) -> None:
    def train(product: Any, seen: Seen) -> Trained:
        class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                super().__init__()
                self.automatic_optimization = False
                self.net = network()

            def on_fit_start(self) -> None:
                self.watch = product.watch(self, self.optimizers())

            def training_step(self, batch: Any, _index: int) -> None:
                optimizer = self.optimizers()
                loss = F.cross_entropy(self.net(batch[0]), batch[1])
                self.watch.record(loss=loss)
                optimizer.zero_grad()
                self.manual_backward(loss)
                seen["loss"].append(float(loss))
                seen["total_grad_norm"].append(norm(self))
                self.clip_gradients(optimizer, 0.3, "norm")
                seen["clipped_grad_norm"].append(norm(self))
                optimizer.step()

            def configure_optimizers(self) -> Any:
                return SGD(self.parameters(), lr=0.1, momentum=0.9)

        module = Module()
        trainer = lightning_trainer(lightning, [])
        trainer.fit(module, batches())
        module.watch.close()
        return module, trainer.optimizers[0], seen

    prove(train, tmp_path).close()


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_fabric(lightning: Any, tmp_path: Path, precision: str) -> None:
    def train(product: Any, seen: Seen) -> Trained:
        fabric = lightning.Fabric(accelerator="cpu", devices=1, precision=precision)
        net = network()
        plain = AdamW(net.parameters(), lr=0.01)
        model, optimizer = fabric.setup(net, plain)
        scheduler = StepLR(optimizer, 5, 0.5)
        with product.watch(model, optimizer) as watch:
            for inputs, targets in fabric.setup_dataloaders(batches()):
                loss = F.cross_entropy(model(inputs), targets)
                watch.record(loss=loss)
                optimizer.zero_grad()
                fabric.backward(loss)
                seen["loss"].append(float(loss))
                seen["total_grad_norm"].append(norm(net))
                fabric.clip_gradients(model, optimizer, max_norm=0.3)
                seen["clipped_grad_norm"].append(norm(net))
                seen["lr"].append(plain.param_groups[0]["lr"])
                optimizer.step()
                scheduler.step()
        return net, plain, seen

    with prove(train, tmp_path) as run:
        assert set(run.matrix("activation_mean").subjects) >= {"0", "1", "3"}


# ---------------------------------------------------------------- accelerate and Trainer


@pytest.fixture
def accelerate() -> Iterator[Any]:
    yield pytest.importorskip("accelerate", reason=f"accelerate is {MISSING}")


@pytest.mark.parametrize("early", [False, True])
def test_accelerate(accelerate: Any, tmp_path: Path, early: bool) -> None:
    def train(product: Any, seen: Seen) -> Trained:
        accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
        model, loader = network(), batches(2 * STEPS)
        plain = AdamW(model.parameters(), lr=0.01)

        class Noting(StepLR):
            def step(self, *args: Any) -> None:
                if getattr(self, "last_epoch", -1) >= 0:
                    seen["clipped_grad_norm"].append(norm(model))
                    seen["lr"].append(plain.param_groups[0]["lr"])
                super().step(*args)

        names: dict[str, Any] = {
            "model": model, "optimizer": plain, "loader": loader, "accelerator": accelerator,
            "scheduler": Noting(plain, 5, 0.5), "loss_fn": F.cross_entropy,
            "inspector": product,
        }  # fmt: skip
        if early:  # before prepare(): what is watched is wrapped afterwards
            watch = product.watch(model, plain)
            names["inspector"] = SimpleNamespace(watch=lambda *_: _Borrowed(watch))
        exec(snippet("accelerator.prepare"), names)
        if early:
            watch.close()
        return model, plain, seen

    with prove(train, tmp_path) as run:
        assert set(run.series("backward_passes").values) == {2.0}
        assert [f.code for f in run.findings() if f.level != "note"] == []


class _Borrowed:
    """A watch that a ``with`` block does not close."""

    def __init__(self, watch: Any) -> None:
        self._watch = watch

    def __enter__(self) -> Any:
        return self._watch

    def __exit__(self, *_: object) -> None: ...


@pytest.mark.usefixtures("accelerate")
@pytest.mark.parametrize(("micro", "bf16"), [(1, False), (2, True)])
def test_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, micro: int, bf16: bool) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    transformers = pytest.importorskip("transformers", reason=f"transformers is {MISSING}")
    transformers.logging.set_verbosity_error()

    def train(product: Any, seen: Seen) -> Trained:
        config = transformers.BertConfig(
            vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=64, max_position_embeddings=32, num_labels=3,
        )  # fmt: skip
        model = transformers.BertForSequenceClassification(config)
        tokens = torch.randint(3, 64, (400, 12), generator=torch.Generator().manual_seed(1))
        data = [{"input_ids": row, "labels": row[1] % 3} for row in tokens]
        names: dict[str, Any] = {"transformers": transformers, "inspector": product}
        exec(snippet("transformers.TrainerCallback"), names)

        class Noting(transformers.TrainerCallback):  # type: ignore[misc, name-defined]
            def on_pre_optimizer_step(self, *_: Any, optimizer: Any, **__: Any) -> None:
                seen["clipped_grad_norm"].append(norm(model))
                seen["lr"].append(optimizer.param_groups[0]["lr"])

            def on_log(self, *_: Any, logs: Any, **__: Any) -> None:
                if "grad_norm" in logs:
                    seen["total_grad_norm"].append(logs["grad_norm"])

        trainer = names["WatchedTrainer"](
            model=model,
            args=transformers.TrainingArguments(
                output_dir=str(tmp_path / "out"), max_steps=STEPS, learning_rate=1e-2,
                per_device_train_batch_size=8, logging_steps=1, report_to=[], use_cpu=True,
                gradient_accumulation_steps=micro, max_grad_norm=0.2, bf16=bf16, seed=3,
                eval_strategy="steps", eval_steps=10, save_strategy="no", disable_tqdm=True,
            ),
            train_dataset=data[:320], eval_dataset=data[320:],
            callbacks=[names["watching"], Noting()],
        )  # fmt: skip
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
        return model, trainer.optimizer.optimizer, seen

    with prove(train, tmp_path) as run:
        assert len(run.series("loss").steps) == STEPS
        assert set(run.series("backward_passes").values) == {float(micro)}
        assert not [e for e in run.events() if isinstance(e.event, Notice)]
