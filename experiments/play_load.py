"""Loads the play page with many browsers and malformed messages, and measures frames per second and memory.

    python experiments/play_load.py --browsers 20 --seconds 60

Starts `run.py play --example cartpole`, opens sockets that receive every picture as the page does, sends 1,000
malformed and oversized messages at the same time, and prints pictures per second and the server's memory.
"""

import argparse
import asyncio
import json
import re
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import aiohttp

ROOT = Path(__file__).parents[1]
BAD = ["{", "null", '{"do": "dance"}', '{"do": "go", "to": -1}', '{"do": "hold", "action": [7]}', "x" * 100_000]


async def watch(client: aiohttp.ClientSession, url: str, seconds: float, speed: float) -> float:
    """Pictures per second of one browser."""
    async with client.ws_connect(url, max_msg_size=0) as socket:
        await socket.send_json({"do": "speed", "steps": speed})
        await asyncio.sleep(1)
        frames, begun = 0, time.monotonic()
        while time.monotonic() - begun < seconds:
            message = await socket.receive(timeout=10)
            if message.type is not aiohttp.WSMsgType.BINARY:
                continue
            frames += 1
            await socket.send_json({"do": "seen"})
            (length,) = (int.from_bytes(message.data[:4], "little"),)
            if not json.loads(message.data[4 : 4 + length])["running"]:  # the dream has ended: start another one
                await socket.send_json({"do": "begin"})
        return frames / (time.monotonic() - begun)


async def attack(client: aiohttp.ClientSession, url: str, messages: int) -> None:
    """Sends malformed messages, each over a separate socket."""
    for i in range(messages):
        async with client.ws_connect(url) as socket:
            await socket.send_str(BAD[i % len(BAD)])
            while not socket.closed:
                await socket.receive(timeout=10)


async def measure(address: str, given: argparse.Namespace, pid: int) -> None:
    """Runs the load and prints the results."""
    url = address.replace("http", "ws", 1) + "ws"

    async def remember() -> None:
        while True:
            print(f"{time.strftime('%H:%M:%S')} memory {memory_mb(pid):.0f} MB", flush=True)
            await asyncio.sleep(max(5.0, given.seconds / 10))

    async with aiohttp.ClientSession() as client:
        memory = asyncio.create_task(remember())
        jobs = [watch(client, url, given.seconds, given.speed) for _ in range(given.browsers)]
        rates, _ = await asyncio.gather(asyncio.gather(*jobs), attack(client, url, given.bad))
        memory.cancel()
        await watch(client, url, 1.0, given.speed)  # the server still answers
    print(
        f"{given.browsers} browsers, {given.speed:g} steps per second requested: {min(rates):.1f} pictures per second "
        f"at the worst, median {statistics.median(rates):.1f}; {given.bad} bad messages; {memory_mb(pid):.0f} MB."
    )


def memory_mb(pid: int) -> float:
    """Resident memory of a process (Linux)."""
    line = next(x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def main() -> None:
    """Starts the server, measures, stops it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--example", default="cartpole")
    parser.add_argument("--browsers", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--speed", type=float, default=12)
    parser.add_argument("--bad", type=int, default=1000)
    given = parser.parse_args()
    command = [sys.executable, str(ROOT / "run.py"), "play", "--example", given.example, "--port", "0", "--no-browser"]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    address = next(match[0] for line in server.stdout if (match := re.search(r"http://\S+", line)))
    next(line for line in server.stdout if line.startswith("Ready"))
    try:
        asyncio.run(measure(address, given, server.pid))
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)


if __name__ == "__main__":
    main()
