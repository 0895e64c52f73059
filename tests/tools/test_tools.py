"""The programs beside the chain."""

import json
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from conftest import ROOT

from network import InputError


@pytest.fixture(scope='module')
def tool():
    import runpy

    return lambda name: runpy.run_path(str(ROOT / 'tools' / f'{name}.py'))


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


def test_a_released_checkpoint_is_fetched_whole(tool, serve, released_state, tmp_path):
    torch.save(released_state('seg'), tmp_path / 'released')
    place = tmp_path / 'out' / 'model-8'
    tool('download')['fetch'](serve(tmp_path / 'released'), place)
    assert place.read_bytes() == (tmp_path / 'released').read_bytes()
    assert [p.name for p in place.parent.iterdir()] == ['model-8']
    with pytest.raises(InputError, match='is there already'):
        tool('download')['fetch']('http://127.0.0.1:9/', place)


def test_a_page_instead_of_a_checkpoint_is_not_kept(tool, serve, tmp_path):
    (tmp_path / 'page').write_text('<html>Quota exceeded</html>')
    with pytest.raises(InputError, match='gave no checkpoint'):
        tool('download')['fetch'](serve(tmp_path / 'page'), tmp_path / 'out' / 'model-8')
    assert not list((tmp_path / 'out').iterdir())


def test_no_network_is_one_clear_error(tool, tmp_path):
    with pytest.raises(InputError, match='cannot download .*by hand'):
        tool('download')['fetch']('http://127.0.0.1:9/uc?id=1', tmp_path / 'out' / 'model-8')


@pytest.mark.parametrize('script', [
    'cub200-cam/train.py', 'tools/predict.py', 'tools/download.py', 'tools/results.py',
    'tools/evaluate_maps.py', 'dataset/make_mini.py', 'dataset/prepare_cub.py',
    'dataset/prepare_folder.py', 'dataset/prepare_leeds.py'])
def test_a_missing_package_is_one_line_with_the_cure(script):
    done = subprocess.run([sys.executable, '-S', ROOT / script, '--help'], capture_output=True,
                          text=True, check=False)  # -S: without the installed packages
    assert done.returncode == 2
    assert re.fullmatch(r'error: \S+ has no package (cv2|numpy): '
                        r'(source \S+/bin/activate|pip install -r \S+)\n', done.stderr)


def test_report_names_the_stage_that_is_missing(tool, tmp_path):
    require_results = tool('report')['require_results']
    with pytest.raises(InputError, match='results.json has no sweep'):
        require_results(tmp_path / 'results.json', ('sweep',))
    (tmp_path / 'results.json').write_text(json.dumps({'count': 3}))
    with pytest.raises(InputError, match='has no sweep'):
        require_results(tmp_path / 'results.json', ('sweep',))


def test_report_on_a_list_without_boxes_takes_the_sizes_of_the_training(tool):
    cam = {'arguments': {'resize': 256, 'crop': 0, 'snapshot': 'model-12'},
           'training': {'arguments': {'resize': 166, 'crop': 144, 'snapshot': None}}}
    assert tool('report')['cam_arguments'](cam) == {'resize': 166, 'crop': 144,
                                                    'snapshot': 'model-12'}


def test_table_shows_the_counted_figures(tool):
    sweep = {'best_threshold': 0.4, 'best': {'strict': {'gt_known': 0.75}}}
    figures = {'arguments': {'threshold': 0.2}, 'strict': {'gt_known': 0.3}, 'pxap': None,
               'max_box_acc': 0.6, 'max_box_acc_v2': 0.5, 'sweep': sweep}
    report = tool('report')
    assert report['classification']({'top1': 0.9, 'top5': 1.0, 'count': 40}) == (
        'classification: top-1 90.0 %, top-5 100.0 %, 40 images')
    lines = report['localization']({**figures, 'fused': figures}, figures).splitlines()
    assert lines[-1] == '| SPOL | 30.0 (at 0.2) | 75.0 (at 0.40) | 60.0 | 50.0 |  |'
    assert not any(line.startswith('| plain CAM') for line in lines)
