"""The server of `forebay stream`: found, or started, when the first source can be read; one client for all cameras."""

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

import forebay
import forebay.aio
from forebay_server.service.cli.server_process import running_server

DEFAULT_MODEL = "detector"
CONNECT_TIMEOUT_S = 3.0  # a person waits


class StreamServer:
    """See the module. Owner: the event loop. Use it in `async with`.

    Args:
        address: host:port or unix:PATH, several with commas in between; None: start a server for these cameras.
        tls: None speaks plain text.
        model: the user's word; None: the server's only model, or the bundled detector.
        headers: of every call.
    """

    def __init__(
        self, address: str | None, tls: forebay.Tls | None, model: str | None, headers: Mapping[str, str]
    ) -> None:
        self._address = address
        self._tls = tls
        self._model = model
        self._headers = headers
        self._stack = AsyncExitStack()
        self._lock = asyncio.Lock()  # the first camera waits for the answer, the others for it
        self._client: forebay.aio.Client | None = None
        self._error: Exception | None = None

    async def connected(self) -> tuple[forebay.aio.Client, str]:
        """Return the client and the model's name.

        Raises:
            ServerStartError: the server did not start.
            UnreachableError: there is no server.
            ValueError: the address is none.
        """
        async with self._lock:
            if self._error is not None:
                raise self._error
            try:
                return await self._connect()
            except Exception as error:
                self._error = error  # it would be the same for every camera, each after a wait
                raise

    async def _connect(self) -> tuple[forebay.aio.Client, str]:
        if self._client is None:
            address = self._address
            if address is None:
                address = await self._stack.enter_async_context(running_server())
            limits = forebay.Reconnection(connect_timeout_s=CONNECT_TIMEOUT_S)
            client = forebay.aio.Client(address, tls=self._tls, reconnection=limits)
            self._client = await self._stack.enter_async_context(client)
        if self._model is None:
            self._model = await self._usual_model(self._client)
        return self._client, self._model

    async def _usual_model(self, client: forebay.aio.Client) -> str:
        """Return the only model that a server has ready, or the bundled detector's name."""
        try:
            models = await client.models(timeout_s=CONNECT_TIMEOUT_S, headers=self._headers)
        except forebay.CallRefusedError:  # the calls about models may be restricted
            return DEFAULT_MODEL
        ready = {model.name for model in models if model.is_ready}
        return ready.pop() if len(ready) == 1 else DEFAULT_MODEL

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()
