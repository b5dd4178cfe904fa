"""`make screenshots`: the live page for docs/images, of a real server with cameras that do well and ill.

python -m tests.heavy.browser.screenshots FOLDER
"""

import asyncio
import contextlib
import socket
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

import forebay
import forebay.aio
from forebay_server.bench.server_process import running_server
from tests.rpc.test_detector import as_jpeg, clip
from tests.support.browser import Browser

SETTLE_S = 45.0  # for curves with something in them
COLOURS = 255  # of a picture of the page: a third of the size, and no difference to see
SHOTS = (
    ("live-light", (1200, 1700), "light"),
    ("live-dark", (1200, 1700), "dark"),
    ("live-phone-light", (390, 900), "light"),
    ("live-phone-dark", (390, 900), "dark"),
)


@dataclass(frozen=True)
class Scene:
    """A camera: `frames` is how many it sends before it falls silent or goes away; None for all the time."""

    name: str
    model: str
    fps: float
    budget_ms: float
    frames: int | None = None
    goes_away: bool = False
    allows_picture: bool = False


SCENES = (
    Scene("gate north", "detector", 3, 1000, allows_picture=True),
    Scene("gate south", "detector", 3, 1000),
    Scene("roof", "detector", 3, 15),  # late: one frame alone takes longer
    Scene("lobby", "faces", 10, 200),
    Scene("dock 1", "faces", 10, 200),
    Scene("dock 2", "faces", 10, 200),
    Scene("yard", "faces", 10, 200, frames=50),  # falls silent
    Scene("dock 3", "faces", 10, 200, frames=50, goes_away=True),
)


async def play(client, scene, pictures):
    """Send frames until this is cancelled."""
    stream = client.stream(
        scene.name,
        model=scene.model,
        encoding="jpeg",
        delivery="latest",
        budget_ms=scene.budget_ms,
        allow_picture=scene.allows_picture,
    )
    await stream.open()

    async def read():
        async for _ in stream:
            pass

    reading = asyncio.create_task(read())
    try:
        sent = 0
        while scene.frames is None or sent < scene.frames:
            await stream.send(pictures[(sent + len(scene.name)) % len(pictures)])
            sent += 1
            await asyncio.sleep(1 / scene.fps)
        if not scene.goes_away:
            await asyncio.Event().wait()
    finally:
        reading.cancel()
        await stream.abort()


async def shoot(browser, page, folder):
    """Take every picture of the page, and the latest picture of a camera."""
    await asyncio.to_thread(browser.look, 1200, 900)
    await asyncio.to_thread(browser.open, page)
    await asyncio.sleep(SETTLE_S)
    for name, size, scheme in SHOTS:
        await asyncio.to_thread(browser.look, *size, scheme)
        await asyncio.sleep(1.5)
        await asyncio.to_thread(keep, browser, folder / f"{name}.png")
    for scheme in ("light", "dark"):
        await asyncio.to_thread(browser.look, 1000, 760, scheme)
        browser.evaluate("[...document.querySelectorAll('#rows button')].find((each) => !each.hidden).click()")
        text = "document.getElementById('picture-text').textContent"
        await asyncio.to_thread(browser.wait_for, f"{text}.includes('person')")
        await asyncio.sleep(1.5)
        browser.evaluate("document.getElementById('cameras').scrollIntoView()")
        await asyncio.to_thread(keep, browser, folder / f"live-picture-{scheme}.png")
        await asyncio.to_thread(browser.press, "Escape")
    assert browser.complaints() == []


def keep(browser, path):
    """Write a screenshot with few colours."""
    browser.screenshot(path)
    with Image.open(path) as picture:
        small = picture.convert("RGB").quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    small.save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} KB")  # noqa: T201


async def main(folder):
    """Start the server and the cameras, and take the pictures."""
    pictures = [as_jpeg(pixels) for pixels in clip()]
    with socket.create_server(("127.0.0.1", 0)) as free:
        admin = f"127.0.0.1:{free.getsockname()[1]}"
    flags, environment = ("--admin-address", admin), {"FOREBAY_ALLOW_PICTURES": "true"}
    with (
        tempfile.TemporaryDirectory() as profile,
        running_server(None, *flags, environment=environment) as server,
    ):
        browser = Browser(Path(profile))
        async with forebay.aio.Client(server.address) as client:
            playing = [asyncio.create_task(play(client, scene, pictures)) for scene in SCENES]
            try:
                await shoot(browser, f"http://{admin}/", folder)
            finally:
                browser.close()
                for task in playing:
                    task.cancel()
                with contextlib.suppress(forebay.ForebayError, asyncio.CancelledError):
                    await asyncio.gather(*playing)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
