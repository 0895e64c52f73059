"""The local page; in a headless Chromium where Gradio, Playwright and Chromium are installed: they
are optional."""

import shutil
from argparse import Namespace
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import png_header
from PIL import Image

import spol
from network import InputError
from spol import load_spol
from tools import app, predict

CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser')


@pytest.fixture
def runs(monkeypatch, tmp_path, tiny_project) -> Path:
    """A folder with the tiny project's checkpoints as the run `mini` of demo.sh, and no models of
    the repository."""
    monkeypatch.setattr(predict, 'ROOT', tmp_path)
    monkeypatch.setattr(spol, 'SHIPPED', tmp_path / 'resource')
    for stage in predict.STAGES:
        shutil.copytree(tiny_project / f'cub200-{stage}' / 'out',
                        tmp_path / f'cub200-{stage}' / 'out' / 'mini')
    return tmp_path


@pytest.fixture
def photos(tmp_path) -> Path:
    picture = np.random.default_rng(0).integers(0, 255, (80, 120, 3)).astype(np.uint8)
    picture = cv2.blur(picture, (9, 9))
    cv2.imwrite(str(tmp_path / 'photo.png'), picture)
    cv2.imwrite(str(tmp_path / 'grey.png'), picture[..., 0])
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.fromarray(picture).save(tmp_path / 'turned.jpg', exif=exif)
    (tmp_path / 'damaged.png').write_bytes((tmp_path / 'photo.png').read_bytes()[:300])
    (tmp_path / 'pixels.png').write_bytes(png_header(20_000, 20_000))
    (tmp_path / 'bytes.png').write_bytes(bytes(21_000_000))
    return tmp_path


@pytest.fixture
def model(tiny_project):
    return load_spol(**{stage: tiny_project / f'cub200-{stage}' / 'out' / 'model-1'
                        for stage in ('cam', 'seg')}, device='cpu')


def menu(**given) -> dict:
    names = ('model', 'run', *predict.STAGES, 'backbone', 'arch', 'threshold', 'device')
    return app.menu(Namespace(**{**dict.fromkeys(names), **given}))


def test_the_menu_has_the_models_the_runs_and_what_is_given_first(runs):
    assert list(menu()) == ['mini']
    for name in ('birds', 'butterflies'):
        (runs / 'resource' / name).mkdir(parents=True)
        (runs / 'resource' / name / 'seg.safetensors').touch()
    assert list(menu()) == ['birds', 'butterflies', 'mini']
    assert list(menu(model='butterflies')) == ['butterflies', 'birds', 'mini']
    given = menu(seg='model-8', backbone='resnet50', device='cpu')
    assert list(given) == [app.GIVEN, 'birds', 'butterflies', 'mini']
    assert given[app.GIVEN]['backbone'] == 'resnet50'
    assert given['birds'] == {'model': 'birds', 'device': 'cpu'}
    with pytest.raises(InputError, match='there are mini: run demo.sh'):
        menu(run='maxi')


def test_without_networks_the_demo_is_named(runs):
    shutil.rmtree(runs / 'cub200-cam')
    shutil.rmtree(runs / 'cub200-seg')
    with pytest.raises(InputError, match='run demo.sh first'):
        menu()


def test_a_threshold_needs_no_forward_pass(model, photos):
    prediction = model(photos / 'photo.png', 'bee')
    low, high = (app.show(prediction, threshold) for threshold in (0.0, 1.0))
    assert {view.shape for view in low[1:] + high[1:]} == {(80, 120, 3)}
    assert 'box (x0, y0, x1, y1): no box' in high[0]
    assert 'bee: ' in high[0]
    assert '(asked for)' in high[0]
    assert 'no box' not in low[0]
    assert app.show(None, 0.2) == ('', *[None] * 6)


def test_what_is_wrong_with_a_picture_is_said_without_its_folder(model, photos):
    found, text, *pictures = app.predict(model, str(photos / 'damaged.png'), app.BEST_CLASS, 0.2)
    assert text.startswith('damaged.png cannot be read')
    assert [found, *pictures] == [None] * 7
    found, text, *pictures = app.predict(model, str(photos / 'photo.png'), 'ant', 0.2)
    assert text.startswith('box')
    assert found.asked[0] == 'ant'


def test_networks_may_be_missing(tiny_project, photos):
    model = app.load({'cam': tiny_project / 'cub200-cam' / 'out' / 'model-1', 'device': 'cpu'})
    _, _, *views = app.show(model(photos / 'photo.png'), 0.4)
    assert [view is None for view in views] == [False, False, True, False, False]
    model = app.load({'seg': tiny_project / 'cub200-seg' / 'out' / 'model-1', 'device': 'cpu'})
    assert app.classes(model) == [app.BEST_CLASS]


@pytest.mark.parametrize('port', ['70000', '0', 'http'])
def test_a_port_that_is_none(run_script, port):
    code, _, err = run_script('tools/app.py', '--port', port)
    assert code == 2
    assert 'argument --port' in err


@pytest.mark.end_to_end
def test_the_page_is_built(runs):
    pytest.importorskip('gradio')
    labels = [part['props'].get('label') for part in app.page(menu(device='cpu')).config[
        'components']]
    assert {'picture', 'networks', 'class of the CAM', 'threshold', *app.VIEWS} <= set(labels)


@pytest.mark.end_to_end
@pytest.mark.skipif(CHROMIUM is None, reason='no Chromium')
def test_the_page_in_a_browser(runs, photos):
    pytest.importorskip('gradio')
    sync_playwright = pytest.importorskip('playwright.sync_api').sync_playwright
    blocks = app.page(menu(device='cpu'))
    _, address, _ = blocks.launch(server_name='127.0.0.1', prevent_thread_lock=True, quiet=True,
                                  max_file_size=app.MAX_FILE_SIZE)
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
                               ('turned.jpg', '80, 120')):
                set_threshold('0')
                file.set_input_files(str(photos / name))
                wait_for(f'e.value.includes("y1): 0, 0, {size}")')
                clear()
            for name in ('damaged.png', 'pixels.png'):
                file.set_input_files(str(photos / name))
                wait_for(f'e.value.startsWith("{name} ")')
                clear()
            page.screenshot(path=str(photos / 'page.png'), full_page=True)
            file.set_input_files(str(photos / 'bytes.png'))
            page.get_by_text('exceed the maximum allowed size of 20.0 Mb').first.wait_for()
            browser.close()
    finally:
        blocks.close()
