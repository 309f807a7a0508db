"""Models of timm and Hugging Face transformers, made from small configurations.

Nothing is downloaded. ``uv sync --group zoo`` brings the two libraries, and
``uv run pytest -m slow tests/capture/test_breadth_libraries.py`` runs the tests.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from breadth import program, prove
from torch import Tensor, nn
from torch.nn import functional as F
from zoo import Case

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.usefixtures("one_thread"),  # or two bare runs differ in a gather's gradient
]

MISSING = "not installed; 'uv sync --group zoo' brings it"
CLASSES = 4

# Name of a timm model: its arguments, and the side of its images.
VIT = {"embed_dim": 32, "depth": 2, "num_heads": 2}
TIMM: dict[str, tuple[dict[str, Any], int]] = {
    "test_byobnet": ({}, 96),
    "test_convnext": ({}, 96),
    "test_convnext2": ({}, 96),
    "test_convnext3": ({}, 96),
    "test_efficientnet": ({}, 96),
    "test_efficientnet_evos": ({}, 96),
    "test_efficientnet_gn": ({}, 96),
    "test_efficientnet_ln": ({}, 96),
    "test_mambaout": ({}, 96),
    "test_nfnet": ({}, 96),
    "test_resnet": ({}, 96),
    "test_vit": ({}, 160),
    "test_vit2": ({}, 160),
    "test_vit3": ({}, 160),
    "test_vit4": ({}, 160),
    "beit_base_patch16_224": (VIT | {"img_size": 32}, 32),
    "cait_xxs24_224": (VIT | {"img_size": 32}, 32),
    "convmixer_768_32": ({}, 64),
    "cspresnet50": ({}, 64),
    "deit_tiny_distilled_patch16_224": (VIT | {"img_size": 32}, 32),
    "densenet121": ({"block_config": (2, 2), "growth_rate": 8}, 64),
    "dla34": ({}, 64),
    "dpn48b": ({}, 64),
    "edgenext_xx_small": ({}, 64),
    "eva02_tiny_patch14_224": (VIT | {"img_size": 28}, 28),
    "fastvit_t8": ({}, 64),
    "focalnet_tiny_srf": ({}, 64),
    "ghostnet_050": ({}, 64),
    "hgnetv2_b0": ({}, 64),
    "hrnet_w18_small": ({}, 64),
    "inception_next_atto": ({}, 64),
    "levit_128s": ({}, 224),
    "lcnet_050": ({}, 64),
    "mixer_s32_224": ({"img_size": 64}, 64),
    "mobilenetv4_conv_small": ({}, 64),
    "mobilevit_xxs": ({}, 64),
    "mvitv2_tiny": ({"img_size": 64}, 64),
    "poolformer_s12": ({}, 64),
    "pvt_v2_b0": ({}, 64),
    "regnetx_002": ({}, 64),
    "repvgg_a0": ({}, 64),
    "res2net50_14w_8s": ({}, 64),
    "resnest14d": ({}, 64),
    "rexnet_100": ({}, 64),
    "sequencer2d_s": ({"layers": (1, 1, 1, 1), "embed_dims": (16, 32, 32, 32)}, 224),
    "skresnet18": ({}, 64),
    "swin_tiny_patch4_window7_224": ({"embed_dim": 24, "depths": (1, 1, 2, 1)}, 224),
    "swinv2_cr_tiny_ns_224": ({"embed_dim": 24, "depths": (1, 1, 2, 1)}, 224),
    "tiny_vit_5m_224": ({}, 224),
    "twins_pcpvt_small": ({}, 64),
    "visformer_tiny": ({}, 224),
    "volo_d1_224": ({}, 224),
    "xcit_nano_12_p16_224": ({"depth": 2}, 64),
}

# Model type of transformers: head class, its configuration, and what is fed.
WIDTH = 32
BERT = {
    "hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 48, "vocab_size": 64, "max_position_embeddings": 64,
}  # fmt: skip
LLAMA = BERT | {"num_key_value_heads": 1, "head_dim": 16}
SEQUENCE = {
    "d_model": WIDTH, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "vocab_size": 64,
    "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "decoder_start_token_id": 1,
}  # fmt: skip
T5 = {
    "d_model": WIDTH, "d_kv": 16, "d_ff": 48, "num_layers": 2, "num_heads": 2, "vocab_size": 64,
    "decoder_start_token_id": 0,
}  # fmt: skip
IMAGE = {
    "hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 48, "image_size": 32, "patch_size": 8,
}  # fmt: skip
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
TRANSFORMERS: dict[str, tuple[str, dict[str, Any], str]] = {
    "albert": ("MaskedLM", BERT | {"embedding_size": 16}, "text"),
    "bert": ("MaskedLM", BERT, "text"),
    "distilbert": ("MaskedLM", {"dim": WIDTH, "n_layers": 2, "n_heads": 2, "hidden_dim": 48,
                                "vocab_size": 64}, "text"),
    "electra": ("MaskedLM", BERT | {"embedding_size": 16}, "text"),
    "deberta-v2": ("MaskedLM", BERT | {"relative_attention": True, "pos_att_type": "p2c|c2p"},
                   "text"),
    "fnet": ("MaskedLM", BERT, "text"),
    "funnel": ("MaskedLM", {"d_model": WIDTH, "n_head": 2, "d_head": 16, "d_inner": 48,
                            "block_sizes": [1, 1], "vocab_size": 64}, "text"),
    "modernbert": ("MaskedLM", BERT | {"pad_token_id": 0}, "text"),
    "roberta": ("MaskedLM", BERT | {"max_position_embeddings": 80}, "text"),
    "roformer": ("MaskedLM", BERT, "text"),
    "gpt2": ("CausalLM", {"n_embd": WIDTH, "n_layer": 2, "n_head": 2, "vocab_size": 64}, "text"),
    "gpt_neo": ("CausalLM", {"hidden_size": WIDTH, "num_layers": 2, "num_heads": 2,
                             "attention_types": [[["global", "local"], 1]], "vocab_size": 64},
                "text"),
    "gpt_neox": ("CausalLM", BERT, "text"),
    "bloom": ("CausalLM", {"hidden_size": WIDTH, "n_layer": 2, "n_head": 2, "vocab_size": 64},
              "text"),
    "falcon": ("CausalLM", BERT, "text"),
    "gemma2": ("CausalLM", LLAMA, "text"),
    "gpt_oss": ("CausalLM", LLAMA | {"num_local_experts": 4, "num_experts_per_tok": 2}, "text"),
    "granitemoe": ("CausalLM", LLAMA | {"num_local_experts": 4, "num_experts_per_tok": 2}, "text"),
    "llama": ("CausalLM", LLAMA, "text"),
    "mamba": ("CausalLM", {"hidden_size": WIDTH, "num_hidden_layers": 2, "state_size": 4,
                           "vocab_size": 64}, "text"),
    "mistral": ("CausalLM", LLAMA, "text"),
    "mixtral": ("CausalLM", LLAMA | {"num_local_experts": 4, "num_experts_per_tok": 2}, "text"),
    "opt": ("CausalLM", {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2,
                         "ffn_dim": 48, "vocab_size": 64, "word_embed_proj_dim": 16}, "text"),
    "phi3": ("CausalLM", LLAMA | {"pad_token_id": 0}, "text"),
    "qwen2": ("CausalLM", LLAMA, "text"),
    "qwen3_moe": ("CausalLM", LLAMA | MOE, "text"),
    "rwkv": ("CausalLM", {"hidden_size": WIDTH, "num_hidden_layers": 2, "vocab_size": 64}, "text"),
    "xlnet": ("CausalLM", {"d_model": WIDTH, "n_layer": 2, "n_head": 2, "d_inner": 48,
                           "vocab_size": 64}, "text"),
    "bart": ("Seq2SeqLM", SEQUENCE, "text"),
    "marian": ("Seq2SeqLM", SEQUENCE, "text"),
    "pegasus": ("Seq2SeqLM", SEQUENCE, "text"),
    "t5": ("Seq2SeqLM", T5, "text"),
    "switch_transformers": ("Seq2SeqLM", T5 | {"num_experts": 2, "num_sparse_encoder_layers": 1,
                                               "num_sparse_decoder_layers": 1}, "text"),
    "beit": ("ImageClassification", IMAGE, "image"),
    "convnext": ("ImageClassification", {"hidden_sizes": [8, 16, 16, 32], "depths": [1] * 4},
                 "image"),
    "deit": ("ImageClassification", IMAGE, "image"),
    "dinov2": ("ImageClassification", IMAGE, "image"),
    "levit": ("ImageClassification", {"image_size": 64, "hidden_sizes": [16, 32, 32],
                                      "num_attention_heads": [2, 2, 2], "depths": [1, 1, 1],
                                      "key_dim": [8, 8, 8]}, "image64"),
    "mobilenet_v2": ("ImageClassification", {"depth_multiplier": 0.25}, "image64"),
    "poolformer": ("ImageClassification", {"hidden_sizes": [8, 16, 16, 32], "depths": [1] * 4},
                   "image64"),
    "regnet": ("ImageClassification", {"embedding_size": 8, "hidden_sizes": [8, 16, 16, 32],
                                       "depths": [1] * 4, "groups_width": 8}, "image"),
    "resnet": ("ImageClassification", {"embedding_size": 8, "hidden_sizes": [8, 16, 16, 32],
                                       "depths": [1] * 4}, "image"),
    "swin": ("ImageClassification", {"image_size": 32, "patch_size": 2, "embed_dim": 8,
                                     "depths": [1, 2], "num_heads": [2, 2], "window_size": 4},
             "image"),
    "vit": ("ImageClassification", IMAGE, "image"),
    "segformer": ("SemanticSegmentation", {"hidden_sizes": [8, 16, 16, 32], "depths": [1] * 4,
                                           "decoder_hidden_size": 16}, "mask"),
    "wav2vec2": ("AudioClassification", {"hidden_size": WIDTH, "num_hidden_layers": 2,
                                         "num_attention_heads": 2, "intermediate_size": 48,
                                         "conv_dim": [8, 8], "conv_stride": [5, 2],
                                         "conv_kernel": [10, 3], "mask_time_prob": 0.0,
                                         "num_conv_pos_embeddings": 8,
                                         "num_conv_pos_embedding_groups": 2}, "sound"),
}  # fmt: skip


def _class_loss(model: nn.Module, side: int) -> Tensor:
    outputs = model(torch.randn(2, 3, side, side))
    parts = outputs if isinstance(outputs, tuple) else (outputs,)
    targets = torch.randint(CLASSES, (2,))
    return torch.stack([F.cross_entropy(part, targets) for part in parts]).sum()


def timm_case(name: str) -> Case:
    import timm

    options, side = TIMM[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = timm.create_model(name, pretrained=False, num_classes=CLASSES, **options)
    return program(model, lambda model: _class_loss(model, side))


def _batch(fed: str) -> dict[str, Tensor]:
    if fed == "text":
        tokens = torch.randint(3, 64, (2, 12))
        return {"input_ids": tokens, "labels": tokens.clone()}
    if fed == "sound":
        return {"input_values": torch.randn(2, 800), "labels": torch.randint(CLASSES, (2,))}
    side = 64 if fed in ("image64", "mask") else 32
    images = torch.randn(2, 3, side, side)
    shape = (2, side, side) if fed == "mask" else (2,)
    return {"pixel_values": images, "labels": torch.randint(CLASSES, shape)}


def transformers_case(kind: str) -> Case:
    os.environ["HF_HUB_OFFLINE"] = "1"
    import transformers

    head, options, fed = TRANSFORMERS[kind]
    config = transformers.AutoConfig.for_model(kind, **options, num_labels=CLASSES)
    config.architectures = []  # None is not expected where a type has two heads of a kind
    model = getattr(transformers, f"AutoModelFor{head}").from_config(config)

    def loss(model: nn.Module) -> Tensor:
        result: Tensor = model(**_batch(fed)).loss
        return result

    return program(model, loss)


@pytest.mark.parametrize("name", sorted(TIMM))
def test_timm_models_are_watched_exactly(name: str, tmp_path: Path) -> None:
    pytest.importorskip("timm", reason=f"timm is {MISSING}")
    _prove(lambda: timm_case(name), tmp_path)


@pytest.mark.parametrize("kind", sorted(TRANSFORMERS))
def test_transformers_models_are_watched_exactly(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason=f"transformers is {MISSING}")
    _prove(lambda: transformers_case(kind), tmp_path)


def _prove(build: Callable[[], Case], path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prove(build, path)
