"""The field's metrics: by hand, and against a reference that binarises a thousand times."""

import cv2
import numpy as np
import pytest

from utils.metrics import MaxBoxAcc, PxAP, normalise_map

BENCHMARK_SIDE = 224
SQUARE = (BENCHMARK_SIDE, BENCHMARK_SIDE)  # boxes of such an image are those of the map


def map_of(*blobs):
    """A map of zeros with (x0, y0, x1, y1, value) filled, later ones over earlier ones."""
    score_map = np.zeros(SQUARE)
    for x0, y0, x1, y1, value in blobs:
        score_map[y0:y1, x0:x1] = value
    return score_map


def hits(score_map, *boxes, deltas=(0.5,), multi_contour=False, size=SQUARE):
    metric = MaxBoxAcc(deltas, multi_contour)
    metric.accumulate(score_map, np.array(boxes), size)
    return metric.hits


BLOB = map_of((40, 50, 140, 100, 1))
BOX = (40, 50, 140, 100)


@pytest.mark.parametrize('multi_contour', [False, True])
def test_a_plain_blob_is_right_at_every_threshold(multi_contour):
    assert hits(BLOB, BOX, deltas=(1.0,), multi_contour=multi_contour).tolist() == [[1] * 1000]


def test_the_scores_range_does_not_matter():
    assert hits(-3 + 1e-9 * BLOB, BOX, deltas=(1.0,)).all()
    assert hits(1e6 * BLOB + 5, BOX, deltas=(1.0,)).all()


def test_last_pixels_belong_to_boxes():
    """A blob of 10 x 10 has the box 20 20 30 30: 11 x 11 = 121 pixels. A box of 7 x 7 in it has
    8 x 8 = 64 pixels, and 64 / 121 > 0.5, though 49 / 100 < 0.5."""
    score_map = map_of((20, 20, 30, 30, 1))
    assert hits(score_map, (20, 20, 27, 27)).all()
    assert not hits(score_map, (20, 20, 27, 26)).any()  # 8 x 7 = 56 of 121


def test_an_iou_of_exactly_delta_is_right():
    """10 x 11 pixels and the left 5 x 11 of them: 55 / 110."""
    assert hits(map_of((20, 20, 29, 30, 1)), (20, 20, 24, 30)).all()


def test_found_boxes_end_at_223_and_ground_truth_is_not_clipped():
    """The blob's box is 214 0 223 10: 10 columns of the ground truth's 11; 10 / 11 = 0.909."""
    found = hits(map_of((214, 0, 224, 10, 1)), (214, 0, 224, 10), deltas=(0.9, 0.91))
    assert found[0].all()
    assert not found[1].any()


def test_the_largest_contour_alone_or_the_best_of_all():
    score_map = map_of((10, 10, 60, 60, 1), (100, 100, 200, 200, 1))
    small, large = (10, 10, 60, 60), (100, 100, 200, 200)
    assert hits(score_map, large).all()
    assert not hits(score_map, small).any()
    assert hits(score_map, large, multi_contour=True).all()
    assert hits(score_map, small, multi_contour=True).all()
    assert not hits(score_map, (0, 0, 223, 223), multi_contour=True).any()


def test_any_of_several_ground_truth_boxes_will_do():
    assert hits(BLOB, (0, 0, 5, 5), BOX, (200, 200, 210, 210)).all()
    assert not hits(BLOB, (0, 0, 5, 5), (200, 200, 210, 210)).any()


def test_thresholds_are_relative_to_the_highest_byte_and_strict():
    """Bytes 255 and floor(0.5 * 255) = 127. The outer blob is there while floor(t * 255) < 127:
    0.498 * 255 = 126.99 -> 126, but 0.499 * 255 = 127.2 -> 127."""
    score_map = map_of((20, 20, 120, 120, 0.5), (50, 50, 80, 80, 1))
    outer, inner = (20, 20, 120, 120), (50, 50, 80, 80)
    assert np.flatnonzero(hits(score_map, outer)[0]).tolist() == list(range(499))
    assert np.flatnonzero(hits(score_map, inner)[0]).tolist() == list(range(499, 1000))


def test_compute_gives_the_best_fraction_and_its_first_threshold():
    """Outer right below 0.499, inner from there on: one image for the first, two for the second."""
    score_map = map_of((20, 20, 120, 120, 0.5), (50, 50, 80, 80, 1))
    metric = MaxBoxAcc()
    for box in ((20, 20, 120, 120), (50, 50, 80, 80), (50, 50, 80, 80), (200, 0, 210, 10)):
        metric.accumulate(score_map, np.array([box]), SQUARE)
    figures, thresholds = metric.compute()
    assert figures.tolist() == [2 / 4]
    assert thresholds.tolist() == [0.499]


