"""Evaluation of score maps: tools/evaluate_maps.py and tools/score_maps.py."""

import csv
import json

import cv2
import numpy as np
import pytest
from conftest import complaint, encoded, refused, write_image

from tools.score_maps import baseline_map, find_maps, from_metadata, read_masks, read_score_map
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
    """The golden arrays as files: maps, and the benchmark's files with boxes and with masks."""
    arrays = golden('metrics')
    (tmp_path / 'maps').mkdir()
    ids, sizes, boxes, masks = [], [], [], []
    for number, (score_map, several, size, bits) in enumerate(zip(
            arrays['score_map'], arrays['box'], arrays['image_size'], arrays['mask'],
            strict=True)):
        name = f'{number}.png'
        np.save(tmp_path / 'maps' / f'{name}.npy', score_map / 1000)
        write_image(tmp_path / f'mask{number}.png', np.unpackbits(bits, axis=-1) * 255)
        ids.append(name)
        sizes.append(f'{name},{size[0]},{size[1]}')
        boxes += [','.join([name, *map(str, box)]) for box in several[several[:, 0] >= 0].tolist()]
        masks.append(f'{name},mask{number}.png,')
    for folder, lines in (('boxes', boxes), ('masks', masks)):
        write_lines(tmp_path / folder / 'image_ids.txt', ids)
        write_lines(tmp_path / folder / 'image_sizes.txt', sizes)
        write_lines(tmp_path / folder / 'class_labels.txt', [f'{name},0' for name in ids])
        write_lines(tmp_path / folder / 'localization.txt', lines)
    return tmp_path


def test_boxes_are_evaluated_as_by_the_benchmark(golden, golden_maps, evaluate):
    out, results, _ = evaluate(f'a={golden_maps / "maps"}', f'b={golden_maps / "maps"}',
                               '--metadata', golden_maps / 'boxes')
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
    _, results, _ = evaluate(golden_maps / 'maps', '--metadata', golden_maps / 'masks', '--masks',
                             golden_maps)
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
                        np.full((100, 100, 3), 30 * len(name) + number, np.uint8))
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


def test_methods_are_compared_and_the_worst_are_drawn(squares, tmp_path, evaluate):
    folder = squares('val', {'a': 0.4, 'b': 0.99})
    write_top1top5(tmp_path / 'hits.npy', [f'{number}.png' for number in range(6)],
                   np.array([[False, False]] * 4 + [[False, True], [True, True]]))
    _, results, _ = evaluate(f'a={folder / "a"}', f'b={folder / "b"}', '--list',
                             folder / 'list.txt', '--baselines', '--against', 'b', '--thresholds',
                             0.5, '--quartiles', '--worst', 2, '--top1top5', tmp_path / 'hits.npy')
    assert list(results['differences']) == ['a', 'whole image', 'centre box', 'centre Gaussian',
                                            'noise']
    first, second = (values_of(results, method) for method in 'ab')
    assert (first['top1'], first['top5'], first['max_box_acc']) == (1 / 6, 2 / 6, 4 / 6)
    row = results['differences']['a']['metrics']['gt_known_0.5']
    assert row['value'] == first['gt_known_0.5'] - second['gt_known_0.5'] > 0
    assert row['only_this'] == 6 * row['value']
    assert (results['schema_version'], results['against']) == (1, 'b')
    assert sum(results['sizes']['count']) == 6
    for name in ('evaluation', 'worst-a', 'worst-b'):
        assert cv2.imread(str(tmp_path / 'out' / f'{name}.png')).std() > 10
    rows, classes = (list(csv.DictReader((tmp_path / 'out' / name).open()))
                     for name in ('images.csv', 'classes.csv'))
    assert len(rows) == 6 * 6
    right = [int(row['correct']) for row in rows if row['method'] == 'a']
    assert np.mean(right) == pytest.approx(first['max_box_acc'])
    assert all(float(row['best_iou']) >= float(row['iou']) for row in rows)
    assert [(row['label'], row['images'], row['max_box_acc']) for row in classes[:2]] == [
        ('0', '3', '0.6667'), ('1', '3', '0.6667')]


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


