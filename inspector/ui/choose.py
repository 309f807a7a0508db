"""The form that makes a configuration: model, data, optimizer, length, seed, device."""

from __future__ import annotations

import dataclasses
from typing import Any

import streamlit as st

from inspector import catalog
from inspector.config import LOSSES, OPTIMIZER_TITLES, OPTIMIZERS, RunConfig
from inspector.errors import InspectorError
from inspector.ui.context import escape
from inspector.ui.fields import collecting, number_field
from inspector.ui.own import OWN
from inspector.ui.own.augment import augment_fields
from inspector.ui.own.check import check_panel
from inspector.ui.own.data import data_fields
from inspector.ui.own.model import model_fields
from inspector.ui.own.settings import settings_fields
from inspector.ui.own.torchvision_data import torchvision_fields
from inspector.ui.practices import practice_fields

_DEVICES = ("auto", "cpu", "cuda", "mps")


def choose(config: RunConfig) -> RunConfig | None:
    """The configuration as filled in, or None while a value cannot be used (the form says why)."""
    with collecting() as refused:
        made = _filled(config)
    if made is None or refused:
        return None
    misfit = catalog.fits(made.model, made.data)
    if misfit:
        st.warning(escape(misfit), icon=":material/info:")
    check_panel(made)
    return made


def _filled(config: RunConfig) -> RunConfig | None:
    # A new version gives all widgets new keys, so that a loaded preset fills them afresh.
    version = st.session_state.get("draft_version", 0)
    what, how, where = st.columns(3, gap="medium")
    with what:
        fields = _what(config, version)
    with how:
        fields |= _how(config, version)
    with where:
        fields |= _where(config, version)
    try:
        complete = _own(config, fields, version)
        with st.expander("More: weights, task, split, loading", icon=":material/more_horiz:"):
            fields |= settings_fields(config, version)
        if not complete:
            return None
        made = dataclasses.replace(config, **_forgotten(config, fields), **fields)
        practices = practice_fields(made, version)
        if practices is None:
            return None
        made = dataclasses.replace(made, **practices)
        return dataclasses.replace(made, **augment_fields(made, version))
    except InspectorError as error:
        st.error(escape(str(error)), icon=":material/block:")
        return None


def _forgotten(config: RunConfig, fields: dict[str, Any]) -> dict[str, Any]:
    """Settings that belonged to another optimizer, loss or model."""
    gone: dict[str, Any] = {}
    if fields["optimizer"] != config.optimizer:
        gone["optimizer_args"] = {}
    if fields["loss"] != config.loss:
        gone["loss_args"] = {}
    if fields["model"] != config.model:
        gone |= {"param_groups": [], "init": {}}
        fields["controls"] = dataclasses.replace(fields["controls"], frozen=(), eval_modules=())
    return gone


def _own(config: RunConfig, fields: dict[str, Any], version: int) -> bool:
    """Fills in a model and data of the user's own; False while something is missing."""
    code = config.code
    complete = True
    if fields["model"] == OWN:
        made = model_fields(config, version)
        complete = made is not None
        fields |= made or {}
        code = fields.get("code", code)
    if fields["data"].startswith("torchvision:"):
        fields |= torchvision_fields(config, fields["data"], version)
    if fields["data"] == OWN:
        given = data_fields(config, code, version)
        complete = complete and given is not None
        fields |= given or {}
    if not any(fields[part].startswith("code:") for part in ("model", "data")):
        fields["code"] = ""
    return complete