def test_each_delta_has_a_best_threshold_of_its_own():
    """Ground truth 20 20 120 86: 101 x 67 pixels of the outer blob's 101 x 101, IoU 0.663; the
    inner blob, 31 x 31 of 101 x 67, has 0.142."""
    score_map = map_of((20, 20, 120, 120, 0.5), (50, 50, 80, 80, 1))
    metric = MaxBoxAcc((0.1, 0.3, 0.5, 0.7))
    metric.accumulate(score_map, np.array([[20, 20, 120, 86]]), SQUARE)
    assert metric.hits.sum(1).tolist() == [1000, 499, 499, 0]
    assert metric.compute()[0].tolist() == [1, 1, 1, 0]
    assert metric.compute()[1].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize('multi_contour', [False, True])
@pytest.mark.parametrize('score_map', [
    np.zeros(SQUARE), np.full(SQUARE, 7.5), np.where(BLOB > 0, np.nan, 0),
    np.full(SQUARE, np.nan)], ids=['zero', 'constant', 'some NaN', 'all NaN'])
def test_a_map_that_says_nothing_gives_the_box_0_0_0_0(score_map, multi_contour):
    """One pixel: 1 / 4 of the box 0 0 1 1."""
    found = hits(score_map, (0, 0, 1, 1), deltas=(0.25, 0.26), multi_contour=multi_contour)
    assert found[0].all()
    assert not found[1].any()


@pytest.mark.parametrize(('values', 'expected'), [
    ([1, 3, 2], [0, 1, 0.5]),
    ([-2, -2, -2], [0, 0, 0]),
    ([0, np.nan, 1], [0, 0, 0]),
])
def test_normalise_map_takes_the_range_to_0_1(values, expected):
    found = normalise_map(np.array([values], np.float32))
    assert found.dtype == np.float64
    assert found.tolist() == [expected]


def test_ground_truth_is_scaled_to_224_by_width_and_height():
    """Width 448, height 112: x / 2, y * 2."""
    assert hits(BLOB, (80, 25, 280, 50), deltas=(1.0,), size=(112, 448)).all()


def test_scaled_ground_truth_is_truncated():
    """Width 448: 81 / 2 = 40.5 -> 40, 281 / 2 = 140.5 -> 140."""
    assert hits(BLOB, (81, 25, 281, 50), deltas=(1.0,), size=(112, 448)).all()


def test_scaled_ground_truth_that_is_whole_stays_whole():
    """45 * 224 / 80 = 126 exactly, but 45 * (224 / 80) = 125.99999999999999. The blob's box is
    126 126 223 223, 98 x 98 pixels, of which the ground truth 126 126 224 224 has 99 x 99:
    0.9799. From 125 on it would be 100 x 100: 0.9604."""
    score_map = map_of((126, 126, 224, 224, 1))
    assert hits(score_map, (45, 45, 80, 80), deltas=(0.97,), size=(80, 80)).all()


def reference_box_hits(score_map, boxes, size, deltas, multi_contour):
    """As the metric is defined: one binary map a threshold."""
    height, width = size
    boxes = [[int(x0 * BENCHMARK_SIDE / width), int(y0 * BENCHMARK_SIDE / height),
              int(x1 * BENCHMARK_SIDE / width),
              int(y1 * BENCHMARK_SIDE / height)] for x0, y0, x1, y1 in boxes]
    low, high = score_map.min(), score_map.max()
    map8 = np.floor((score_map - low) / (high - low) * 255).astype(np.uint8)
    found = np.zeros((len(deltas), 1000), int)
    for k in range(1000):
        binary = (map8 > int(k / 1000 * map8.max())).astype(np.uint8)
        contours = cv2.findContours(binary, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]
        if not multi_contour:
            contours = sorted(contours, key=cv2.contourArea, reverse=True)[:1]  # stable
        best = 0
        for contour in contours:
            x, y, w, h = cv2.boundingRect(contour)
            a = (x, y, min(x + w, 223), min(y + h, 223))
            best = max([best, *(inclusive_iou(a, b) for b in boxes)])
        found[:, k] = [best >= delta for delta in deltas]
    return found


def inclusive_iou(a, b):
    def area(x0, y0, x1, y1):
        return max(0, x1 - x0 + 1) * max(0, y1 - y0 + 1)

    both = area(max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3]))
    return both / (area(*a) + area(*b) - both)


def smooth_map(rng, sigma=22):
    return cv2.GaussianBlur(rng.random(SQUARE), (0, 0), sigma)


@pytest.mark.parametrize('multi_contour', [False, True])
def test_hits_are_those_of_a_thousand_binary_maps(multi_contour):
    rng = np.random.default_rng(5)
    deltas = (0.3, 0.5, 0.7)
    for size in ((375, 500), (333, 291)):
        score_map = smooth_map(rng)
        corners = rng.integers(0, 200, (3, 2))
        boxes = np.hstack([corners, corners + rng.integers(40, 260, (3, 2))]).astype(float)
        expected = reference_box_hits(score_map, boxes, size, deltas, multi_contour)
        assert 0 < expected.sum() < expected.size
        found = hits(score_map, *boxes, deltas=deltas, multi_contour=multi_contour, size=size)
        np.testing.assert_array_equal(found, expected)