def test_instances_are_united_and_the_ignored_region_is_left_out(tmp_path, evaluate):
    """Two images as in OpenImages30k: 'a' has two objects and an ignored region that reaches into
    the first, 'b' has one object. Maps are right but for the ignored region."""
    masks = tmp_path / 'masks'

    def write(name, *boxes):
        image = np.zeros((BENCHMARK_SIDE, BENCHMARK_SIDE), np.uint8)
        for x0, y0, x1, y1 in boxes:
            image[y0:y1, x0:x1] = 255
        write_image(masks / 'c' / name, image)

    first, second, ignored = (0, 0, 50, 50), (100, 100, 150, 150), (25, 0, 100, 50)
    write('a_m1.png', first)
    write('a_m2.png', second)
    write('a_ignore.png', ignored)
    write('b_m1.png', second)
    write('a.png', first, second, ignored)
    write('b.png', second)
    write_lines(tmp_path / 'image_ids.txt', ['c/a.jpg', 'c/b.jpg'])
    write_lines(tmp_path / 'class_labels.txt', ['c/a.jpg,0', 'c/b.jpg,1'])
    write_lines(tmp_path / 'localization.txt', [
        'c/a.jpg,c/a_m1.png,c/a_ignore.png', 'c/a.jpg,c/a_m2.png,', 'c/b.jpg,c/b_m1.png,'])
    arguments = masks, '--metadata', tmp_path, '--masks', masks
    assert values_of(evaluate(*arguments)[1])['pxap'] == pytest.approx(1)
    foreground, ignored = read_masks(from_metadata(tmp_path, masks)[0])
    assert (foreground.sum(), ignored.sum()) == (2 * 50**2, 50 * 50)  # the rest is an object's
    assert not (foreground & ignored).any()
    write_image(masks / 'c' / 'a_ignore.png', np.zeros((8, 8), np.uint8))
    right, wrong = 3 * 50**2, 50**2
    assert values_of(evaluate(*arguments)[1])['pxap'] == pytest.approx(right / (right + wrong))


def test_baselines_are_what_they_say():
    """The box of the whole image at every threshold; a centred box of side 1 - t."""
    square, centred = (BENCHMARK_SIDE,) * 2, np.array([[56, 56, 168, 168.0]])
    whole, _ = threshold_ious(baseline_map('whole image', ''), np.array([[0, 0, 224, 224.0]]),
                              square)
    assert (whole > 0.99).all()
    for baseline in ('centre Gaussian', 'centre box'):
        ious, _ = threshold_ious(baseline_map(baseline, ''), centred, square)
        assert ious.max() > 0.98
    assert 0.49 < THRESHOLDS[ious.argmax()] < 0.52
    first, second = (baseline_map('noise', name) for name in 'ab')
    assert (first != second).any()


LIST = ['--list', '{0}/list.txt']
SELECT = [*LIST, '--select', '{0}/b', '--select_list']


@pytest.mark.parametrize(('arguments', 'message'), [
    (['{0}/a'], 'one of the arguments --list --metadata is required'),
    (['x={0}/none', *LIST], '{0}/none has 0 maps of 0.png: expected one'),
    (['{0}/image', *LIST], '2 maps of 0.png'),
    (['{0}/a', '{0}/a', *LIST], 'the same name'),
    (['noise={0}/a', *LIST, '--baselines'], 'the same name'),
    (['{0}/a', *LIST, '--against', 'other'], 'choose one of'),
    (['{0}/a', *LIST, '--select_list', '{0}/x'], 'give --select with the same names'),
    (['a={0}/a', 'b={0}/b', *LIST, '--select', 'b={0}/b', 'c={0}/a', '--select_list', '{0}/x'],
     'give --select with the same names'),
    (['{0}/a', *SELECT, '{0}/list.txt'], '6 images are also tested, such as 0.png'),
    (['{0}/a', *SELECT, '{0}/renamed/list.txt'], '1 images are also tested, such as other.png'),
    (['{0}/a', '--metadata', '{0}'], 'image_ids.txt'),
    (['{0}/a', '--metadata', '{0}', '--worst', '1'], 'give it instead of --metadata'),
    (['{0}/a', '--list', '{0}/no_boxes.txt'], 'no boxes'),
])
def test_wrong_arguments_are_one_line(squares, tmp_path, run_script, arguments, message):
    folder = squares('val', {'a': 0.4, 'b': 0.4})
    (folder / 'image' / '0.png.png').write_bytes((folder / 'image' / '0.png').read_bytes())
    write_lines(folder / 'no_boxes.txt', ['0.png,0'])
    write_lines(folder / 'renamed' / 'list.txt', ['other.png,0,10 10 30 30'])
    (folder / 'renamed' / 'image').mkdir()
    (folder / 'renamed' / 'image' / 'other.png').hardlink_to(folder / 'image' / '3.png')
    (folder / 'b' / 'other.npy').hardlink_to(folder / 'b' / '3.npy')
    refused(run_script('tools/evaluate_maps.py', *(text.format(folder) for text in arguments),
                       '--jobs', 1, '--out', tmp_path / 'out'), message.format(folder))
    assert not (tmp_path / 'out').exists()


