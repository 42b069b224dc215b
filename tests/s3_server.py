"""An S3 server on this machine, which speaks the protocol over HTTP and keeps its objects in memory."""

from __future__ import annotations

import logging
import urllib.request
from urllib.parse import quote

from moto.server import ThreadedMotoServer

BUCKET = "bucket"


class S3Server:
    """A server that can stop and start again with all of its objects."""

    def __init__(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        self.port = self._server.get_host_and_port()[1]
        self.files = self._connected()
        self.files.create_dir(BUCKET)

    def _connected(self):
        from pyarrow import fs

        return fs.S3FileSystem(
            endpoint_override=f"127.0.0.1:{self.port}", scheme="http", region="us-east-1", allow_bucket_creation=True
        )

    def uri(self, path: str) -> str:
        """URI of a place in the bucket."""
        return f"s3://{BUCKET}/{quote(path)}?endpoint_override=127.0.0.1:{self.port}&scheme=http"

    def stop(self) -> None:
        self._server.stop()

    def start_again(self) -> None:
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self.port, verbose=False)
        self._server.start()

    def let_in(self, *, everybody: bool) -> None:
        """Whether keys are checked; there are none that are known."""
        count = b"inf" if everybody else b"0"  # requests that are not checked
        url = f"http://127.0.0.1:{self.port}/moto-api/reset-auth"
        request = urllib.request.Request(url, data=count, headers={"Content-Type": "text/plain"}, method="POST")
        urllib.request.urlopen(request).close()

    def names(self, path: str) -> list[str]:
        """Objects below a place, sorted."""
        from pyarrow.fs import FileSelector

        selector = FileSelector(f"{BUCKET}/{path}", recursive=True, allow_not_found=True)
        start = len(f"{BUCKET}/{path}/")
        return sorted(info.path[start:] for info in self.files.get_file_info(selector) if info.is_file)

    def read(self, path: str) -> bytes:
        with self.files.open_input_stream(f"{BUCKET}/{path}") as stream:
            return stream.read()

    def write(self, path: str, data: bytes) -> None:
        with self.files.open_output_stream(f"{BUCKET}/{path}") as stream:
            stream.write(data)

    def delete(self, path: str) -> None:
        self.files.delete_file(f"{BUCKET}/{path}")

    def journal(self, run: str) -> bytes:
        """All lines of a run's journal in their order."""
        return b"".join(self.read(f"{run}/{name}") for name in self.names(run) if name.startswith("journal/"))
