"""A web page that greets $NAME and counts its visits: python3 app.py [PORT]"""
import html
import http.server
import itertools
import os
import platform
import sys

visits = itertools.count(1)


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = "<h3>Hello %s!</h3>\n<b>Python:</b> %s<br/>\n<b>Visits:</b> %d\n" % (
            html.escape(os.environ.get("NAME", "nobody")), platform.python_version(), next(visits))
        raw = body.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)


port = int(sys.argv[1]) if len(sys.argv) > 1 else 80
http.server.ThreadingHTTPServer(("", port), Page).serve_forever()
