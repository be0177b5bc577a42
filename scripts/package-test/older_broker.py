"""A broker that says to have version 3.8: forwards port 5670 to 5672 and changes `version` in its greeting.

The texts have the same length, so that the frames stay valid.
"""

import asyncio

TOLD = {b"\x07versionS\x00\x00\x00\x063.10.8": b"\x07versionS\x00\x00\x00\x063.8.10"}


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copies one direction until it ends."""
    while data := await reader.read(1 << 16):
        for real, told in TOLD.items():
            data = data.replace(real, told)
        writer.write(data)
        await writer.drain()
    writer.close()


async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serves one connection."""
    far_reader, far_writer = await asyncio.open_connection("127.0.0.1", 5672)
    await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer), return_exceptions=True)


async def main() -> None:
    server = await asyncio.start_server(forward, "127.0.0.1", 5670)
    await server.serve_forever()


asyncio.run(main())
