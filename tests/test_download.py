"""tools/download.py, from a server on this machine."""

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from conftest import complaint

from tools.download import fetch


@pytest.fixture
def serve(monkeypatch, tmp_path):
    """serve(name) -> the URL of a file in tmp_path."""
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path)
    with ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield lambda name: f'http://127.0.0.1:{server.server_port}/{name}'
        server.shutdown()


def test_a_released_checkpoint_is_fetched_whole(serve, released_state, tmp_path):
    torch.save(released_state('seg'), tmp_path / 'released')
    place = tmp_path / 'out' / 'model-8'
    fetch(serve('released'), place)
    assert place.read_bytes() == (tmp_path / 'released').read_bytes()
    assert [path.name for path in place.parent.iterdir()] == ['model-8']
    assert 'exists already' in complaint(fetch, 'http://127.0.0.1:9/', place)


def test_a_page_instead_of_a_checkpoint_is_not_kept(serve, tmp_path):
    (tmp_path / 'page').write_text('<html>Quota exceeded</html>')
    place = tmp_path / 'out' / 'model-8'
    assert 'model-8.download' in complaint(fetch, serve('page'), place)
    assert not list(place.parent.iterdir())


def test_without_a_network_the_error_says_what_to_do(tmp_path):
    message = complaint(fetch, 'http://127.0.0.1:9/uc?id=1', tmp_path / 'out' / 'model-8')
    assert message.startswith('cannot download')
    assert 'by hand' in message
