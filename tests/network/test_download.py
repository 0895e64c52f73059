"""Downloads, from a server in a thread that breaks off, refuses and misbehaves as it is told."""

import hashlib
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from conftest import ROOT

from network.download import CHUNK, _locked, download, has_checksum
from network.errors import InputError

CONTENT = np.random.default_rng(0).bytes(CHUNK + 1234)  # more than one chunk
CHECKSUM = 'sha256:' + hashlib.sha256(CONTENT).hexdigest()
BROKEN = 5000


class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def do_GET(self):  # noqa: N802 (the base class's name)
        server, wanted = self.server, self.headers.get('Range')
        server.ranges.append(wanted)
        self.close_connection = True
        if server.status:
            self.send_error(server.status)
        elif server.garbage:
            self.wfile.write(b'this is no HTTP\r\n\r\n')
        else:
            start = int(wanted.removeprefix('bytes=').rstrip('-')) if wanted else 0
            self.send_from(start if server.resumes else 0, wanted and server.resumes)

    def send_from(self, start, partial):
        if partial and start >= len(CONTENT):
            self.send_error(416)
            return
        body = CONTENT[start:]
        self.send_response(206 if partial else 200)
        if partial:
            self.send_header('Content-Range', f'bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}')
        if self.server.chunked:
            self.send_header('Transfer-Encoding', 'chunked')
            self.end_headers()
            self.wfile.write(f'{len(body):x}\r\n'.encode())
        else:
            if self.server.tells_length:
                self.send_header('Content-Length', str(len(body)))
            self.end_headers()
        body = body[:BROKEN] if self.server.breaks else body
        self.server.sent.append(len(body))  # before the client can have all of it
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    server.daemon_threads = True
    server.ranges, server.sent = [], []
    server.status, server.garbage, server.breaks, server.chunked = 0, False, False, False
    server.resumes = server.tells_length = True
    server.url = f'http://127.0.0.1:{server.server_port}/weights.pth'
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'resource' / 'weights.pth'


def part_of(path):
    return path.with_name('weights.pth.part')


def fails(server, path, checksum=CHECKSUM):
    """The message of the InputError that is raised."""
    with pytest.raises(InputError) as caught:
        download(server.url, path, checksum)
    assert not path.exists()
    return str(caught.value)


def files_beside(path):
    return [file.name for file in path.parent.iterdir()]


def assert_whole(path):
    assert path.read_bytes() == CONTENT
    assert files_beside(path) == ['weights.pth']


@pytest.mark.parametrize('tells_length', [True, False])
def test_a_file_is_fetched_whole_under_its_own_name(server, path, tells_length):
    server.tells_length = tells_length
    assert download(server.url, path, CHECKSUM) == path
    assert_whole(path)
    assert server.ranges == [None]


def test_the_beginning_of_the_checksum_is_enough(server, path):
    download(server.url, path, CHECKSUM[:len('sha256:') + 8])
    assert_whole(path)


def test_md5_will_do(server, path):
    download(server.url, path, 'md5:' + hashlib.md5(CONTENT).hexdigest())
    assert_whole(path)


def start_with(path, content):
    path.parent.mkdir()
    part_of(path).write_bytes(content)


def test_an_earlier_attempt_is_gone_on_with(server, path):
    start_with(path, CONTENT[:3000])
    download(server.url, path, CHECKSUM)
    assert_whole(path)
    assert server.ranges == ['bytes=3000-']
    assert server.sent == [len(CONTENT) - 3000]


def test_a_server_that_cannot_resume_sends_all_again(server, path):
    server.resumes = False
    start_with(path, b'x' * 3000)
    download(server.url, path, CHECKSUM)
    assert_whole(path)
    assert server.sent == [len(CONTENT)]


def test_an_attempt_that_was_whole_needs_no_more(server, path):
    start_with(path, CONTENT)
    download(server.url, path, CHECKSUM)
    assert_whole(path)
    assert server.sent == []


def test_a_wrong_checksum_leaves_nothing(server, path):
    message = fails(server, path, 'sha256:00000000')
    assert server.url in message
    assert 'checksum' in message
    assert files_beside(path) == []


def test_an_attempt_of_another_file_leaves_nothing_and_the_next_run_is_right(server, path):
    start_with(path, b'x' * 3000)
    assert 'checksum' in fails(server, path)
    assert files_beside(path) == []
    download(server.url, path, CHECKSUM)
    assert_whole(path)


