"""One of two ranks of a training with sharded parameters: ``sharded_program.py RANK FOLDER``.

It trains twins, one of them watched, and leaves in ``FOLDER/found-RANK.json`` whether they are
the same, and the gradient norm of all ranks together at each step, before and after clipping.
"""

import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import inspector

STEPS = 12
Found = dict[str, list[float]]


def train(folder: Path | None, found: Found) -> list[torch.Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Dropout(0.2), nn.Linear(16, 1))
    mesh = init_device_mesh("cpu", (2,))
    for part in (model[0], model[3], model):
        fully_shard(part, mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    watch = folder and inspector.watch(
        model, optimizer, run_dir=folder / "runs", name="job", every=1
    )
    torch.manual_seed(dist.get_rank())
    for _ in range(STEPS):
        loss = nn.functional.mse_loss(model(torch.randn(16, 8)), torch.randn(16, 1))
        if watch:
            watch.record(loss=loss)
        optimizer.zero_grad()
        loss.backward()
        before = nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        found["before"].append(float(before.full_tensor()))  # type: ignore[attr-defined]
        optimizer.step()
    if watch:
        watch.close()
    return [p.full_tensor().detach() for p in model.parameters()]  # type: ignore[attr-defined]


def main() -> None:
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    bare, watched = {"before": []}, {"before": []}  # type: ignore[var-annotated]
    weights = train(None, bare), train(folder, watched)
    same = all(map(torch.equal, *weights)) and bare == watched
    (folder / f"found-{rank}.json").write_text(json.dumps({"same": same, **bare}))
    dist.barrier()
    os._exit(0)  # an interpreter that ends with gloo's threads may abort


main()
