"""The official Python SDK reads deltas, and has a tags filter, in one encoding.

    deltas.py URL json|protobuf

Prints one JSON document of what it heard.
"""

import asyncio
import json
import sys

import centrifuge
from centrifuge.client import DeltaType


class Events(centrifuge.SubscriptionEventHandler):
    """Keeps what comes, and lets it be waited for."""

    def __init__(self):
        self.heard = asyncio.Queue()

    async def on_publication(self, ctx):
        self.heard.put_nowait(ctx.pub.data)


async def main(url, encoding):
    binary = encoding == "protobuf"
    # In Protobuf payloads are bytes.
    encode = (lambda value: json.dumps(value).encode()) if binary else (lambda value: value)
    decode = (lambda data: json.loads(data)) if binary else (lambda data: data)
    client = centrifuge.Client(url, use_protobuf=binary, min_reconnect_delay=0.02)
    await client.connect()
    await client.ready(timeout=10)
    events = Events()
    subscription = client.new_subscription(f"delta:{encoding}", events, delta=DeltaType.FOSSIL)
    await subscription.subscribe()
    await subscription.ready(timeout=10)
    for number in range(4):
        await subscription.publish(data=encode({"n": number, "text": "жёлтый, " * 100}))
    heard = [decode(await asyncio.wait_for(events.heard.get(), 10)) for _ in range(4)]
    await client.disconnect()
    print(json.dumps([(each["n"], len(each["text"])) for each in heard]))


asyncio.run(main(*sys.argv[1:]))
