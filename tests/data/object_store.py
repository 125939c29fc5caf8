"""A real S3 server (moto's) on this machine, as a process of its own on a free port."""

from __future__ import annotations

import importlib.util
import itertools
import re
import subprocess
import sys
import threading
import urllib.request
from collections import deque

MISSING = [name for name in ("moto", "flask") if importlib.util.find_spec(name) is None]
REASON = f"the S3 server needs moto[server], which is not installed ({', '.join(MISSING)})"
KEY, SECRET = "test-key", "test-secret-0123456789"

_PROGRAM = "from moto.server import main; main(['-H', '127.0.0.1', '-p', '0'])"


class ObjectStore:
    """The server; every `new_bucket` is empty."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-u", "-c", _PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._numbers = itertools.count()
        self._lines: deque[str] = deque(maxlen=50)
        try:
            self.port = self._read_port()
        except BaseException:
            self.close()
            raise
        # Its log must be read, or it stops when the pipe is full.
        self._reading = threading.Thread(target=self._lines.extend, args=(self._process.stdout,), daemon=True)
        self._reading.start()

    def new_bucket(self) -> str:
        name = f"bucket-{next(self._numbers)}"
        # The server takes any signature, and none.
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/{name}", method="PUT")
        request.add_header("Authorization", "AWS4-HMAC-SHA256 Credential=test-key/20260101/us-east-1/s3/aws4_request")
        with urllib.request.urlopen(request, timeout=60):
            return name

    def uri(self, place: str, port: int | None = None) -> str:
        """The URI of bucket/folder, at the server or at a relay in front of it."""
        options = f"endpoint_override=127.0.0.1:{port or self.port}&scheme=http&region=us-east-1"
        return f"s3://{KEY}:{SECRET}@{place}?{options}"

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None and not hasattr(self, "_reading"):
            self._process.stdout.close()

    def _read_port(self) -> int:
        lines = []
        for line in self._process.stdout or ():
            lines.append(line)
            found = re.search(r"Running on http://127\.0\.0\.1:(\d+)", line)
            if found:
                return int(found[1])
        raise RuntimeError("the S3 server did not start: " + "".join(lines))
