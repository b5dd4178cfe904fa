"""A folder of JPEG files, each answered: asyncio, files sent unchanged, one JSON line for each.

    python examples/folder.py pictures/ --server 127.0.0.1:8001 > found.jsonl

With `delivery="every"` nothing is replaced and `send` waits for room; should the server go away for a moment, frames
without an answer are sent again.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import forebay
import forebay.aio


async def run(folder: Path, server: str) -> None:
    """Send every file and print every result."""
    paths = sorted([*folder.glob("*.jpg"), *folder.glob("*.jpeg")])
    if not paths:
        sys.exit(f"{folder} has no .jpg or .jpeg files")

    async def files() -> AsyncIterator[bytes]:
        for path in paths:
            yield await asyncio.to_thread(path.read_bytes)

    async with forebay.aio.Client(server) as client:
        stream = client.stream(folder.name or "folder", model="detector", encoding="jpeg", delivery="every")
        async for result in stream.map(files()):
            name = paths[result.seq - 1].name  # a stream numbers its frames from 1
            found = [{"label": item.label, "score": round(item.score, 3)} for item in result.detections]
            line = {"file": name, "status": result.status.value, "message": result.message, "found": found}
            print(json.dumps(line))
        await stream.close()


def main(arguments: list[str] | None = None) -> None:
    """Read the flags and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--server", default="127.0.0.1:8001")
    options = parser.parse_args(arguments)
    try:
        asyncio.run(run(options.folder, options.server))
    except forebay.ForebayError as error:  # no such model, no server, no permission
        sys.exit(str(error))


if __name__ == "__main__":
    main()
