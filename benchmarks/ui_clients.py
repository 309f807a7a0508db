"""Tabs without a browser: sockets that subscribe to eight charts and acknowledge every frame.

python benchmarks/ui_clients.py PORT TOKEN RUN COUNT
"""

from __future__ import annotations

import asyncio
import json
import sys

import websockets

from inspector.charts.specs import lines, to_dict

QUANTITIES = ("clock", "loss", "lr", "total_grad_norm", "clipped_grad_norm",
              "total_update_ratio", "step_time", "memory")  # fmt: skip


async def tab(port: str, token: str, run: str) -> None:
    origin = f"http://127.0.0.1:{port}"
    headers = {"Cookie": f"torch-inspector-{port}={token}"}
    charts = [to_dict(lines(quantity)) for quantity in QUANTITIES]
    async with websockets.connect(
        f"ws://127.0.0.1:{port}/live", origin=origin, additional_headers=headers, max_size=None
    ) as socket:
        subscription = {"type": "subscribe", "id": "b", "run": run, "charts": charts}
        await socket.send(json.dumps(subscription))
        async for _ in socket:
            await socket.send('{"type": "ack"}')


async def main(port: str, token: str, run: str, count: str) -> None:
    await asyncio.gather(*(tab(port, token, run) for _ in range(int(count))))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
