"""A small HTTPS server for test_downloads.sh: images that take their time, each with a status of its own.

usage: downloads_server.py CERTIFICATE KEY      prints its port; ends when its standard input does
"""
import http.server
import os
import ssl
import sys
import threading
import time

LATENCY = 0.15  # seconds, the same for all but a little: later ones are quicker, so that they finish out of order
IMAGE = b"GIF89a" + bytes(1000)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        number = int(self.path[-1])
        time.sleep(LATENCY - number * 0.01)
        self.send_response(200 + number)
        self.send_header("Content-Type", "image/gif")
        if number == 4:  # 204 has no body
            self.end_headers()
            return
        self.send_header("Content-Length", str(len(IMAGE)))
        self.end_headers()
        self.wfile.write(IMAGE)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 64

    # The handshake belongs to the connection's thread, not to the one that accepts.
    def finish_request(self, request, address):
        request.settimeout(10)
        super().finish_request(context.wrap_socket(request, server_side=True), address)

    def handle_error(self, *_):
        pass


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
server = Server(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(server.server_port, flush=True)
sys.stdin.read()
os._exit(0)