LEFT, TOP = np.zeros((2, *SQUARE), bool)
LEFT[:, :112] = True
TOP[:112] = True


def pxap(*pairs):
    metric = PxAP()
    for score_map, mask in pairs:
        metric.accumulate(score_map, mask)
    return metric.compute()


@pytest.mark.parametrize(('mask', 'expected'), [
    (LEFT, 1),            # recall 1 at precision 1, from t = 1 on
    (~LEFT, 0.5),         # nothing above t = 0, where precision is 1 / 2
    (TOP, 0.5),           # recall 1 / 2 at precision 1 / 2, then the rest at 1 / 2
    (LEFT & TOP, 0.5),    # recall 1 at precision 1 / 2
    (LEFT | TOP, 2 / 3 + 1 / 3 * 3 / 4),
])
def test_pxap_of_the_left_half(mask, expected):
    assert pxap((LEFT.astype(float), mask)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize('score_map', [np.full(SQUARE, 3.0), np.where(LEFT, np.nan, 1.0)],
                         ids=['constant', 'NaN'])
def test_pxap_of_a_map_that_says_nothing_is_the_foregrounds_share(score_map):
    assert pxap((score_map, LEFT & TOP)) == pytest.approx(1 / 4, abs=1e-12)


def test_pxap_has_a_threshold_at_1():
    """Left 1, right top 0.9995, else 0. At t = 1 the left half alone is positive; at 0.999 the
    right top is as well, and precision would be 2 / 3."""
    score_map = np.where(LEFT, 1.0, np.where(TOP, 0.9995, 0.0))
    assert pxap((score_map, LEFT)) == pytest.approx(1, abs=1e-12)


def test_pxap_thresholds_are_reached_by_equal_scores_and_on_the_float_map():
    """Left top 1, left bottom 0.25, right 0.2499 (the same byte, 63): t = 0.25 still parts them."""
    score_map = np.where(LEFT & TOP, 1.0, np.where(LEFT, 0.25, 0.2499))
    score_map[-1, -1] = 0  # the lowest of the range
    assert pxap((score_map, LEFT)) == pytest.approx(1, abs=1e-12)


def test_pxap_pools_the_pixels_of_all_images():
    """N pixels each. t > 0: N / 2 of 1.5 N foreground pixels, all right: 1 / 3. t = 0: the other
    2 / 3, at precision 1.5 N / 2 N = 3 / 4. The mean of the images' own figures would be 1."""
    pairs = (LEFT.astype(float), LEFT), (np.zeros(SQUARE), np.ones(SQUARE, bool))
    assert pxap(*pairs) == pytest.approx(1 / 3 + 2 / 3 * 3 / 4, abs=1e-12)
    assert [pxap(pair) for pair in pairs] == pytest.approx([1, 1])


def test_pxap_resizes_masks_by_nearest_neighbour():
    """2 x 2 with one corner: the left top quarter. 448 x 448 chequered by pixel: every second
    pixel, so always the same, is taken."""
    corner = np.array([[True, False], [False, False]])
    assert pxap(((LEFT & TOP).astype(float), corner)) == pytest.approx(1, abs=1e-12)
    chequered = np.indices((448, 448)).sum(0) % 2 == 0
    assert pxap((LEFT.astype(float), chequered)) == pytest.approx(1, abs=1e-12)


def test_pxap_is_the_area_under_a_thousand_and_one_points():
    rng = np.random.default_rng(6)
    maps = [smooth_map(rng, 10) for _ in range(3)]
    masks = [smooth_map(rng, 15) > 0.5 for _ in range(3)]
    scaled = np.array([(m - m.min()) / (m.max() - m.min()) for m in maps])
    truth = np.array(masks)
    area = previous = 0
    for k in range(1000, -1, -1):
        positive = scaled >= k / 1000
        true = (positive & truth).sum()
        if positive.any():
            area += true / positive.sum() * (true / truth.sum() - previous)
            previous = true / truth.sum()
    assert 0.1 < area < 0.9
    assert pxap(*zip(maps, masks, strict=True)) == pytest.approx(area, abs=1e-12)


def test_without_data_there_is_no_figure():
    for metric in (MaxBoxAcc(), MaxBoxAcc((0.3, 0.5, 0.7), multi_contour=True), PxAP()):
        with pytest.raises(ValueError, match='accumulated'):
            metric.compute()


def test_without_foreground_there_is_no_pxap():
    with pytest.raises(ValueError, match='foreground'):
        pxap((BLOB, np.zeros((5, 5), bool)))
