"""Evaluation of score maps."""

import csv
import json
import re

import cv2
import numpy as np
import pytest

from tools.judge.ground_truth import read_benchmark
from tools.judge.measuring import baseline_map
from utils.errors import InputError
from utils.localization.metrics import (
    BENCHMARK_SIDE,
    THRESHOLDS,
    PxAP,
    pixel_counts,
    threshold_ious,
)


@pytest.fixture
def golden_maps(golden, tmp_path):
    """The golden arrays as files: maps, images, a list (their first boxes) and the benchmark's
    files (all boxes)."""
    arrays = golden('metrics')
    (tmp_path / 'maps').mkdir()
    ids, sizes, boxes, masks = [], [], [], []
    for number, (score_map, several, size, bits) in enumerate(zip(
            arrays['score_map'], arrays['box'], arrays['image_size'], arrays['mask'],
            strict=True)):
        name = f'{number}.png'
        np.save(tmp_path / 'maps' / f'{name}.npy', score_map / 1000)
        mask = np.unpackbits(bits, axis=-1).astype(np.uint8) * 255
        cv2.imwrite(str(tmp_path / f'mask{number}.png'), mask)
        ids.append(name)
        sizes.append(f'{name},{size[0]},{size[1]}')
        boxes += [','.join([name, *map(str, box)]) for box in several[several[:, 0] >= 0].tolist()]
        masks.append(f'{name},mask{number}.png,')
    for folder, lines in (('boxes', boxes), ('masks', masks)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / 'image_ids.txt').write_text('\n'.join(ids))
        (tmp_path / folder / 'image_sizes.txt').write_text('\n'.join(sizes))
        (tmp_path / folder / 'localization.txt').write_text('\n'.join(lines))
    return tmp_path


def values_of(results, method=None):
    """The metrics of a method, by default the first, without their intervals."""
    metrics = results['methods'][method or next(iter(results['methods']))]['metrics']
    return {name: estimate['value'] for name, estimate in metrics.items()}


def evaluate(run_script, folder, *arguments, jobs=1):
    code, out, err = run_script('tools/evaluate_maps.py', *arguments, '--out', folder / 'out',
                                '--jobs', jobs)
    assert code == 0, err
    return out, json.loads((folder / 'out' / 'evaluation.json').read_text())


def test_boxes_are_evaluated_as_by_the_benchmark(golden, golden_maps, run_script):
    out, results = evaluate(run_script, golden_maps, f'a={golden_maps / "maps"}',
                            f'b={golden_maps / "maps"}', '--metadata', golden_maps / 'boxes')
    figures, arrays = values_of(results, 'a'), golden('metrics')
    assert results['methods']['b'] == results['methods']['a']
    v2 = arrays['max_box_acc_v2']
    assert 100 * figures['max_box_acc'] == pytest.approx(arrays['max_box_acc_largest'][1])
    assert 100 * figures['max_box_acc_v2'] == pytest.approx(v2.mean())
    assert [100 * figures[f'max_box_acc_v2_iou_{delta}'] for delta in (0.3, 0.5, 0.7)
            ] == pytest.approx(v2.tolist())
    assert figures['gt_known_0.2'] == pytest.approx(
        arrays['hits_largest'][1][200] / results['count'])
    assert results['methods']['a']['curve'] == pytest.approx(
        (arrays['hits_largest'][1] / results['count']).tolist())
    assert (golden_maps / 'out' / 'evaluation.png').stat().st_size > 1000
    assert '| MaxBoxAccV2 |' in out
    assert len([line for line in out.splitlines() if line.startswith('| a |')]) == 2
    assert 'Larger than chance (p < 0.05, each metric by itself): none.' in out


def test_masks_are_evaluated_as_by_the_benchmark(golden, golden_maps, run_script):
    _, results = evaluate(run_script, golden_maps, golden_maps / 'maps', '--metadata',
                          golden_maps / 'masks', '--masks', golden_maps)
    figures = values_of(results)
    assert 100 * figures['pxap'] == pytest.approx(golden('metrics')['pxap'], abs=1e-9)
    assert 'max_box_acc' not in figures