def _what(config: RunConfig, version: int) -> dict[str, Any]:
    models = [OWN, *catalog.MODELS, *(f"torchvision:{name}" for name in catalog.TORCHVISION)]
    current = OWN if catalog.is_own(config.model) else config.model
    model = st.selectbox(
        "Model",
        models if current in models else [*models, current],
        index=models.index(current) if current in models else len(models),
        format_func=_title,
        key=f"model/{version}",
        help="A sample model, your own, or one of torchvision's classifiers: type to find it.",
    )
    sources = [OWN, *catalog.DATA, *(f"torchvision:{name}" for name in catalog.TORCHVISION_DATA)]
    loaded = OWN if catalog.is_own(config.data) else config.data
    data = st.selectbox(
        "Data",
        sources if loaded in sources else [*sources, loaded],
        index=sources.index(loaded) if loaded in sources else len(sources),
        format_func=_title,
        accept_new_options=True,
        key=f"data/{version}",
        help="A built-in source, your own, or torchvision:NAME for any of torchvision.datasets "
        "whose targets are classes, such as torchvision:Food101.",
    )
    data = _meant(data, sources)
    source = catalog.DATA.get(data)
    if source:
        size = f" Fetches {source.download_bytes / 1e6:.0f} MB once."
        st.caption(source.about + size * bool(source.download_bytes))
    validation = st.slider(
        "Held out for validation", 0.0, 0.9, config.validation, 0.05, key=f"validation/{version}"
    )
    kept = {"model_args": config.model_args} if model == config.model else {"model_args": {}}
    kept |= {"data_args": config.data_args} if data == config.data else {"data_args": {}}
    return {"model": model, "data": data, "validation": validation, **kept}


def _how(config: RunConfig, version: int) -> dict[str, Any]:
    optimizer = st.selectbox(
        "Optimizer",
        OPTIMIZERS,
        index=OPTIMIZERS.index(config.optimizer),
        format_func=lambda name: OPTIMIZER_TITLES[name],
        key=f"optimizer/{version}",
    )
    lr = number_field(
        "Learning rate", float(config.lr), least=0.0, format="%.6g", key=f"lr/{version}"
    )
    momentum = number_field(
        "Momentum",
        float(config.momentum),
        least=0.0,
        most=0.999,
        key=f"momentum/{version}",
        help="For Adam and AdamW this is β₁, and 0 means PyTorch's default of 0.9.",
    )
    decay = number_field(
        "Weight decay", float(config.weight_decay), least=0.0, format="%.6g", key=f"decay/{version}"
    )
    loss = st.selectbox(
        "Loss",
        LOSSES,
        index=LOSSES.index(config.loss),
        format_func=lambda name: "suited to the task" if name == "auto" else name,
        key=f"loss/{version}",
    )
    return {
        "optimizer": optimizer,
        "lr": lr,
        "momentum": momentum,
        "weight_decay": decay,
        "loss": loss,
    }


def _where(config: RunConfig, version: int) -> dict[str, Any]:
    batch = number_field("Batch size", config.batch_size, least=1, key=f"batch/{version}")
    by_steps = st.segmented_control(
        "Length in",
        ["epochs", "steps"],
        default="steps" if config.steps else "epochs",
        required=True,
        key=f"unit/{version}",
    )
    length = number_field(
        by_steps.capitalize(),
        (config.steps or 1000) if by_steps == "steps" else config.epochs,
        least=1,
        key=f"{by_steps}/{version}",
    )
    seed = number_field("Seed", config.seed, least=0, key=f"seed/{version}")
    device = st.selectbox(
        "Device",
        _DEVICES if config.device in _DEVICES else (*_DEVICES, config.device),
        index=_DEVICES.index(config.device) if config.device in _DEVICES else len(_DEVICES),
        key=f"device/{version}",
        help="auto takes CUDA when there is one, else MPS, else the CPU.",
    )
    child = st.toggle(
        "Train in a process of its own",
        not config.in_process,
        key=f"child/{version}",
        help="A crash of the training then leaves the app alive. Recommended with CUDA.",
    )
    pause = st.toggle(
        "Pause at the first NaN or infinity",
        config.controls.on_nonfinite == "pause",
        key=f"pause/{version}",
    )
    on_steps = by_steps == "steps"
    return {
        "batch_size": batch,
        "steps": length if on_steps else None,
        "epochs": config.epochs if on_steps else length,
        "seed": seed,
        "device": device,
        "in_process": not child,
        "controls": dataclasses.replace(
            config.controls, on_nonfinite="pause" if pause else "continue"
        ),
    }


def _meant(typed: str, options: list[str]) -> str:
    """The option whose title begins with what was typed; otherwise the text as it is."""
    if typed in options:
        return typed
    start = typed.strip().casefold()
    return next((one for one in options if _title(one).casefold().startswith(start)), typed)


def _title(name: str) -> str:
    if name == OWN:
        return "Your own …"
    known = catalog.MODELS.get(name) or catalog.DATA.get(name)
    return known.title if known else name
