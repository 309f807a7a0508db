"""Every recorded number against the oracle, over the zoo."""

from __future__ import annotations

import math

import pytest
import torch
import zoo
from listening import observe, values
from oracle import Found, Oracle
from torch import nn
from zoo import ZOO, Case

STEPS = 4

# Loops in which a step is not one forward and one backward pass of one optimizer have tests of
# their own below; scripted modules cannot be seen by the oracle's hooks either.
ELSEWHERE = {
    "lbfgs", "gan", "gan_critic_only", "step_inside_backward", "gradient_penalty", "adversarial",
    "amp_plain", "amp_fused", "functional_transform", "assigned_mid_run", "scripted",
    "scripted_inside", "checkpoint_all_nested", "compiled_and_called_before_watching",
    "evaluation_between", "empty_and_scalar_outputs", "sparse_gradients",
}  # fmt: skip
BLIND = {"compiled_before", "compiled_in_place", "compiled_after_watching"}


def both(name: str, monkeypatch: pytest.MonkeyPatch, steps: int = STEPS) -> tuple[list[Found], ...]:
    torch.manual_seed(3)
    with monkeypatch.context() as patch:
        if name.startswith("checkpoint"):
            patch.setattr(zoo, "checkpoint", lambda function, x, **_: function(x))
        if name.startswith("compiled"):
            patch.setattr(torch, "compile", lambda model, **_: model)
            patch.setattr(nn.Module, "compile", lambda *_, **__: None)
        expected = Oracle(ZOO[name]()).run(steps)
    torch.manual_seed(3)
    case = ZOO[name]()
    observer, listening = observe(case, scaler=case.scaler)
    for _ in range(steps):
        case.iterate()
    observer.close()
    assert [str(error) for _, error in listening.failures] == []
    found = [{**values(row.parameters), **values(row.modules)} for row in listening.rows]
    return expected, found


def assert_agree(expected: Found, found: Found, tolerance: float = 2e-4) -> None:
    for key, value in found.items():
        assert key in expected, f"{key} was reported, but should not exist"
        right = expected[key]
        if math.isnan(right):
            assert math.isnan(value), key
            continue
        slack = 1e-6
        if key[0] == "activation_mean":
            slack += 1e-5 * expected["activation_std", key[1]]
        assert math.isclose(value, right, rel_tol=tolerance, abs_tol=slack), (key, value, right)