def test_our_list_and_a_classifier(tmp_path, run_script):
    """Two images, one box right and one wrong; the classifier knows only the second."""
    from utils.outputs.top1top5 import write_top1top5

    (tmp_path / 'image').mkdir()
    (tmp_path / 'maps').mkdir()
    for name in ('right', 'wrong'):
        cv2.imwrite(str(tmp_path / 'image' / f'{name}.png'), np.zeros((224, 224, 3), np.uint8))
        score_map = np.zeros((224, 224), np.uint8)
        score_map[50:151, 20:121] = 255
        cv2.imwrite(str(tmp_path / 'maps' / f'{name}.png'), score_map)
    (tmp_path / 'val.txt').write_text('right.png,0,20 50 120 150\nwrong.png,0,150 0 200 40\n')
    write_top1top5(tmp_path / 'hits.npy', ['right.png', 'wrong.png'], [False, True], [True, True])
    _, results = evaluate(run_script, tmp_path, tmp_path / 'maps', '--list', tmp_path / 'val.txt',
                          '--top1top5', tmp_path / 'hits.npy')
    figures = values_of(results)
    assert figures['max_box_acc'] == figures['max_box_acc_v2'] == figures['gt_known_0.1'] == 0.5
    assert (figures['top1'], figures['top5']) == (0.0, 0.5)


@pytest.fixture
def instances(tmp_path):
    """Two images as in the benchmark's OpenImages30k: 'a' has two objects and an ignored region
    that reaches into the first, 'b' has one object. Maps are right but for the ignored region."""
    def write(name, *boxes):
        image = np.zeros((BENCHMARK_SIDE, BENCHMARK_SIDE), np.uint8)
        for x0, y0, x1, y1 in boxes:
            image[y0:y1, x0:x1] = 255
        path = tmp_path / 'masks' / 'val' / 'c' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), image)

    first, second, ignored = (0, 0, 50, 50), (100, 100, 150, 150), (25, 0, 100, 50)
    write('a_m1.png', first)
    write('a_m2.png', second)
    write('a_ignore.png', ignored)
    write('b_m1.png', second)
    write('a.png', first, second, ignored)
    write('b.png', second)
    (tmp_path / 'image_ids.txt').write_text('val/c/a.jpg\nval/c/b.jpg\n')
    (tmp_path / 'localization.txt').write_text(
        'val/c/a.jpg,val/c/a_m1.png,val/c/a_ignore.png\nval/c/a.jpg,val/c/a_m2.png,\n'
        'val/c/b.jpg,val/c/b_m1.png,\n')
    return tmp_path


def test_instances_are_united_and_the_ignored_region_is_left_out(instances, run_script):
    _, results = evaluate(run_script, instances, instances / 'masks', '--metadata', instances,
                          '--masks', instances / 'masks')
    figures = values_of(results)
    assert figures['pxap'] == pytest.approx(1)
    a, b = read_benchmark(instances, instances / 'masks')
    foreground, ignored = a.read_masks(BENCHMARK_SIDE)
    assert foreground.sum() == 2 * 50**2
    assert ignored.sum() == 50 * 50  # of 75 x 50; the rest is an object's
    assert not (foreground & ignored).any()
    assert b.ignored is None
    cv2.imwrite(str(instances / 'masks' / 'val' / 'c' / 'a_ignore.png'), np.zeros((8, 8), np.uint8))
    _, results = evaluate(run_script, instances, instances / 'masks', '--metadata', instances,
                          '--masks', instances / 'masks')
    right, wrong = 3 * 50**2, 50**2
    assert values_of(results)['pxap'] == pytest.approx(right / (right + wrong))


def test_a_second_ignored_region_is_refused(instances):
    path = instances / 'localization.txt'
    path.write_text(path.read_text().replace('a_m2.png,', 'a_m2.png,val/c/a.png'))
    with pytest.raises(InputError, match=r'line 2: val/c/a.jpg has a second ignored region'):
        read_benchmark(instances)


def test_ignored_pixels_do_not_count():
    score_map = np.tile(np.linspace(0, 1, BENCHMARK_SIDE), (BENCHMARK_SIDE, 1))
    mask = score_map > 0.5
    high_background = np.zeros_like(mask)
    high_background[:10] = True
    wrong = mask & ~high_background
    plain, ignoring = PxAP(), PxAP()
    plain.accumulate(score_map, wrong)
    ignoring.counts += pixel_counts(score_map, wrong, high_background)
    assert plain.compute() < 0.999
    assert ignoring.compute() == pytest.approx(1)
    assert ignoring.counts.sum() == BENCHMARK_SIDE * (BENCHMARK_SIDE - 10)


