"""Bringing run folders here: which folder is whose, and what is refused, without a cluster."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import xxhash
from heliostat.cluster.head.api import Head
from heliostat.trainer.driver.display import Display
from heliostat.trainer.driver.run_folder import RUN_FILE
from heliostat.trainer.errors import FetchError
from heliostat.trainer.remote.fetch import _is_here, _place, _taken, _target_of, _turn, fetch
from heliostat.trainer.remote.follow import Told
from heliostat.trainer.remote.handle import Handle
from heliostat.trainer.remote.links import FileMark
from heliostat.trainer.remote.wire import Files


@pytest.fixture
def run_in(tmp_path):
    """run_in(name, id) -> a folder with a run that is called so."""

    def make(name: str, run_id: object) -> None:
        (tmp_path / name).mkdir()
        (tmp_path / name / RUN_FILE).write_text(json.dumps({"id": run_id}))

    return make


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "", ".", "a\0b"])
def test_no_file_is_put_outside_of_the_run_folder(tmp_path, name):
    with pytest.raises(FetchError, match="refused"):
        _place(tmp_path, name)


def test_a_file_in_a_folder_has_its_place(tmp_path):
    assert _place(tmp_path, "checkpoints/a/b") == tmp_path / "checkpoints" / "a" / "b"


def test_a_file_is_here_only_with_its_content(tmp_path):
    mark = FileMark(size=3, digest=xxhash.xxh3_128_hexdigest(b"one"))
    path = tmp_path / "file"
    assert not _is_here(path, mark)
    for content, is_here in ((b"one", True), (b"two", False), (b"longer", False)):
        path.write_bytes(content)
        assert _is_here(path, mark) == is_here
    assert not _is_here(tmp_path, mark)


def test_what_makes_others_count_comes_after_them():
    names = [RUN_FILE, "checkpoints/1/manifest.json", "checkpoints/1/state", "logs/worker-0.log", "z"]
    assert sorted(names, key=_turn) == [
        *("checkpoints/1/state", "logs/worker-0.log", "z", "checkpoints/1/manifest.json", RUN_FILE)
    ]


def test_a_run_goes_into_its_own_folder_and_never_into_another_runs(tmp_path, run_in):
    first = tmp_path / "run"
    assert _target_of("mine", "/c", first, []) == first
    run_in("run", "mine")
    assert _target_of("mine", "/c", first, []) == first
    assert _target_of("theirs", "/c", first, []) == tmp_path / "run-2"
    run_in("run-2", "another")
    assert _target_of("second", "/c", first, [first]) == tmp_path / "run-3"
    assert _target_of(None, "/c", first, []) == tmp_path / "run-3"  # its record does not tell


def test_a_further_run_goes_into_no_folder_that_holds_anything_else(tmp_path):
    first, second = tmp_path / "run", tmp_path / "run-2"
    second.mkdir()
    assert _target_of("second", "/c", first, [first]) == second, "nobody's"
    (second / "model.keras").write_bytes(b"a user's own")
    assert _target_of("second", "/c", first, [first]) == tmp_path / "run-3"
    with pytest.raises(KeyboardInterrupt), _taken(tmp_path / "run-3", "/c"):
        raise KeyboardInterrupt
    assert _target_of("second", "/c", first, [first]) == tmp_path / "run-3", "an interrupted fetch goes on there"
    assert _target_of("third", "/d", first, [first]) == tmp_path / "run-4"
    with _taken(tmp_path / "run-3", "/c"):
        pass
    assert not any((tmp_path / "run-3").iterdir())
    assert (second / "model.keras").read_bytes() == b"a user's own"


CONTENT = bytes(range(256)) * 1000


class Slow(BaseHTTPRequestHandler):
    """Sends the content in two halves, between which it waits for another who asks for it, if there is one."""

    both = threading.Barrier(2)

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[: len(CONTENT) // 2])
        with suppress(threading.BrokenBarrierError):
            self.both.wait(0.5)
        self.wfile.write(CONTENT[len(CONTENT) // 2 :])

    def log_message(self, *_):
        pass


def test_two_commands_that_fetch_one_run_at_once_both_come_to_their_end(tmp_path):
    """As when `submit` in one window and `attach` in another hear of the same end."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address, to = f"http://127.0.0.1:{server.server_port}", tmp_path / "run"
    handle = Handle(address=address, submission_id="j", what="script", script="x.py", runs=("/r",))
    mark = FileMark(size=len(CONTENT), digest=xxhash.xxh3_128_hexdigest(CONTENT))
    told = Told(files={"/r": Files(path="/r", node_id="n", link="l", files={"model": mark})})
    try:
        with ThreadPoolExecutor(2) as commands:
            both = [commands.submit(fetch, Head(address), handle, to, Display(), told) for _ in range(2)]
            assert [each.result() for each in both] == [[to], [to]]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert [(path.name, path.read_bytes()) for path in to.iterdir()] == [("model", CONTENT)]