@pytest.mark.parametrize("name", sorted(set(ZOO) - ELSEWHERE))
def test_every_number_equals_its_oracle(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, found = both(name, monkeypatch)
    assert len(found) == STEPS
    loose = name in ("bfloat16", "float16", "autocast")
    for right, seen in zip(expected, found, strict=True):
        if name == "integer_and_float8_parameters":
            right = {key: value for key, value in right.items() if key[1] != "argmax"}
        assert_agree(right, seen, 2e-2 if loose else 2e-4)
        parameters = {key for key in right if key[0].startswith(("grad_", "weight_", "update_"))}
        assert parameters <= set(seen)


@pytest.mark.parametrize("name", sorted(set(ZOO) - ELSEWHERE - BLIND))
def test_every_leaf_module_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, found = both(name, monkeypatch, steps=2)
    with torch.no_grad():
        model = ZOO[name]().model
    leaves = {path for path, module in model.named_modules() if not list(module.children())}
    for right, seen in zip(expected, found, strict=True):
        missing = {key for key in right if key[1] in leaves and key not in seen}
        missing = {key for key in missing if key[0].startswith(("activation", "output"))}
        assert missing == set()


def test_a_large_mean_does_not_spoil_the_deviation() -> None:
    model = nn.Sequential(nn.Linear(6, 10))
    with torch.no_grad():
        model[0].bias.fill_(1e4)
    case = zoo.plain_loop(model, torch.optim.SGD(model.parameters(), lr=1e-9))
    torch.manual_seed(0)
    observer, listening = observe(case)
    deviations = []
    model[0].register_forward_hook(
        lambda _m, _a, o: deviations.append(float(o.double().std(correction=0)))
    )
    for _ in range(3):
        case.iterate()
    observer.close()
    for row, right in zip(listening.rows, deviations, strict=True):
        assert math.isclose(values(row.modules)["activation_std", "0"], right, rel_tol=1e-2)


def test_run_totals_are_those_of_all_parameters() -> None:
    torch.manual_seed(3)
    case = ZOO["ordinary"]()
    observer, listening = observe(case)
    optimizer = case.optimizers[0]
    for _ in range(3):
        optimizer.zero_grad()
        case.model(torch.randn(8, 6)).square().mean().backward()
        gradients = torch.cat([p.grad.flatten() for p in case.model.parameters()])  # type: ignore[union-attr]
        torch.nn.utils.clip_grad_norm_(case.model.parameters(), 0.01)
        clipped = torch.cat([p.grad.flatten() for p in case.model.parameters()])  # type: ignore[union-attr]
        before = torch.cat([p.detach().flatten() for p in case.model.parameters()]).clone()
        optimizer.step()
        observer.record({"loss": 0.0})
        after = torch.cat([p.detach().flatten() for p in case.model.parameters()])
        scalars = listening.rows[-1].scalars
        right = {
            "total_grad_norm": gradients.norm(),
            "clipped_grad_norm": clipped.norm(),
            "total_update_ratio": (after - before).norm() / before.norm(),
            "clipped": 1.0,
            "lr": 0.05,
            "momentum": 0.9,
            "backward_passes": 1.0,
            "nonfinite": 0.0,
        }
        for name, value in right.items():
            assert math.isclose(scalars[name], float(value), rel_tol=1e-4), name
    observer.close()


def trained(name: str, steps: int = STEPS, **options: object) -> tuple[Case, list]:  # type: ignore[type-arg]
    torch.manual_seed(3)
    case = ZOO[name]()
    observer, listening = observe(case, scaler=case.scaler, **options)
    for _ in range(steps):
        case.iterate()
    observer.close()
    assert listening.failures == []
    return case, listening.rows


def test_evaluation_passes_are_kept_apart() -> None:
    _, rows = trained("evaluation_between")
    for row in rows:
        assert abs(values(row.modules)["activation_mean", "0"]) < 10


def test_accumulated_passes_are_counted_and_joined() -> None:
    _, rows = trained("accumulation")
    assert [row.scalars["backward_passes"] for row in rows] == [4.0] * STEPS


def test_scaled_gradients_are_reported_unscaled() -> None:
    for name in ("amp_plain", "amp_fused"):
        _, rows = trained(name, steps=2)
        torch.manual_seed(3)
        oracle = zoo.mlp()
        for row in rows[:1]:
            oracle(torch.randn(8, 6)).square().mean().backward()
            for path, parameter in oracle.named_parameters():
                right = float(parameter.grad.norm())  # type: ignore[union-attr]
                found = values(row.parameters)
                assert math.isclose(found["grad_norm", path], right, rel_tol=1e-3)
                assert math.isclose(found["grad_norm_clipped", path], right, rel_tol=1e-3)
            assert row.scalars["grad_scale"] == 1024.0


def test_the_scaler_is_found_without_being_told() -> None:
    torch.manual_seed(3)
    case = ZOO["amp_plain"]()
    observer, listening = observe(case)
    for _ in range(2):
        case.iterate()
    observer.close()
    assert [row.scalars["grad_scale"] for row in listening.rows] == [1024.0, 1024.0]
    assert listening.rows[0].scalars["clipped"] == 0.0


def test_skipped_steps_are_marked() -> None:
    for name in ("amp_plain", "amp_fused"):
        torch.manual_seed(3)
        case = ZOO[name]()
        observer, listening = observe(case, scaler=case.scaler)
        for _ in range(5):
            case.iterate()
        observer.close()
        marked = len(listening.skips) + sum(bool(row.skipped) for row in listening.rows)
        assert marked == 1, name
        assert not any(row.onset and row.onset.where == "gradient" for row in listening.rows)


def test_a_closure_is_measured_at_its_last_evaluation() -> None:
    _, rows = trained("lbfgs", steps=2)
    assert len(rows) == 2
    assert rows[-1].scalars["total_grad_norm"] > 0
    assert "clipped_grad_norm" in rows[-1].scalars


def test_two_optimizers_own_their_parameters() -> None:
    torch.manual_seed(3)
    case = ZOO["gan"]()
    generator, critic = case.model["generator"], case.model["critic"]  # type: ignore[index]
    seen: dict[str, float] = {}

    def note(prefix: str, module: nn.Module) -> None:
        for name, p in module.named_parameters():
            seen[f"{prefix}.{name}"] = float(p.grad.norm())  # type: ignore[union-attr]

    case.optimizers[0].register_step_pre_hook(lambda *_: note("critic", critic))
    case.optimizers[1].register_step_pre_hook(lambda *_: note("generator", generator))
    observer, listening = observe(case)
    case.iterate()
    case.optimizers[0].register_step_pre_hook(lambda *_: None)
    expected_generator = {k: v for k, v in seen.items() if k.startswith("generator")}
    case.iterate()
    observer.close()
    found = values(listening.rows[1].parameters)
    for name, value in seen.items():
        right = expected_generator.get(name, value)
        assert math.isclose(found["grad_norm", name], right, rel_tol=1e-4), name


def test_passes_of_autograd_grad_do_not_count() -> None:
    for name in ("gradient_penalty", "adversarial"):
        _, rows = trained(name)
        assert [row.scalars["backward_passes"] for row in rows] == [1.0] * STEPS, name


def test_sparse_gradients_have_norms() -> None:
    _, rows = trained("sparse_gradients")
    found = values(rows[1].parameters)
    assert found["grad_norm", "table.weight"] > 0
    assert found["update_ratio", "table.weight"] > 0


def test_replaced_parameters_are_followed() -> None:
    case, rows = trained("assigned_mid_run", steps=120)
    found = values(rows[-1].parameters)
    for name, parameter in case.model.named_parameters():
        assert math.isclose(found["weight_norm", name], float(parameter.norm()), rel_tol=1e-3)
        assert found["grad_norm", name] > 0
