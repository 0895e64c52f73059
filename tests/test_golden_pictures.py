"""Whole pictures through the test stages, beside the results of the authors' scripts."""

import csv

import cv2
import numpy as np
import pytest
import torch

from network import SegNet, load_checkpoint
from utils.boxes import CentreCrop
from utils.datasets import EvalImages
from utils.inference import Predictor
from utils.lists import cub_images
from utils.losses import segmentation_probability

PICTURES, CLASSES, THRESHOLD = 4, 20, 0.2


@pytest.fixture(scope='module')
def pictures(golden):
    return golden('pictures')


@pytest.fixture(scope='module')
def folder(pictures, released_state, tmp_path_factory):
    """The pictures as PNG files with their list, and both networks' weights."""
    folder = tmp_path_factory.mktemp('pictures')
    (folder / 'image').mkdir()
    lines = []
    for k in range(PICTURES):
        image = pictures[f'image{k}']
        cv2.imwrite(str(folder / 'image' / f'{k}.png'), image[..., ::-1])
        height, width = image.shape[:2]
        lines.append(f'{k}.png,{int(pictures[f"label{k}"])},0 0 {width - 1} {height - 1}\n')
    for split in ('train.txt', 'val.txt'):
        (folder / split).write_text(''.join(lines))
    torch.save(released_state('cam', CLASSES), folder / 'cam')
    torch.save(released_state('seg'), folder / 'seg')
    return folder


def test_pseudo_masks_of_cam_test(run_script, pictures, folder):
    code, _, err = run_script('cub200-cam/test.py', '--datapath', folder, '--savepath',
                              folder / 'out', '--snapshot', folder / 'cam', '--clsnum', CLASSES)
    assert code == 0, err
    for k in range(PICTURES):
        mask = cv2.imread(str(folder / 'mask' / f'{k}.png'))
        difference = np.abs(mask[..., :2].astype(int) - pictures[f'mask{k}'])
        assert difference.max() <= 1
        assert (difference > 0).mean() <= 0.001
        assert not mask[..., 2].any()


def test_boxes_of_seg_test(run_script, pictures, folder):
    code, _, err = run_script('cub200-seg/test.py', '--datapath', folder, '--savepath',
                              folder / 'out', '--snapshot', folder / 'seg', '--clsnum', CLASSES,
                              '--top1top5', 'none', '--threshold', THRESHOLD, '--metrics', 'paper')
    assert code == 0, err
    with open(folder / 'out' / 'boxes.csv') as file:
        rows = list(csv.DictReader(file))
    for k, row in enumerate(rows):
        height, width = pictures[f'image{k}'].shape[:2]
        box = [float(row[side]) for side in ('x0', 'y0', 'x1', 'y1')]
        in_crop = np.array(box) * 256 / np.array([width, height] * 2) - 16
        np.testing.assert_allclose(in_crop, pictures[f'box{k}'], atol=0.02)  # two decimals


def test_probabilities_of_the_segmentation_network(pictures, folder):
    model = SegNet(pretrained='none')
    load_checkpoint(model, folder / 'seg')
    dataset = EvalImages(cub_images(folder, 'val.txt', CLASSES), {'image': CentreCrop(256, 224)})
    predict = Predictor(model, torch.device('cpu'))
    for k in range(PICTURES):
        image = torch.from_numpy(dataset[k]['image'])[None]
        probability = segmentation_probability(predict(image), 224)[0].numpy()
        np.testing.assert_allclose(probability[::4, ::4], pictures[f'probability{k}'], atol=1e-4)
