"""The judge of score maps."""

import json

import cv2
import numpy as np
import pytest

from utils.localization.metrics import SIDE, PxAP, pixel_counts


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


def test_boxes_are_judged_as_by_the_benchmark(golden, golden_maps, run_script):
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


def test_masks_are_judged_as_by_the_benchmark(golden, golden_maps, run_script):
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


def test_ignored_pixels_do_not_count():
    score_map = np.tile(np.linspace(0, 1, SIDE), (SIDE, 1))
    mask = score_map > 0.5
    high_background = np.zeros_like(mask)
    high_background[:10] = True
    wrong = mask & ~high_background
    plain, ignoring = PxAP(), PxAP()
    plain.accumulate(score_map, wrong)
    ignoring.accumulate_counts(pixel_counts(score_map, wrong, high_background))
    assert plain.compute() < 0.999
    assert ignoring.compute() == pytest.approx(1)
    assert ignoring.counts.sum() == SIDE * (SIDE - 10)


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
