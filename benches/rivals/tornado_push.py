"""The contrast for `examples/full.rs`: a push server on Tornado, as its documentation writes one.

    pip install tornado
    sh -c 'ulimit -n 1024; exec python3 benches/rivals/tornado_push.py 8888' 2>tornado.log &
    cargo run --release -p throng-load --example full -- --at 127.0.0.1:8888/ws $! tornado.log
"""

import asyncio
import sys

import tornado.web
import tornado.websocket


class Socket(tornado.websocket.WebSocketHandler):
    def check_origin(self, origin):
        return True

    def on_message(self, message):
        pass


class Main(tornado.web.RequestHandler):
    def get(self):
        self.write("ok")


async def main():
    app = tornado.web.Application([(r"/", Main), (r"/ws", Socket)])
    app.listen(int(sys.argv[1]), "127.0.0.1")
    await asyncio.Event().wait()


asyncio.run(main())
