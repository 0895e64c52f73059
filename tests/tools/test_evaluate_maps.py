"""Evaluation of score maps."""

import json

import cv2
import numpy as np
import pytest

from utils.data.ground_truth import read_benchmark
from utils.errors import InputError
from utils.localization.metrics import BENCHMARK_SIDE, PxAP, pixel_counts


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


def evaluate(run_script, folder, *arguments):
    code, out, err = run_script('tools/evaluate_maps.py', *arguments, '--out', folder / 'out')
    assert code == 0, err
    return out, json.loads((folder / 'out' / 'evaluation.json').read_text())


def test_boxes_are_evaluated_as_by_the_benchmark(golden, golden_maps, run_script):
    out, results = evaluate(run_script, golden_maps, f'a={golden_maps / "maps"}',
                            f'b={golden_maps / "maps"}', '--metadata', golden_maps / 'boxes')
    figures, arrays = results['a'], golden('metrics')
    assert results['b'] == figures
    v2 = arrays['max_box_acc_v2']
    assert 100 * figures['max_box_acc'] == pytest.approx(arrays['max_box_acc_largest'][1])
    assert 100 * figures['max_box_acc_v2'] == pytest.approx(v2.mean())
    assert [100 * value for value in figures['v2_at_delta'].values()] == pytest.approx(v2.tolist())
    assert figures['gt_known']['0.2'] == pytest.approx(
        arrays['hits_largest'][1][200] / figures['count'])
    assert (golden_maps / 'out' / 'evaluation.png').stat().st_size > 1000
    assert '| MaxBoxAccV2 |' in out
    assert len([line for line in out.splitlines() if line.startswith(('| a |', '| b |'))]) == 2


def test_masks_are_evaluated_as_by_the_benchmark(golden, golden_maps, run_script):
    _, results = evaluate(run_script, golden_maps, golden_maps / 'maps', '--metadata',
                          golden_maps / 'masks', '--masks', golden_maps)
    figures = results[str(golden_maps / 'maps')]
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
    figures, = results.values()
    assert figures['max_box_acc'] == figures['max_box_acc_v2'] == figures['gt_known']['0.1'] == 0.5
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
    figures, = results.values()
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
    assert next(iter(results.values()))['pxap'] == pytest.approx(right / (right + wrong))


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
    ignoring.accumulate_counts(pixel_counts(score_map, wrong, high_background))
    assert plain.compute() < 0.999
    assert ignoring.compute() == pytest.approx(1)
    assert ignoring.counts.sum() == BENCHMARK_SIDE * (BENCHMARK_SIDE - 10)


@pytest.mark.parametrize(('arguments', 'message'), [
    (['{0}/maps'], 'give either --list or --metadata'),
    (['{0}/none', '--metadata', '{0}/boxes'], 'no folder of maps'),
    (['{0}/boxes', '--metadata', '{0}/boxes'], 'no map of 0.png'),
    (['{0}/maps', '{0}/maps', '--metadata', '{0}/boxes'], 'the same name'),
])
def test_wrong_arguments_are_one_line(golden_maps, run_script, arguments, message):
    code, _, err = run_script('tools/evaluate_maps.py',
                              *(text.format(golden_maps) for text in arguments),
                              '--out', golden_maps / 'out')
    assert (code, len(err.strip().splitlines())) == (2, 1)
    assert message in err
    assert not (golden_maps / 'out').exists()
