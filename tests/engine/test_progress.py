"""Progress on a terminal, elsewhere, and where stderr is closed."""

import io
import subprocess
import sys

import pytest
from conftest import ROOT

from utils.engine import progress as progress_module
from utils.engine.progress import Progress, say


def test_one_line_at_the_end_where_there_is_no_terminal(capsys):
    progress = Progress('epoch 1/4', 100)
    for _ in range(10):
        progress.update(10, total=1.23456)
    progress.close(total=1.2)
    line, = capsys.readouterr().err.splitlines()
    assert line.startswith('epoch 1/4: 100/100 images, total 1.2, ')
    assert 'left' not in line


def test_lines_in_between_where_it_takes_long(capsys, monkeypatch):
    monkeypatch.setattr(progress_module, 'SECONDS_BETWEEN_LINES', -1)
    progress = Progress('masks', 20)
    progress.update(10)
    assert capsys.readouterr().err.rstrip().endswith('s left')


class Broken(io.StringIO):
    """A terminal that has gone away, or a file that is closed."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def isatty(self):
        return True

    def write(self, text):
        raise self.error

    flush = write


@pytest.mark.parametrize('error', [BrokenPipeError(), OSError(5, 'gone'), ValueError('closed')])
def test_a_broken_stderr_stops_nothing(monkeypatch, error):
    broken = Broken(error)
    monkeypatch.setattr(broken, 'flush', lambda: None)
    monkeypatch.setattr(sys, 'stderr', broken)
    say('nothing')
    progress = Progress.__new__(Progress)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(broken, 'error', None)
        patch.setattr(Broken, 'write', lambda self, text: len(text))
        progress.__init__('epoch', 10)
    progress.update(10, total=1.0)
    progress.close()


def test_a_closed_stderr_stops_nothing():
    code = ("import utils, os; from utils.engine.progress import Progress; "
            "p = Progress('x', 2); p.update(1); p.close(); os.write(2, b'x'); print('done')")
    found = subprocess.run(f'{sys.executable} -c "{code}" 2>&-', shell=True, cwd=ROOT, text=True,
                           stdout=subprocess.PIPE, check=False)
    assert (found.returncode, found.stdout) == (0, 'done\n')


@pytest.mark.parametrize(('given', 'expected'), [
    ({}, '1000'), ({'GOMP_SPINCOUNT': '5'}, '5'), ({'OMP_WAIT_POLICY': 'active'}, 'None')])
def test_threads_of_openmp_do_not_spin_for_long(given, expected):
    code = "import utils, os; print(os.environ.get('GOMP_SPINCOUNT'))"
    found = subprocess.run([sys.executable, '-c', code], cwd=ROOT, env=given, text=True,
                           capture_output=True, check=True)
    assert found.stdout.strip() == expected