@pytest.mark.parametrize(('arguments', 'message'), [
    (['{0}/maps'], 'give either --list or --metadata'),
    (['{0}/none', '--metadata', '{0}/boxes'], 'no folder of maps'),
    (['{0}/boxes', '--metadata', '{0}/boxes'], 'no map of 0.png'),
    (['{0}/maps', '{0}/maps', '--metadata', '{0}/boxes'], 'the same name'),
    (['{0}/maps', '--metadata', '{0}/boxes', '--against', 'other'], 'choose one of'),
    (['{0}/maps', '--metadata', '{0}/boxes', '--select', '{0}/maps'], 'either --select_list or'),
    (['{0}/maps', '--metadata', '{0}/boxes', '--select_list', '{0}/x'], 'give --select together'),
    (['a={0}/maps', '--metadata', '{0}/boxes', '--select', 'b={0}/maps', '--select_metadata',
      '{0}/boxes'], 'a folder for each of a'),
    (['noise={0}/maps', '--metadata', '{0}/boxes', '--baselines'], 'choose others'),
    (['{0}/maps', '--metadata', '{0}/boxes', '--worst', '3'], '--worst needs --images'),
])
def test_wrong_arguments_are_one_line(golden_maps, run_script, arguments, message):
    code, _, err = run_script('tools/evaluate_maps.py',
                              *(text.format(golden_maps) for text in arguments),
                              '--out', golden_maps / 'out')
    assert (code, len(err.strip().splitlines())) == (2, 1)
    assert message in err
    assert not (golden_maps / 'out').exists()


@pytest.fixture
def squares(tmp_path):
    """squares('val', {method: level of the square}) -> a list of six images of 100 x 100, with one
    object each of 20 to 70 pixels, in folder 'val'. A method's maps have the object at 1, and a
    square that is too large, at the level; the first two images have no object in their maps."""
    def make(name, methods):
        lines = []
        (tmp_path / name / 'image').mkdir(parents=True)
        for number in range(6):
            side = 20 + 10 * number
            cv2.imwrite(str(tmp_path / name / 'image' / f'{number}.png'),
                        np.full((100, 100, 3), 90, np.uint8))
            lines.append(f'{number}.png,{number % 2},10 10 {10 + side} {10 + side}\n')
            for method, level in methods.items():
                score_map = np.zeros((100, 100), np.float32)
                score_map[10:, 10:] = level
                score_map[10:10 + side, 10:10 + side] = 1 if number > 1 else level
                score_map[0, 0] = 1
                (tmp_path / name / method).mkdir(exist_ok=True)
                np.save(tmp_path / name / method / f'{number}.npy', score_map)
        (tmp_path / name / 'list.txt').write_text(''.join(lines))
        return tmp_path / name
    return make


def test_processes_give_what_one_gives(squares, tmp_path, run_script):
    folder = squares('val', {'a': 0.4})
    arguments = folder / 'a', '--list', folder / 'list.txt'
    (out, alone), (_, several) = (evaluate(run_script, tmp_path, *arguments, jobs=jobs)
                                  for jobs in (1, 2))
    assert several['methods'] == alone['methods']
    assert '| maps | MaxBoxAcc |' in out


def test_transferred_figures_come_first(squares, tmp_path, run_script):
    """On the other images the object is alone above 0.6; on these above 0.8."""
    others, folder = squares('val', {'a': 0.6}), squares('test', {'a': 0.8})
    out, results = evaluate(run_script, tmp_path, folder / 'a', '--list', folder / 'list.txt',
                            '--select', others / 'a', '--select_list', others / 'list.txt')
    figures = values_of(results)
    assert figures['max_box_acc'] > figures['transferred_max_box_acc']
    thresholds = next(iter(results['methods'].values()))['cam_threshold']
    transferred, best = (thresholds[name]['max_box_acc'] for name in ('transferred', 'best'))
    assert 0.5 < transferred <= 0.6   # less than 0.6, as cubic interpolation overshoots
    assert 0.7 < best <= 0.8
    assert out.index('| MaxBoxAcc |') < out.index('MaxBoxAcc (chosen on the test images)')


