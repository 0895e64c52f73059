"""The local page, in a headless Chromium. Skipped where Gradio, Playwright or Chromium is missing:
they are optional."""

import shutil
import sys

import cv2
import numpy as np
import pytest
from conftest import ROOT, png_header
from PIL import Image

from utils.errors import InputError

CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser')


@pytest.fixture
def app(monkeypatch, tmp_path):
    """tools/app.py, looking for runs in a folder of its own."""
    monkeypatch.syspath_prepend(str(ROOT / 'tools'))
    import app

    monkeypatch.setattr(app, 'ROOT', tmp_path)
    yield app
    sys.modules.pop('app')


@pytest.fixture
def trained(untrained_run, tmp_path):
    """A run of networks that are not trained, and a picture."""
    untrained_run(tmp_path, 4)
    picture = np.random.default_rng(0).integers(0, 255, (80, 120, 3)).astype(np.uint8)
    picture = cv2.blur(picture, (9, 9))
    cv2.imwrite(str(tmp_path / 'photo.png'), picture)
    cv2.imwrite(str(tmp_path / 'grey.png'), picture[..., 0])
    cv2.imwrite(str(tmp_path / 'alpha.png'), np.dstack([picture, picture[..., 0]]))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.fromarray(picture).save(tmp_path / 'turned.jpg', exif=exif)
    (tmp_path / 'damaged.png').write_bytes((tmp_path / 'photo.png').read_bytes()[:300])
    (tmp_path / 'pixels.png').write_bytes(png_header(20_000, 20_000))
    (tmp_path / 'bytes.png').write_bytes(bytes(21_000_000))
    return tmp_path


def test_without_checkpoints_the_demo_is_named(app):
    with pytest.raises(InputError, match=r'run demo.sh first'):
        app.runs()


def test_a_threshold_needs_no_forward_pass(app, trained):
    model = app.load(app.runs()['mini'], {'device': 'cpu'})
    prediction = model(trained / 'photo.png', 'class 2')
    low, high = (app.show(prediction, threshold) for threshold in (0.0, 0.99))
    assert {view.shape for view in low[1:] + high[1:]} == {(80, 120, 3)}
    assert 'box (x0, y0, x1, y1): no box' in high[0]
    assert 'class 2: ' in high[0]
    assert '(asked for)' in high[0]
    assert 'no box' not in low[0]
    assert app.show(None, 0.2) == ('', *[None] * 6)


def test_what_is_wrong_with_a_picture_is_said_without_its_folder(app, trained):
    model = app.load(app.runs()['mini'], {'device': 'cpu'})
    found, text, *pictures = app.predict(model, str(trained / 'damaged.png'), app.BEST_CLASS, 0.2)
    assert text.startswith('damaged.png cannot be read')
    assert [found, *pictures] == [None] * 7
    found, text, *pictures = app.predict(model, str(trained / 'photo.png'), 'class 1', 0.2)
    assert text.startswith('box')
    assert found.asked[0] == 'class 1'


def test_networks_may_be_missing(app, trained):
    model = app.load({'cam': app.runs()['mini']['cam']}, {'threshold': 0.4})
    text, large, *views = app.show(model(trained / 'photo.png'), 0.4)
    assert 'asked for' not in text
    assert [view is None for view in views] == [False, False, True, False, False]


def test_examples_are_drawn(app):
    (first,), *others = app.drawn_birds()
    assert len(others) == 3
    assert max(cv2.imread(first).shape) == 256


@pytest.mark.parametrize('port', ['70000', '0', 'http'])
def test_a_port_that_is_none(run_script, port):
    code, _, err = run_script('tools/app.py', '--port', port)
    assert code == 2
    assert 'argument --port' in err


@pytest.mark.end_to_end
@pytest.mark.skipif(CHROMIUM is None, reason='no Chromium')
def test_the_page_in_a_browser(app, trained):
    pytest.importorskip('gradio')
    sync_playwright = pytest.importorskip('playwright.sync_api').sync_playwright
    blocks = app.page(app.runs(), {'device': 'cpu'})
    _, address, _ = blocks.launch(server_name='127.0.0.1', prevent_thread_lock=True, quiet=True,
                                  max_file_size=app.LARGEST_FILE)
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox'])
            page = browser.new_page()
            page.goto(address)
            text = page.get_by_label('box and classes')
            file = page.locator('input[type=file]').first

            def wait_for(condition):
                page.wait_for_function(f'e => {condition}', arg=text.element_handle())

            def set_threshold(value):
                slider = page.get_by_label('number input for threshold')
                slider.fill(value)
                slider.press('Enter')

            def clear():
                page.get_by_label('Clear').first.click()
                wait_for('e.value == ""')

            for name, size in (('photo.png', '120, 80'), ('grey.png', '120, 80'),
                               ('alpha.png', '120, 80'), ('turned.jpg', '80, 120')):
                file.set_input_files(str(trained / name))
                wait_for('e.value.includes("box (x0")')
                set_threshold('0.99')
                wait_for('e.value.includes("no box")')
                set_threshold('0')
                wait_for(f'e.value.includes("y1): 0, 0, {size}\\n")')
                clear()
            for name in ('damaged.png', 'pixels.png'):
                file.set_input_files(str(trained / name))
                wait_for(f'e.value.startsWith("{name} ")')
                clear()
            page.locator('.gallery-item').first.click()
            wait_for('e.value.includes("box (x0")')
            page.screenshot(path=str(trained / 'page.png'), full_page=True)
            clear()
            file.set_input_files(str(trained / 'bytes.png'))
            page.get_by_text('exceed the maximum allowed size of 20.0 Mb').first.wait_for()
            browser.close()
    finally:
        blocks.close()
