"""Python's `websockets`, which the official SDK is built on, against a server that compresses.

    deflate.py URL CHANNEL BYTES

Publishes texts of so many bytes, and of a few, in its channel, and hears them. Prints one JSON document.
"""

import asyncio
import json
import sys

from websockets.asyncio.client import connect


async def main(url, channel, size):
    saw = {"heard": []}
    async with connect(url, max_size=1 << 24) as socket:
        saw["extensions"] = [extension.name for extension in socket.protocol.extensions]
        saw["answer"] = socket.response.headers.get("Sec-WebSocket-Extensions")

        async def ask(identity, command):
            await socket.send(json.dumps({"id": identity, **command}))
            while True:
                for line in (await asyncio.wait_for(socket.recv(), 20)).splitlines():
                    message = json.loads(line)
                    if "push" in message:
                        saw["heard"].append(message["push"]["pub"]["data"])
                    elif message.get("id") == identity:
                        return message

        await ask(1, {"connect": {}})
        await ask(2, {"subscribe": {"channel": channel}})
        for identity, data in enumerate(["short", "long " * (size // 5), ""], start=3):
            await ask(identity, {"publish": {"channel": channel, "data": data}})
        reply = await ask(9, {"history": {"channel": channel, "limit": 10}})
        saw["history"] = [len(each["data"]) for each in reply["history"]["publications"]]
    saw["heard"] = [len(data) for data in saw["heard"]]
    return saw


print(json.dumps(asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))))
