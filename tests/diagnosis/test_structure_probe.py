"""What the structure document says, against what the test has built."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from inspector.capture.examine_data import DataFacts, _fingerprint
from inspector.capture.structure import StructureProbe, is_examined


def data(count: int = 96, features: int = 6, classes: int = 3) -> TensorDataset:
    torch.manual_seed(0)
    return TensorDataset(torch.randn(count, features), torch.arange(count) % classes)


def net(*, features: int = 6, classes: int = 3) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(features, 16), nn.ReLU(), nn.Linear(16, classes))


def train(
    model: nn.Module,
    probe: StructureProbe | None,
    optimizer: torch.optim.Optimizer,
    loss_fn: Any,
    batches: Any,
    *,
    steps: int = 12,
    clear: bool = True,
) -> None:
    step = 0
    while step < steps:
        for inputs, targets in batches:
            if clear:
                optimizer.zero_grad()
            loss = loss_fn(model(inputs), targets)
            if probe is not None:
                probe.on_loss(loss)
            loss.backward()
            optimizer.step()
            if probe is not None:
                probe.on_step(step)
            step += 1
            if step == steps:
                break


def document(model: nn.Module, loss_fn: Any = None, **options: Any) -> dict[str, Any]:
    optimizer = options.pop("optimizer", None) or torch.optim.SGD(model.parameters(), 0.1)
    loader = options.pop("loader", None)
    batches = options.pop("batches", None) or loader or DataLoader(data(), 16)
    loss_fn = loss_fn or nn.CrossEntropyLoss()
    probe = StructureProbe(model, [optimizer], loss_fn=loss_fn, loader=loader)
    train(model, probe, optimizer, loss_fn, batches, **options)
    made = probe.document()
    probe.close()
    assert probe.failed is None
    assert json.loads(json.dumps(made, allow_nan=False)) == made
    return made


def row(made: dict[str, Any], name: str) -> dict[str, Any]:
    return next(r for r in made["parameters"] if r["name"] == name)


def test_softmax_before_cross_entropy_is_seen_in_the_graph_and_in_the_outputs() -> None:
    made = document(nn.Sequential(*net(), nn.Softmax(dim=1)))
    assert made["loss"]["doubled"] == "softmax>log_softmax"
    assert made["loss"]["outputs"]["rows_sum_to_one"]
    plain = document(net())
    assert plain["loss"]["doubled"] == ""
    assert not plain["loss"]["outputs"]["rows_sum_to_one"]


def test_kept_gradients_are_told_from_accumulation() -> None:
    kept = document(net(), clear=False)["zero_grad"]
    assert kept["kept_steps"] == list(range(1, 12))
    assert document(net())["zero_grad"]["kept_steps"] == []

    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    probe = StructureProbe(model, [optimizer])
    batches = list(DataLoader(data(), 16))
    for step in range(8):
        for inputs, targets in batches[:3]:
            F.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
        probe.on_step(step)
        optimizer.zero_grad(set_to_none=step % 2 == 0)
    assert probe.document()["zero_grad"] == {"checked_steps": 7, "kept_steps": []}


def test_a_penalty_on_the_weights_is_no_kept_gradient() -> None:
    model = net()

    def loss_fn(outputs: Tensor, targets: Tensor) -> Tensor:
        penalty = sum(p.square().sum() for p in model.parameters())
        return F.cross_entropy(outputs, targets) + 1e-3 * penalty

    assert document(model, loss_fn)["zero_grad"]["kept_steps"] == []


def test_membership_and_gradients_of_parameters() -> None:
    model = net()
    model[0].requires_grad_(False)
    optimizer = torch.optim.SGD([model[0].weight, model[2].bias], 0.1)
    made = document(model, optimizer=optimizer)
    frozen, forgotten, fine = (row(made, n) for n in ("0.weight", "2.weight", "2.bias"))
    assert (frozen["requires_grad"], frozen["in_optimizer"]) == (False, True)
    assert (forgotten["requires_grad"], forgotten["in_optimizer"]) == (True, False)
    assert forgotten["foreign_updates"] == 0
    assert fine["in_optimizer"] and fine["steps_with_gradient"] == 12
    assert frozen["steps_without_gradient"] == 12


def test_a_parameter_that_another_optimizer_steps_is_not_forgotten() -> None:
    model = net()
    first = torch.optim.SGD(model[0].parameters(), 0.1)
    second = torch.optim.SGD(model[2].parameters(), 0.1)
    first.register_step_post_hook(lambda *_: second.step())
    assert row(document(model, optimizer=first), "2.weight")["foreign_updates"] >= 10


def test_update_ratio_follows_the_weights() -> None:
    model, learning_rate = net(), 0.1
    optimizer = torch.optim.SGD(model.parameters(), learning_rate)
    probe = StructureProbe(model, [optimizer])
    inputs, targets = data()[:16]
    weight = model[2].weight  # 48 elements: the sample is the whole
    expected = []
    for step in range(4):
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), targets).backward()
        before = weight.detach().clone()
        optimizer.step()
        expected.append(float((weight.detach() - before).norm() / before.norm()))
        probe.on_step(step)
    assert row(probe.document(), "2.weight")["update_ratio"] == pytest.approx(
        expected[1:], rel=1e-5
    )


def test_dead_units_of_functional_relu() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(6, 16), nn.Linear(16, 3)
            with torch.no_grad():
                self.first.bias[:12] = -100

        def forward(self, x: Tensor) -> Tensor:
            return self.last(F.relu(self.first(x)))

    (activation,) = document(Functional())["activations"]
    assert (activation["module"], activation["function"]) == ("first", "relu")
    assert activation["dead"] >= 12 / 16


@pytest.mark.parametrize(
    ("parts", "pairs"),
    [
        ([nn.Linear(6, 8), nn.Linear(8, 3)], [("0", "1")]),
        ([nn.Linear(6, 8), nn.Dropout(0.1), nn.BatchNorm1d(8), nn.Linear(8, 3)], [("0", "3")]),
        ([nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)], []),
    ],
)
def test_linear_modules_in_a_row(parts: list[nn.Module], pairs: list[tuple[str, str]]) -> None:
    made = document(nn.Sequential(*parts))
    assert [(p["first"], p["second"]) for p in made["linear_pairs"]] == pairs


def test_a_result_that_a_residual_uses_too_is_no_lost_linear_module() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.inner, self.last = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            return self.last(torch.relu(x + self.inner(x)))

    assert document(Residual())["linear_pairs"] == []


def test_inputs_are_measured_behind_a_normalisation_inside_forward() -> None:
    class Scaling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = net()

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x / 1000)

    dataset = TensorDataset(data().tensors[0] * 1000, data().tensors[1])
    made = document(Scaling(), batches=DataLoader(dataset, 16))
    assert made["inputs"]["rms"] == pytest.approx(1.0, abs=0.4)


def test_order_classes_and_neighbours() -> None:
    inputs, targets = data(256).tensors
    order = targets.argsort(stable=True)
    centres = torch.eye(6)[targets] * 8
    clustered = TensorDataset((inputs + centres)[order], targets[order])
    made = document(net(), loader=DataLoader(clustered, 16))
    assert made["order"]["order"] == "sequential"
    assert made["dataset"]["sorted"] > 0.8
    assert made["dataset"]["class_counts"] == torch.bincount(targets).tolist()
    assert made["neighbours"]["agreement"] > 0.95
    shuffled = TensorDataset(inputs, targets[torch.randperm(256)])
    made = document(net(), loader=DataLoader(shuffled, 16, shuffle=True))
    assert abs(made["neighbours"]["standard_errors"]) < 3
    assert made["order"]["order"] == "random"


def test_a_column_against_a_row_broadcasts() -> None:
    inputs, targets = data()[:32]
    batches = [(inputs, targets.float())] * 4
    model = net(classes=1)
    by_hand = document(model, lambda o, t: ((o - t) ** 2).mean(), batches=batches)
    assert by_hand["loss"]["broadcast"] == [[32, 1], [32, 32]]
    fine = document(model, lambda o, t: ((o.squeeze(1) - t) ** 2).mean(), batches=batches)
    assert "broadcast" not in fine["loss"]


def test_eval_mode_counts_only_with_a_backward_pass() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    probe = StructureProbe(model, [optimizer])
    inputs, targets = data()[:16]
    model.eval()
    model(inputs)  # validation that forgets no_grad()
    model.train()
    F.cross_entropy(model(inputs), targets).backward()
    optimizer.step()
    probe.on_step(0)
    assert probe.document()["modes"]["eval_steps"] == []
    model.eval()
    F.cross_entropy(model(inputs), targets).backward()
    optimizer.step()
    probe.on_step(1)
    assert probe.document()["modes"]["eval_steps"] == [1]


def test_training_is_bit_identical_and_nothing_is_left_behind() -> None:
    bare, watched = net(), net()
    for model, observed in ((bare, False), (watched, True)):
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        loss_fn = nn.CrossEntropyLoss()
        before = set(vars(loss_fn)), [dict(m._forward_hooks) for m in model.modules()]
        probe = StructureProbe(model, [optimizer], loss_fn=loss_fn) if observed else None
        torch.manual_seed(3)
        batches = DataLoader(data(), 16, shuffle=True)
        train(model, probe, optimizer, loss_fn, batches, steps=60)
        if probe is not None:
            copy.deepcopy(model)(torch.zeros(2, 6))
            probe.close()
            probe.close()
        assert before == (set(vars(loss_fn)), [dict(m._forward_hooks) for m in model.modules()])
    for mine, theirs in zip(bare.parameters(), watched.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_fault_of_the_probe_switches_it_off_and_is_told() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    probe = StructureProbe(model, [optimizer])
    probe._graph = None  # type: ignore[assignment]
    train(model, probe, optimizer, nn.CrossEntropyLoss(), DataLoader(data(), 16))
    assert isinstance(probe.failed, AttributeError)
    assert "failed" in probe.document()


def test_bursts_grow_rare() -> None:
    examined = [step for step in range(20_000) if is_examined(step)]
    assert examined[:16] == list(range(16))
    assert len([step for step in examined if step >= 10_000]) < 100


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool]
)
@pytest.mark.parametrize("shape", [(3,), (8, 5), (64, 1, 28, 28), (256, 300)])
def test_batches_are_told_apart(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """Alone copies are the same batch: not one with a sample changed, nor one in another order."""
    torch.manual_seed(0)
    values = torch.randn(shape)
    batch = values > 0 if dtype is torch.bool else (values * 3).to(dtype)
    batch.view(-1)[0], batch.view(-1)[-1] = 1, 0
    mark = _fingerprint(batch)
    assert _fingerprint(batch.clone()) == mark
    assert _fingerprint(batch.flip(0).contiguous()) != mark
    assert _fingerprint(torch.cat((batch[:-1], torch.ones_like(batch[:1])))) != mark
    assert _fingerprint(batch[:-1]) != mark


def test_the_order_of_batches_is_followed_until_it_is_known() -> None:
    facts = DataFacts(None)
    batches = [torch.randn(4, 3) for _ in range(5)]
    step = 0
    while facts.wants_order and step < 1000:
        facts.batch(batches[step % 5], step)
        step += 1
    order = facts.document()["order"]
    assert 200 < step < 300
    assert order["batches_seen"] == 5
    assert order["in_first_order"] == order["repeated"] == step - 5
