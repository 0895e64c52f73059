"""tools/download.py, from a server on this machine."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from conftest import complaint

from tools.download import fetch


@pytest.fixture
def serve(monkeypatch):
    """serve(path of a file) -> the URL of its content."""
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    servers = []

    def start(file):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):  # noqa: N802 (the base class's name)
                content = file.read_bytes()
                self.send_response(200)
                self.send_header('Content-Length', str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *arguments):
                pass

        server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f'http://127.0.0.1:{server.server_port}/uc?id=1'

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_released_checkpoint_is_fetched_whole(serve, released_state, tmp_path):
    torch.save(released_state('seg'), tmp_path / 'released')
    place = tmp_path / 'out' / 'model-8'
    fetch(serve(tmp_path / 'released'), place)
    assert place.read_bytes() == (tmp_path / 'released').read_bytes()
    assert [path.name for path in place.parent.iterdir()] == ['model-8']
    assert 'exists already' in complaint(fetch, 'http://127.0.0.1:9/', place)


def test_a_page_instead_of_a_checkpoint_is_not_kept(serve, tmp_path):
    (tmp_path / 'page').write_text('<html>Quota exceeded</html>')
    place = tmp_path / 'out' / 'model-8'
    assert 'is not the checkpoint' in complaint(fetch, serve(tmp_path / 'page'), place)
    assert not list(place.parent.iterdir())


def test_without_a_network_the_error_says_what_to_do(tmp_path):
    message = complaint(fetch, 'http://127.0.0.1:9/uc?id=1', tmp_path / 'out' / 'model-8')
    assert message.startswith('cannot download')
    assert 'by hand' in message
