"""The official Python SDK against a server: everything it offers, in one encoding.

    sdk.py URL TOKEN json|protobuf

Prints one JSON document of what it saw; whether that is right is the caller's to say.
"""

import asyncio
import json
import sys

import centrifuge


class Events(centrifuge.SubscriptionEventHandler):
    """Keeps what comes, and lets it be waited for."""

    def __init__(self):
        self.heard = asyncio.Queue()
        self.joined = asyncio.Queue()
        self.subscribed = asyncio.Queue()

    async def on_publication(self, ctx):
        self.heard.put_nowait((ctx.pub.offset, ctx.pub.data))

    async def on_join(self, ctx):
        self.joined.put_nowait(ctx.info.user)

    async def on_subscribed(self, ctx):
        self.subscribed.put_nowait((ctx.was_recovering, ctx.recovered))


async def main(url, token, encoding):
    binary = encoding == "protobuf"
    # In Protobuf payloads are bytes.
    encode = (lambda value: json.dumps(value).encode()) if binary else (lambda value: value)
    decode = (lambda data: json.loads(data)) if binary else (lambda data: data)
    client = centrifuge.Client(url, token=token, use_protobuf=binary, min_reconnect_delay=0.02)
    await client.connect()
    await client.ready(timeout=10)
    events = Events()
    channel = f"python:{encoding}"
    subscription = client.new_subscription(channel, events, recoverable=True, join_leave=True)
    await subscription.subscribe()
    await subscription.ready(timeout=10)
    saw = {"subscribed": await asyncio.wait_for(events.subscribed.get(), 10)}
    for number in range(3):
        await subscription.publish(data=encode({"n": number}))
    heard = [await asyncio.wait_for(events.heard.get(), 10) for _ in range(3)]
    saw["heard"] = [(offset, decode(data)) for offset, data in heard]
    saw["joined"] = await asyncio.wait_for(events.joined.get(), 10)
    history = await subscription.history(limit=-1)
    saw["history"] = [decode(publication.data) for publication in history.publications]
    presence = await subscription.presence()
    saw["present"] = sorted(info.user for info in presence.clients.values())
    stats = await subscription.presence_stats()
    saw["stats"] = [stats.num_clients, stats.num_users]
    try:
        await client.rpc("nothing", encode({}))
    except centrifuge.ReplyError as error:
        saw["rpc"] = error.code
    # Its connection is lost, something is missed, and it recovers.
    await client._conn.close()
    await client.ready(timeout=10)
    saw["again"] = await asyncio.wait_for(events.subscribed.get(), 10)
    await client.publish(channel, encode("last"))
    offset, data = await asyncio.wait_for(events.heard.get(), 10)
    saw["last"] = [offset, decode(data)]
    await subscription.unsubscribe()
    await client.disconnect()
    print(json.dumps(saw))


asyncio.run(main(*sys.argv[1:]))
