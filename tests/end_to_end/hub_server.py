"""A hub of models on this machine, with the part of the Hugging Face Hub's protocol that its clients use."""

from __future__ import annotations

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

#: The revision that everything is at.
COMMIT = "0" * 40


class HubServer:
    """Serves files of `folder/OWNER/NAME` as those of a model's repository.

    Attributes:
        downloads: paths of the files whose content was asked for.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.downloads = folder, []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub._answer(self)

            def do_HEAD(self) -> None:
                hub._answer(self)

            def log_message(self, *args) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def endpoint(self) -> str:
        """What clients take as HF_ENDPOINT."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(request.path).path.strip("/").split("/")
        if parts[:2] == ["api", "models"] or len(parts) < 5 or parts[2] != "resolve":
            self._refuse(request, "EntryNotFound")  # listings, which clients can do without
            return
        owner, name, _, _, *rest = parts
        repository = self.folder / owner / name
        file = repository.joinpath(*rest)
        if not repository.is_dir():
            self._refuse(request, "RepoNotFound")
        elif not file.is_file():
            self._refuse(request, "EntryNotFound")
        else:
            self._send(request, file)

    @staticmethod
    def _refuse(request: BaseHTTPRequestHandler, why: str) -> None:
        request.send_response(404)
        request.send_header("X-Error-Code", why)
        request.send_header("Content-Length", "0")
        request.end_headers()

    def _send(self, request: BaseHTTPRequestHandler, file: Path) -> None:
        content = file.read_bytes()
        request.send_response(200)
        request.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        request.send_header("X-Repo-Commit", COMMIT)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if request.command == "GET":
            self.downloads.append(str(file.relative_to(self.folder)))
            request.wfile.write(content)
