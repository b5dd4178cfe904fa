"""The client for asyncio: the same methods as the synchronous client, awaited.

async with forebay.aio.Client("127.0.0.1:8001") as client:
    async with client.stream("door", model="detector", encoding="bgr8") as stream:
        await stream.send(frame)
        result = await stream.receive()
"""

from forebay.client.asynchronous import Client, Stream

__all__ = ["Client", "Stream"]
