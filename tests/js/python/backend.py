"""The official API client in Python against a server.

    backend.py URL KEY

Prints one JSON document of what it was answered.
"""

import json
import sys

import cent

url, key = sys.argv[1:]
client = cent.Client(url, key)
saw = {}


def dump(result):
    return result.model_dump(exclude_none=True)


saw["publish"] = dump(client.publish(cent.PublishRequest(channel="cent:a", data={"n": 1}, tags={"t": "1"})))
saw["again"] = [
    client.publish(cent.PublishRequest(channel="cent:a", data=2, idempotency_key="k")).offset for _ in range(2)
]
saw["broadcast"] = [
    dump(each) for each in client.broadcast(cent.BroadcastRequest(channels=["cent:a", "nowhere:b"], data=3)).responses
]
saw["history"] = dump(client.history(cent.HistoryRequest(channel="cent:a", limit=10)))
saw["presence"] = dump(client.presence(cent.PresenceRequest(channel="cent:a")))
saw["stats"] = dump(client.presence_stats(cent.PresenceStatsRequest(channel="cent:a")))
saw["channels"] = sorted(client.channels(cent.ChannelsRequest(pattern="python:*")).channels)
saw["nodes"] = len(client.info(cent.InfoRequest()).nodes)
for name, request in {
    "subscribe": cent.SubscribeRequest(user="nobody", channel="cent:a"),
    "unsubscribe": cent.UnsubscribeRequest(user="nobody", channel="cent:a"),
    "disconnect": cent.DisconnectRequest(user="nobody"),
    "refresh": cent.RefreshRequest(user="nobody", client="", expired=True),
}.items():
    saw[name] = dump(getattr(client, name)(request))
saw["removed"] = dump(client.history_remove(cent.HistoryRemoveRequest(channel="cent:a")))
batch = client.batch(
    cent.BatchRequest(
        requests=[
            cent.PublishRequest(channel="cent:a", data=4),
            cent.HistoryRequest(channel="cent:a", limit=1),
        ]
    )
)
saw["batch"] = [dump(reply) for reply in batch.replies]
try:
    client.publish(cent.PublishRequest(channel="nowhere:a", data=1))
except cent.CentApiResponseError as error:
    saw["error"] = error.code
try:
    cent.Client(url, "wrong").info(cent.InfoRequest())
except cent.CentUnauthorizedError:
    saw["unauthorized"] = True
print(json.dumps(saw))
