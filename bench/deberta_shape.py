"""Writes a network of DeBERTa-v3-base's exact shape, with random weights, as ONNX in fp32.

    python bench/deberta_shape.py OUTPUT.onnx

Same operators, sizes and time as the classifiers built on it (LLM Guard's), and no sense in its
verdicts. Needs torch and transformers; some 3 GB of memory and half a minute.
"""

from __future__ import annotations

import sys
import warnings

SHAPE = {
    "vocab_size": 128100,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "max_position_embeddings": 512,
    "type_vocab_size": 0,
    "layer_norm_eps": 1e-7,
    "relative_attention": True,
    "max_relative_positions": -1,
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": "p2c|c2p",
    "position_biased_input": False,
    "pooler_hidden_size": 768,
    "pooler_hidden_act": "gelu",
    "pooler_dropout": 0,
    "num_labels": 2,
}
PARAMETERS = 184_423_682  # of deberta-v3-base with a head of two classes
TOLERANCE = 1e-3  # of the largest logit


def main(output: str) -> int:
    import numpy as np
    import onnxruntime
    import torch
    from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

    torch.manual_seed(0)
    model = DebertaV2ForSequenceClassification(DebertaV2Config(**SHAPE)).eval()
    found = sum(parameter.numel() for parameter in model.parameters())
    if found != PARAMETERS:
        raise RuntimeError(f"{found} parameters, DeBERTa-v3-base has {PARAMETERS}")
    ids = torch.randint(5, 30000, (1, 40))
    names = ["input_ids", "attention_mask"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing warns of what the check below covers
        torch.onnx.export(
            model,
            (ids, torch.ones_like(ids)),
            output,
            input_names=names,
            output_names=["logits"],
            dynamic_axes={name: {0: "batch", 1: "tokens"} for name in names},
            opset_version=17,
            dynamo=False,
        )
    session = onnxruntime.InferenceSession(output, providers=["CPUExecutionProvider"])
    for length in (3, 40, 300, 512):  # a traced graph may hold the length that it was traced at
        ids = torch.randint(5, 30000, (1, length))
        mask = torch.ones_like(ids)
        with torch.no_grad():
            expected = model(ids, mask).logits.numpy()
        (logits,) = session.run(None, dict(zip(names, (ids.numpy(), mask.numpy()), strict=True)))
        if not np.abs(logits - expected).max() < TOLERANCE * np.abs(expected).max():
            raise RuntimeError(f"the export differs from the model at {length} tokens")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
