"""Evaluation of score maps: tools/evaluate_maps.py and tools/score_maps.py."""

import csv
import json

import cv2
import numpy as np
import pytest
from conftest import complaint, encoded, refused, write_image

from tools.score_maps import baseline_map, find_maps, read_score_map, read_truth
from utils.metrics import BENCHMARK_SIDE, THRESHOLDS, threshold_ious
from utils.top1top5 import write_top1top5


@pytest.fixture
def evaluate(run_script, tmp_path):
    """evaluate(arguments) -> stdout, evaluation.json and stderr of a run that succeeds."""
    def run(*arguments, jobs=1):
        out = tmp_path / 'out'
        code, stdout, err = run_script('tools/evaluate_maps.py', *arguments, '--out', out,
                                       '--jobs', jobs)
        assert code == 0, err
        return stdout, json.loads((out / 'evaluation.json').read_text()), err
    return run


def values_of(results, method=None):
    """The metrics of a method, by default the first, without their intervals."""
    metrics = results['methods'][method or next(iter(results['methods']))]['metrics']
    return {name: estimate['value'] for name, estimate in metrics.items()}


def write_lines(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(''.join(f'{line}\n' for line in lines))


@pytest.fixture
def golden_maps(golden, tmp_path):
    """The golden arrays as files: maps/, and data folders boxes/ and masks/ with a list each."""
    arrays, boxes_of = golden('metrics'), []
    for number, (score_map, several, (width, height), bits) in enumerate(zip(
            arrays['score_map'], arrays['box'], arrays['image_size'], arrays['mask'],
            strict=True)):
        name, mask = f'{number}.png', np.unpackbits(bits, axis=-1) * 255
        (tmp_path / 'maps').mkdir(exist_ok=True)
        np.save(tmp_path / 'maps' / f'{name}.npy', score_map / 1000)
        write_image(tmp_path / 'boxes' / 'image' / name, np.zeros((height, width), np.uint8))
        write_image(tmp_path / 'masks' / 'image' / name, np.zeros_like(mask))
        write_image(tmp_path / 'masks' / 'segmentation' / name, mask)
        boxes_of.append([' '.join(map(str, box)) for box in several[several[:, 0] >= 0]])
    write_lines(tmp_path / 'boxes' / 'list.txt', [
        ','.join([f'{number}.png', '0', *boxes]) for number, boxes in enumerate(boxes_of)])
    write_lines(tmp_path / 'masks' / 'list.txt', [
        f'{number}.png,0' for number in range(len(boxes_of))])
    return tmp_path


def test_boxes_are_evaluated_as_by_the_benchmark(golden, golden_maps, evaluate):
    out, results, _ = evaluate(f'a={golden_maps / "maps"}', f'b={golden_maps / "maps"}',
                               '--list', golden_maps / 'boxes' / 'list.txt')
    figures, arrays = values_of(results, 'a'), golden('metrics')
    assert results['methods']['b'] == results['methods']['a']
    v2 = arrays['max_box_acc_v2']
    assert 100 * figures['max_box_acc'] == pytest.approx(arrays['max_box_acc_largest'][1])
    assert 100 * figures['max_box_acc_v2'] == pytest.approx(v2.mean())
    assert [100 * figures[f'max_box_acc_v2_iou_{delta}'] for delta in (0.3, 0.5, 0.7)
            ] == pytest.approx(v2.tolist())
    assert results['methods']['a']['curve'] == pytest.approx(
        (arrays['hits_largest'][1] / results['count']).tolist())
    assert figures['gt_known_0.2'] == results['methods']['a']['curve'][200]
    assert out.count('| a |') == 2
    assert 'without p-values, as there are fewer than 20 images' in out
    assert ' p = ' not in out


def test_masks_are_evaluated_as_by_the_benchmark(golden, golden_maps, evaluate):
    _, results, _ = evaluate(golden_maps / 'maps', '--list', golden_maps / 'masks' / 'list.txt')
    figures = values_of(results)
    assert 100 * figures['pxap'] == pytest.approx(golden('metrics')['pxap'], abs=1e-9)
    assert 'max_box_acc' not in figures


def test_the_judge_agrees_with_the_stage(project, stage, evaluate):
    assert stage('seg', 'test', '--save_maps')[0] == 0
    folder = project / 'cub200-seg' / 'out'
    expected = json.loads((folder / 'results.json').read_text())
    _, results, _ = evaluate(folder / 'maps', '--list', project / 'data' / 'val.txt')
    figures = results['methods'][str(folder / 'maps')]['metrics']
    for name in ('max_box_acc', 'max_box_acc_v2', 'pxap'):
        assert figures[name]['value'] == expected[name]
        assert [figures[name]['low'], figures[name]['high']] == expected['intervals'][name]


@pytest.fixture
def squares(tmp_path):
    """squares('val', {'a': 0.4}, count) -> a data folder of images of 100 x 100, with one object
    each of 20 to 70 pixels. A method's maps have the object at 1, and a square that is too large
    at the method's level; the first two images have no object in their maps."""
    def make(name, methods, count=6):
        lines = []
        for number in range(count):
            side = 20 + 10 * (number % 6)
            write_image(tmp_path / name / 'image' / f'{number}.png',
                        np.zeros((100, 100, 3), np.uint8))
            lines.append(f'{number}.png,{number % 2},10 10 {10 + side} {10 + side}')
            for method, level in methods.items():
                score_map = np.zeros((100, 100), np.float32)
                score_map[10:, 10:] = level
                score_map[10:10 + side, 10:10 + side] = 1 if number > 1 else level
                score_map[0, 0] = 1
                (tmp_path / name / method).mkdir(exist_ok=True)
                np.save(tmp_path / name / method / f'{number}.npy', score_map)
        write_lines(tmp_path / name / 'list.txt', lines)
        return tmp_path / name
    return make


def test_processes_give_what_one_gives(squares, evaluate):
    folder = squares('val', {'a': 0.4})
    arguments = folder / 'a', '--list', folder / 'list.txt'
    assert evaluate(*arguments, jobs=2)[1]['methods'] == evaluate(*arguments)[1]['methods']


def test_transferred_figures_come_first(squares, evaluate):
    """On the other images the object is alone above 0.6; on these above 0.8."""
    others, folder = squares('others', {'a': 0.6}), squares('val', {'a': 0.8})
    out, results, _ = evaluate(folder / 'a', '--list', folder / 'list.txt', '--select',
                               others / 'a', '--select_list', others / 'list.txt')
    figures, method = values_of(results), results['methods'][str(folder / 'a')]
    assert figures['max_box_acc'] > figures['transferred_max_box_acc']
    transferred, best = (method['cam_threshold'][name]['max_box_acc']
                         for name in ('transferred', 'best'))
    assert 0.5 < transferred <= 0.6   # less than 0.6, as cubic interpolation overshoots
    assert 0.7 < best <= 0.8
    assert out.index('| MaxBoxAcc |') < out.index('MaxBoxAcc (chosen on the test images)')


def test_maps_of_other_images_are_found_by_name(squares, evaluate):
    others, folder = squares('others', {'a': 0.6, 'b': 0.3}), squares('val', {'a': 0.8, 'b': 0.8})
    _, results, _ = evaluate(*(f'{name}={folder / name}' for name in 'ab'), '--list',
                             folder / 'list.txt', '--select', *(
                                 f'{name}={others / name}' for name in 'ba'),
                             '--select_list', others / 'list.txt')
    a, b = (results['methods'][name]['cam_threshold']['transferred']['max_box_acc']
            for name in 'ab')
    assert b < 0.4 < a


def test_methods_are_compared(squares, tmp_path, evaluate):
    folder = squares('val', {'a': 0.4, 'b': 0.99})
    write_top1top5(tmp_path / 'hits.npy', [f'{number}.png' for number in range(6)],
                   np.array([[False, False]] * 4 + [[False, True], [True, True]]))
    _, results, _ = evaluate(f'a={folder / "a"}', f'b={folder / "b"}', '--list',
                             folder / 'list.txt', '--baselines', '--against', 'b', '--thresholds',
                             0.5, '--top1top5', tmp_path / 'hits.npy')
    assert list(results['differences']) == ['a', 'whole image', 'centre box', 'centre Gaussian']
    first, second = (values_of(results, method) for method in 'ab')
    assert (first['top1'], first['top5'], first['max_box_acc']) == (1 / 6, 2 / 6, 4 / 6)
    row = results['differences']['a']['metrics']['gt_known_0.5']
    assert row['value'] == first['gt_known_0.5'] - second['gt_known_0.5'] > 0
    assert row['only_this'] == 6 * row['value']
    assert (results['schema_version'], results['against']) == (1, 'b')
    assert cv2.imread(str(tmp_path / 'out' / 'evaluation.png')).std() > 10
    rows = list(csv.DictReader((tmp_path / 'out' / 'images.csv').open()))
    assert len(rows) == 5 * 6
    right = [int(row['correct']) for row in rows if row['method'] == 'a']
    assert np.mean(right) == pytest.approx(first['max_box_acc'])


def test_at_fixed_thresholds_the_exact_test_decides(squares, evaluate):
    """4 : 0 of 24 images: p = 0.125, though the bootstrap's interval excludes 0."""
    folder = squares('val', {'a': 0.4, 'b': 0.4}, count=24)
    for number in (5, 11, 17, 23):
        np.save(folder / 'b' / f'{number}.npy', np.eye(100))
    out, results, _ = evaluate(f'a={folder / "a"}', f'b={folder / "b"}', '--list',
                               folder / 'list.txt', '--thresholds', 0.5)
    row = results['differences']['b']['metrics']['gt_known_0.5']
    assert (row['only_this'], row['only_other'], row['p']) == (0, 4, 0.125)
    assert row['high'] < 0
    assert '0 : 4 p = 0.12 |' in out


def test_sizes_are_those_of_the_boxes(squares, evaluate):
    """Sides of 20 to 70 of 100: areas 4, 9, 16, 25, 36 and 49 %."""
    folder = squares('val', {'a': 0.4})
    out, results, _ = evaluate(folder / 'a', '--list', folder / 'list.txt')
    sizes = results['sizes']
    assert (sizes['count'], sizes['edges']) == ([2, 2, 2, 0], [0.1, 0.3, 0.6])
    found = sizes['methods'][str(folder / 'a')]
    assert [row and row['value'] for row in found] == [0, 1, 1, None]
    assert found[0]['high'] == pytest.approx(0.6576, abs=1e-4)  # Wilson's, 0 of 2
    assert '0 to 10 % (2 images)' in out


def test_baselines_are_what_they_say():
    """The box of the whole image at every threshold; a centred box of side 1 - t."""
    square, centred = (BENCHMARK_SIDE,) * 2, np.array([[56, 56, 168, 168.0]])
    whole, _ = threshold_ious(baseline_map('whole image'), np.array([[0, 0, 224, 224.0]]), square)
    assert (whole > 0.99).all()
    for baseline in ('centre Gaussian', 'centre box'):
        ious, _ = threshold_ious(baseline_map(baseline), centred, square)
        assert ious.max() > 0.98
    assert 0.49 < THRESHOLDS[ious.argmax()] < 0.52


LIST = ['--list', '{0}/list.txt']
SELECT = ['--select', '{0}/b', '--select_list', '{0}/list.txt']


@pytest.mark.parametrize(('arguments', 'message'), [
    (['{0}/a'], 'the following arguments are required: --list'),
    (['x={0}/none', *LIST], '{0}/none has 0 maps of 0.png: expected one'),
    (['{0}/image', *LIST], '2 maps of 0.png'),
    (['{0}/a', '{0}/a', *LIST], 'the same name'),
    (['centre box={0}/a', *LIST, '--baselines'], 'the same name'),
    (['{0}/a', *LIST, '--against', 'other'], 'choose one of'),
    (['{0}/a', *LIST, '--select_list', '{0}/x'], 'give --select with the same names'),
    (['a={0}/a', 'b={0}/b', *LIST, '--select', 'b={0}/b', 'c={0}/a', '--select_list', '{0}/x'],
     'give --select with the same names'),
    (['{0}/a', *LIST, *SELECT], '6 images of {0}/list.txt are also tested, such as 0.png'),
    (['{0}/a', '--list', '{0}/no_boxes.txt'], 'no boxes'),
    (['{0}/a', '--list', '{0}/masks/list.txt', *SELECT], 'need boxes'),
    (['{0}/a', '--list', '{0}/masks/list.txt', '--top1top5', '{0}/x'], 'need boxes'),
])
def test_wrong_arguments_are_one_line(squares, tmp_path, run_script, arguments, message):
    folder = squares('val', {'a': 0.4, 'b': 0.4})
    (folder / 'image' / '0.png.png').write_bytes((folder / 'image' / '0.png').read_bytes())
    for name in ('image', 'segmentation'):
        write_image(folder / 'masks' / name / '0.png', np.zeros((9, 9), np.uint8))
    for name in ('no_boxes.txt', 'masks/list.txt'):
        write_lines(folder / name, ['0.png,0'])
    refused(run_script('tools/evaluate_maps.py', *(text.format(folder) for text in arguments),
                       '--jobs', 1, '--out', tmp_path / 'out'), message.format(folder))
    assert not (tmp_path / 'out').exists()


def test_maps_without_content_are_a_warning(squares, evaluate):
    folder = squares('val', {'a': 0.4})
    np.save(folder / 'a' / '2.npy', np.full((9, 9), np.nan))
    np.save(folder / 'a' / '3.npy', np.ones((9, 9)))
    for number in range(6):  # the objects are black
        write_image(folder / 'segmentation' / f'{number}.png', 255 * (np.eye(100) == 0))
    _, results, err = evaluate(folder / 'a', '--list', folder / 'list.txt')
    assert '2 of 6 maps are constant or have NaN' in err
    assert '6 of 6 ground-truth masks touch all four borders' in err
    assert values_of(results)['max_box_acc'] == 2 / 6


def test_transposed_maps_are_refused(squares, run_script):
    folder = squares('val', {'a': 0.4}, count=1)
    write_image(folder / 'image' / '0.png', np.zeros((100, 80, 3), np.uint8))
    arguments = folder / 'a', '--list', folder / 'list.txt', '--jobs', 1, '--out', folder / 'out'
    for shape, code in (((100, 80), 0), ((50, 50), 0), ((80, 100), 2)):
        np.save(folder / 'a' / '0.npy', np.eye(*shape))
        result = run_script('tools/evaluate_maps.py', *arguments)
        assert result[0] == code
    refused(result, '1 of 1 maps have the size of their image turned')


def test_maps_are_found_by_the_name_with_and_without_its_suffix(squares):
    folder = squares('val', {'a': 0.4}, count=2)
    (folder / 'a' / '0.npy').rename(folder / 'a' / '0.png.npy')
    found = find_maps(folder / 'a', read_truth(folder / 'list.txt'))
    assert [path.name for path in found] == ['0.png.npy', '1.npy']


def test_png_of_8_and_16_bits_and_arrays_give_the_same_map(tmp_path):
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    write_image(tmp_path / '8.png', levels)
    write_image(tmp_path / '16.png', levels.astype(np.uint16) * 257)
    write_image(tmp_path / 'equal.png', np.dstack([levels] * 3))
    np.save(tmp_path / 'a.npy', levels[None].astype(np.float16) / 256)
    eight, sixteen, equal, array = (read_score_map(tmp_path / name)
                                    for name in ('8.png', '16.png', 'equal.png', 'a.npy'))
    for same in (equal, sixteen / 257, array * 256):
        np.testing.assert_array_equal(same, eight)


@pytest.mark.parametrize(('array', 'message'), [
    (np.zeros((2, 3, 4)), '(2, 3, 4)'),
    (np.where(np.eye(3), 0, -np.inf), 'infinite'),
    (np.array([{}]), 'not an array of numbers'),
    (np.zeros((4, 4), complex), 'complex'),
])
def test_what_is_no_map_is_one_clear_error(tmp_path, array, message):
    np.save(tmp_path / 'a.npy', array)
    assert message in complaint(read_score_map, tmp_path / 'a.npy')


@pytest.mark.parametrize(('name', 'content', 'message'), [
    ('cut.npy', b'\x93NUMPY', 'cut.npy'),
    ('cut.png', b'\x89PNG', 'cut.png'),
    ('jet.png', encoded(cv2.applyColorMap(np.eye(9, dtype=np.uint8), cv2.COLORMAP_JET)),
     'colours or an alpha channel'),
])
def test_a_file_that_is_no_map_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    assert message in complaint(read_score_map, tmp_path / name)
