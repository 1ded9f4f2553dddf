"""Reads exported files with other people's readers, and compares what they read.

    read.py CASE.json     paths and expectations, as tests/it/export.rs writes them

Everything is compared to the bit, but for TensorBoard's numbers, which are f32. Ends at the first difference.
"""

import ast
import csv
import json
import pathlib
import re
import sys

import numpy as np
import safetensors
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tokenizers import Tokenizer


def tensors(folder):
    """Every tensor of a folder by its name: type, sizes and bytes."""
    found = {}
    for path in sorted(pathlib.Path(folder).glob("*.safetensors")):
        for name, tensor in safetensors.deserialize(path.read_bytes()):
            assert name not in found, f"{name} comes twice"
            found[name] = (tensor["dtype"], list(tensor["shape"]), bytes(tensor["data"]))
    return found


def floats(tensor):
    dtype, shape, data = tensor
    if dtype == "BF16":
        values = (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32)
    else:
        values = np.frombuffer(data, {"F32": np.float32, "F16": np.float16}[dtype]).astype(np.float32)
    return values.reshape(shape)


def bf16(values):
    """Rounded to nearest, ties to even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16).tobytes()


def whole_model(case):
    """A Hugging Face folder, in shards: what its index says, and the weights of the policy as they are stored."""
    folder = pathlib.Path(case["hf"])
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 1, "the weights were to be cut"
    for name, file in index["weight_map"].items():
        with safetensors.safe_open(folder / file, framework="np") as opened:
            assert name in opened.keys() and opened.metadata() == {"format": "pt"}
            opened.get_tensor(name)
    found = tensors(folder)
    assert sum(len(data) for _, _, data in found.values()) == index["metadata"]["total_size"]
    stored = {name: (t["dtype"], list(t["shape"]), bytes(t["data"]))
              for name, t in safetensors.deserialize(pathlib.Path(case["stored"]).read_bytes())}
    assert found == stored
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == "llada"
    assert found["model.transformer.wte.weight"][1] == [config["embedding_size"], config["d_model"]]
    special = json.loads((folder / "special_tokens_map.json").read_text())
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert tokenizer.token_to_id(special["mask_token"]) == config["mask_token_id"]
    assert tokenizer.token_to_id(special["eos_token"]) == config["eos_token_id"]


def tokenizers(case):
    for file, texts in case["texts"].items():
        tokenizer = Tokenizer.from_file(file)
        for text, ids in texts:
            assert tokenizer.encode(text, add_special_tokens=False).ids == ids, text
            assert tokenizer.decode(ids, skip_special_tokens=False) == text, text


def fields(path, *classes):
    """The annotated fields of dataclasses, read from their source."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name in classes:
            yield from (item.target.id for item in node.body if isinstance(item, ast.AnnAssign))


def adapter(case):
    """PEFT's two files by PEFT's own source: settings that LoraConfig has, files and tensors by its names."""
    peft = pathlib.Path(case["packages"]) / "peft"
    folder = pathlib.Path(case["peft"])
    constants = (peft / "utils/constants.py").read_text()
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert f'"{name}"' in constants and (folder / name).is_file()
    known = {*fields(peft / "config.py", "PeftConfigMixin", "PeftConfig"),
             *fields(peft / "tuners/lora/config.py", "LoraConfig")}
    assert {"r", "lora_alpha", "target_modules", "base_model_name_or_path"} <= known
    settings = json.loads((folder / "adapter_config.json").read_text())
    assert settings.keys() <= known, settings.keys() - known
    assert settings["peft_type"] in re.findall(r'= "(\w+)"', (peft / "utils/peft_types.py").read_text())
    assert settings["base_model_name_or_path"] == case["base_name"]
    # What PEFT saves lies below its wrapper's name; what it adapts matches its rule for a text.
    modules = {re.fullmatch(r"base_model\.model\.(.*)\.lora_[AB]\.weight", key)[1] for key in tensors(folder)}
    base = {name.removesuffix(".weight") for name in tensors(case["base"])}
    assert modules == {name for name in base if re.fullmatch(settings["target_modules"], name)}


def merged(case):
    """W + alpha / r * B A in f32, over the rank in its order, rounded once; nothing else has changed."""
    before, after, low_rank = tensors(case["base"]), tensors(case["merged"]), tensors(case["peft"])
    settings = json.loads((pathlib.Path(case["peft"]) / "adapter_config.json").read_text())
    scale = np.float32(settings["lora_alpha"] / settings["r"])
    names = lambda folder: sorted(path.name for path in pathlib.Path(folder).glob("*.safetensors*"))
    assert names(case["base"]) == names(case["merged"])
    assert before.keys() == after.keys()
    changed = 0
    for name, tensor in before.items():
        stem = f"base_model.model.{name.removesuffix('.weight')}.lora_"
        if f"{stem}A.weight" not in low_rank:
            assert after[name] == tensor, name
            continue
        a, b = floats(low_rank[f"{stem}A.weight"]), floats(low_rank[f"{stem}B.weight"])
        total = np.zeros(tensor[1], np.float32)
        for r in range(settings["r"]):
            total += b[:, r:r + 1] * a[r:r + 1, :]
        assert tensor[0] == after[name][0] == "BF16"
        assert bf16(floats(tensor) + scale * total) == after[name][2], name
        changed += after[name] != tensor
    assert changed > 0, "no matrix has moved"


def events(case):
    """TensorBoard's scalars are the CSV's numbers, and so are W&B's rows."""
    with open(case["csv"], newline="") as file:
        rows = list(csv.DictReader(file))
    accumulator = EventAccumulator(case["tensorboard"], size_guidance={"scalars": 0})
    accumulator.Reload()
    expected = {}
    for row in rows:
        for column, text in row.items():
            if text and "/" in column:
                point = (float(row["unix_time"]), int(row["iteration"]), float(np.float32(text)))
                expected.setdefault(column, []).append(point)
    tags = {tag for tag in accumulator.Tags()["scalars"] if not tag.startswith("sft/")}
    assert tags == expected.keys(), tags ^ expected.keys()
    for tag, points in expected.items():
        found = [(event.wall_time, event.step, event.value) for event in accumulator.Scalars(tag)]
        assert found == points, tag
    assert {"train/reward", f"eval/accuracy@{case['steps']}"} <= tags
    with open(case["wandb"]) as file:
        history = [json.loads(line) for line in file]
    assert [row["_step"] for row in history] == [int(row["iteration"]) for row in rows]
    assert [row["_timestamp"] for row in history] == [float(row["unix_time"]) for row in rows]
    assert all(later["_runtime"] >= row["_runtime"] >= 0 for row, later in zip(history, history[1:]))
    for logged, row in zip(history, rows):
        metrics = {key: value for key, value in logged.items() if not key.startswith("_")}
        assert metrics == {key: float(text) for key, text in row.items() if text and "/" in key}


CASE = json.loads(pathlib.Path(sys.argv[1]).read_text())
for check in (whole_model, tokenizers, adapter, merged, events):
    check(CASE)
    print(check.__name__, "ok")
