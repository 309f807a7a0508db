"""One of two ranks of a training: ``rank_program.py RANK FOLDER``.

It ends with its weights in ``FOLDER/weights-RANK.pt``.
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import inspector


def main() -> None:
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Dropout(0.2), nn.Linear(16, 1))
    wrapped = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    torch.manual_seed(rank)  # every rank has data and random numbers of its own
    x, y = torch.randn(64, 8), torch.randn(64, 1)
    watch = inspector.watch(wrapped, optimizer, run_dir=folder / "runs", name="job")
    with watch:
        while not watch.should_stop:
            loss = nn.functional.mse_loss(wrapped(x), y)
            watch.record(loss=loss)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    torch.save(model.state_dict(), folder / f"weights-{rank}.pt")
    dist.destroy_process_group()


main()