def test_masks_alone_have_no_boxes_to_choose_with(golden_maps, run_script):
    masks = golden_maps / 'masks'
    refused(run_script('tools/evaluate_maps.py', golden_maps / 'maps', '--metadata', masks,
                       '--masks', golden_maps, '--select', golden_maps / 'maps',
                       '--select_metadata', masks), 'need boxes')


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


METADATA = {'image_ids.txt': ['a/1.jpg', 'a/2.jpg'],
            'image_sizes.txt': ['a/1.jpg,500,300', 'a/2.jpg,10,20'],
            'class_labels.txt': ['a/1.jpg,4', 'a/2.jpg,0'],
            'localization.txt': ['a/1.jpg,1,2,30,40', 'a/2.jpg,0,0,5,6', 'a/1.jpg,7,7,7,7']}


@pytest.fixture
def metadata(tmp_path):
    """metadata('image_sizes.txt', lines) -> a folder with the benchmark's files, one replaced."""
    def make(file='image_ids.txt', lines=METADATA['image_ids.txt']):
        for name, content in {**METADATA, file: lines}.items():
            write_lines(tmp_path / name, content)
        return tmp_path
    return make


def test_several_lines_are_of_one_image(metadata):
    first, second = from_metadata(metadata())
    assert (first.name, first.size, first.label) == ('a/1.jpg', (300, 500), 4)
    assert first.boxes.tolist() == [[1, 2, 30, 40], [7, 7, 7, 7]]  # one of one pixel
    assert (second.boxes.tolist(), second.masks) == ([[0, 0, 5, 6]], ())


@pytest.mark.parametrize(('file', 'lines', 'message'), [
    ('localization.txt', ['a/1.jpg,1,2,30,40', 'a/2.jpg,0,0,5'], 'columns changed'),
    ('localization.txt', ['a/1.jpg,1,2,3', 'a/2.jpg,0,0,5'], 'expected 4, got 3'),
    ('localization.txt', ['a/1.jpg,1,2,30,forty', 'a/2.jpg,0,0,5,6'], 'forty'),
    ('localization.txt', ['a/1.jpg,1,2,30,40'], 'no line of 1 images'),
    ('localization.txt', ['a/1.jpg,30,2,1,40', 'a/2.jpg,0,0,5,6'], 'ends before it begins'),
    ('localization.txt', ['a/1.jpg,1,2,3,4', 'a/2.jpg,10,0,15,6'], 'outside its image'),
    ('localization.txt', ['a/1.jpg,0.1,0.2,0.5,0.6', 'a/2.jpg,0,0,1,1'], 'fractions'),
    ('localization.txt', ['a/1.jpg,../m,', 'a/2.jpg,m,'], 'does not stay in the data folder'),
    ('image_ids.txt', ['../1.jpg'], 'does not stay in the data folder'),
    ('class_labels.txt', ['a/1.jpg,4', 'a/2.jpg,ant'], "'ant'"),
])
def test_a_bad_line_is_named(metadata, file, lines, message):
    assert message in complaint(from_metadata, metadata(file, lines))


def test_maps_are_found_by_the_name_with_and_without_its_suffix(tmp_path, metadata):
    for name in ('1.jpg.npy', '2.png'):
        write_lines(tmp_path / 'a' / name, [])
    found = find_maps(tmp_path, from_metadata(metadata()))
    assert [path.name for path in found] == ['1.jpg.npy', '2.png']


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
