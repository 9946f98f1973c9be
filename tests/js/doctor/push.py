"""A push server as one writes it with Tornado: it greets whoever comes, and echoes. Arguments: port."""

import sys

import tornado.ioloop
import tornado.web
import tornado.websocket


class Push(tornado.websocket.WebSocketHandler):
    def check_origin(self, origin):
        return True

    def open(self):
        self.write_message("welcome")

    def on_message(self, message):
        self.write_message(message)


tornado.web.Application([(r"/ws", Push)]).listen(int(sys.argv[1]), "127.0.0.1")
tornado.ioloop.IOLoop.current().start()