def test_an_attempt_longer_than_the_file_leaves_nothing(server, path):
    start_with(path, CONTENT + b'more')
    assert 'checksum' in fails(server, path)
    assert files_beside(path) == []


def test_a_broken_connection_is_reported_and_the_next_run_finishes(server, path):
    server.breaks = True
    assert str(path) in fails(server, path)
    assert part_of(path).read_bytes() == CONTENT[:BROKEN]
    fails(server, path)
    assert part_of(path).read_bytes() == CONTENT[:2 * BROKEN]
    server.breaks = False
    download(server.url, path, CHECKSUM)
    assert_whole(path)
    assert server.ranges == [None, f'bytes={BROKEN}-', f'bytes={2 * BROKEN}-']
    assert server.sent == [BROKEN, BROKEN, len(CONTENT) - 2 * BROKEN]


def test_a_connection_that_breaks_within_a_chunk_is_reported(server, path):
    """Of chunked transfer: http.client.IncompleteRead, which is no OSError."""
    server.chunked = server.breaks = True
    assert server.url in fails(server, path)


def test_a_server_that_speaks_no_http_is_reported(server, path):
    """http.client.BadStatusLine, which is no OSError."""
    server.garbage = True
    assert server.url in fails(server, path)


@pytest.mark.parametrize('status', [403, 404, 500, 503])
def test_a_refusal_is_reported_with_its_number_and_keeps_what_there_is(server, path, status):
    server.status = status
    start_with(path, CONTENT[:3000])
    message = fails(server, path)
    assert server.url in message
    assert str(status) in message
    assert part_of(path).read_bytes() == CONTENT[:3000]


def test_a_server_that_is_not_there_is_reported(path):
    with socket.socket() as unused:
        unused.bind(('127.0.0.1', 0))
        url = f'http://127.0.0.1:{unused.getsockname()[1]}/weights.pth'
    with pytest.raises(InputError) as caught:
        download(url, path, CHECKSUM)
    assert url in str(caught.value)
    assert str(path) in str(caught.value)
    assert not path.exists()


def test_a_folder_that_cannot_be_made_is_reported(server, tmp_path):
    (tmp_path / 'file').write_text('in the way')
    with pytest.raises(InputError, match='file'):
        download(server.url, tmp_path / 'file' / 'weights.pth', CHECKSUM)


def test_a_checksum_is_of_the_whole_file_and_may_be_cut_short(tmp_path):
    (tmp_path / 'a').write_bytes(CONTENT)
    digest = CHECKSUM.removeprefix('sha256:')
    assert has_checksum(tmp_path / 'a', f'sha256:{digest}')
    assert has_checksum(tmp_path / 'a', f'sha256:{digest[:8]}')
    assert not has_checksum(tmp_path / 'a', f'sha256:{digest[1:]}')
    (tmp_path / 'a').write_bytes(CONTENT[:-1])
    assert not has_checksum(tmp_path / 'a', f'sha256:{digest[:8]}')


def test_of_four_processes_one_downloads_and_all_have_it(tmp_path, server):
    path = tmp_path / 'weights.pth'
    fetch = ('import sys; from pathlib import Path; from network.download import download; '
             'download(sys.argv[1], Path(sys.argv[2]), sys.argv[3])')
    runs = [subprocess.Popen([sys.executable, '-c', fetch, server.url, str(path), CHECKSUM],
                             cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    for run in runs:
        _, said = run.communicate(timeout=120)
        assert run.returncode == 0, said
    assert path.read_bytes() == CONTENT
    assert server.sent == [len(CONTENT)]
    assert files_beside(path) == ['weights.pth']


def test_a_failed_download_leaves_no_lock(server, path):
    server.status = 404
    with pytest.raises(InputError):
        download(server.url, path, CHECKSUM)
    assert files_beside(path) == []


def test_a_process_that_waited_for_a_deleted_lock_excludes_the_next(tmp_path):
    """Threads lock as processes do: each opens the file for itself."""
    inside, most = [], []

    def work():
        for _ in range(20):
            with _locked(tmp_path / 'file'):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.001)
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 80
    assert max(most) == 1
    assert not list(tmp_path.iterdir())