def test_methods_are_compared_and_the_worst_are_drawn(squares, tmp_path, run_script):
    folder = squares('val', {'a': 0.4, 'b': 0.99})
    out, results = evaluate(run_script, tmp_path, f'a={folder / "a"}', f'b={folder / "b"}',
                            '--list', folder / 'list.txt', '--baselines', '--against', 'b',
                            '--thresholds', 0.5, '--quartiles', '--worst', 2)
    assert list(results['differences']) == ['a', 'whole image', 'centre box', 'centre Gaussian',
                                            'noise']
    first, second = (values_of(results, method) for method in 'ab')
    row = results['differences']['a']
    assert row['metrics']['gt_known_0.5']['value'] == (
        first['gt_known_0.5'] - second['gt_known_0.5'])
    assert row['mcnemar']['gt_known_0.5']['only_this'] == 6 * (
        first['gt_known_0.5'] - second['gt_known_0.5'])
    assert sum(results['sizes']['count']) == 6
    assert (results['schema_version'], results['against']) == (1, 'b')
    assert 'after Holm\'s correction for 5 methods' in out
    for name in 'ab':
        assert (tmp_path / 'out' / f'worst-{name}.png').stat().st_size > 1000
    rows, classes = (list(csv.DictReader((tmp_path / 'out' / name).read_text().splitlines()))
                     for name in ('images.csv', 'classes.csv'))
    assert len(rows) == 6 * 6
    right = [int(row['correct']) for row in rows if row['method'] == 'a']
    assert np.mean(right) == pytest.approx(first['max_box_acc'])
    assert all(float(row['best_iou']) >= float(row['iou']) for row in rows)
    assert sum(float(row['max_box_acc']) for row in classes if row['method'] == 'a') == (
        pytest.approx(2 * np.mean(right), abs=1e-3))


def test_sizes_are_those_of_the_boxes(squares, tmp_path, run_script):
    """Sides of 20 to 70 of 100: areas 4, 9, 16, 25, 36 and 49 %."""
    folder = squares('val', {'a': 0.4})
    out, results = evaluate(run_script, tmp_path, folder / 'a', '--list', folder / 'list.txt')
    assert results['sizes']['count'] == [2, 2, 2, 0]
    assert results['sizes']['edges'] == [0.1, 0.3, 0.6]
    assert [row and row['value'] for row in next(iter(results['sizes']['methods'].values()))] == [
        0, 1, 1, None]
    assert 'under 10 % (2 images)' in out


def test_baselines_are_what_they_say():
    """The box of the whole image at every threshold; a centred box of side 1 - t."""
    square, centred = (BENCHMARK_SIDE,) * 2, np.array([[56, 56, 168, 168.0]])
    whole, _ = threshold_ious(baseline_map('whole image', ''), np.array([[0, 0, 224, 224.0]]),
                              square)
    assert (whole > 0.99).all()
    for baseline in ('centre box', 'centre Gaussian'):
        ious, _ = threshold_ious(baseline_map(baseline, ''), centred, square)
        assert ious.max() > 0.98
    ious, _ = threshold_ious(baseline_map('centre box', ''), centred, square)
    assert 0.49 < THRESHOLDS[ious.argmax()] < 0.52
    noise = [baseline_map('noise', name) for name in 'aab']
    assert (noise[0] == noise[1]).all()
    assert (noise[0] != noise[2]).any()


@pytest.mark.parametrize('levels', [(0, 1), (1, 2, 3)], ids=['0 and 1', 'trimap'])
def test_masks_without_white_are_no_empty_table(golden_maps, run_script, levels):
    for path in golden_maps.glob('mask*.png'):
        mask = np.resize(np.array(levels, np.uint8), (20, 30))
        cv2.imwrite(str(path), mask)
    code, out, err = run_script('tools/evaluate_maps.py', golden_maps / 'maps', '--metadata',
                                golden_maps / 'masks', '--masks', golden_maps, '--jobs', 1,
                                '--out', golden_maps / 'out')
    assert (code, out) == (2, '')
    assert 'foreground' in err
    assert '255 * mask' in err


def test_boxes_that_stick_out_are_a_warning(golden_maps, run_script):
    path = golden_maps / 'boxes' / 'image_sizes.txt'
    lines = path.read_text().splitlines()
    path.write_text('\n'.join(['0.png,5000,5000', *lines[1:]]))
    boxes = golden_maps / 'boxes' / 'localization.txt'
    boxes.write_text('0.png,4900,10,5100,90\n' + boxes.read_text())
    code, _, err = run_script('tools/evaluate_maps.py', golden_maps / 'maps', '--metadata',
                              golden_maps / 'boxes', '--jobs', 1, '--out', golden_maps / 'out')
    assert code == 0
    assert re.search(r'warning: boxes of \d+ of 16 images stick out .* the first is 0.png', err)
