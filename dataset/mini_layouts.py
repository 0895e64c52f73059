"""The layouts that make_mini.py writes: CUB-200-2011's and ImageNet's."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from compositing import mask_box
from mini_sources import ORDER_STREAM, Sample
from numpy.random import default_rng

from utils.outputs.files import write_bytes, write_text

SPLITS = ('train', 'val')


def write_cub(folder: Path, samples: Iterator[Sample], names: list[str]) -> None:
    """Write images and masks as they come, the lists last."""
    lists: list[list[str]] = [[] for _ in SPLITS]
    for sample in samples:
        name = f'{sample.label + 1:03d}_{SPLITS[sample.split]}_{sample.index:04d}'
        path = f'{sample.label + 1:03d}.{names[sample.label]}/{name}'
        write_image(folder / 'image' / f'{path}.jpg', sample.image)
        mask, = sample.masks
        write_image(folder / 'segmentation' / f'{path}.png', mask)
        box = '{} {} {} {}'.format(*mask_box(mask))
        lists[sample.split].append(f'{path}.jpg,{sample.label},{box}\n')
    for split, lines in zip(SPLITS, lists, strict=True):
        write_text(folder / f'{split}.txt', ''.join(lines))


def write_imagenet(folder: Path, samples: Iterator[Sample], wnids: list[str],
                   val_numbers: np.ndarray) -> None:
    """Write images, masks and boxes as they come, the lists last.

    val_numbers: (classes, images per class), the numbers of the val images from 1.
    """
    lists: list[list[str]] = [[] for _ in SPLITS]
    for sample in samples:
        wnid, split = wnids[sample.label], SPLITS[sample.split]
        if split == 'train':
            name = f'{wnid}/{wnid}_{sample.index + 1}'
        else:
            name = f'ILSVRC2012_val_{val_numbers[sample.label, sample.index]:08d}'
            write_text(folder / 'box' / f'{name}.xml', describe_boxes(name, wnid, sample))
        write_image(folder / split / f'{name}.JPEG', sample.image)
        write_image(folder / 'segmentation' / f'{name}.png', np.maximum.reduce(sample.masks))
        lists[sample.split].append(f'{name}.JPEG {sample.label}\n')
    train_lines, val_lines = lists
    write_text(folder / 'train.txt', ''.join(train_lines))
    write_text(folder / 'val.txt', ''.join(sorted(val_lines)))


def shuffled_numbers(classes: int, count: int, seed: int) -> np.ndarray:
    """The numbers 1 ... classes * count in random order: (classes, count)."""
    order = default_rng([seed, ORDER_STREAM]).permutation(classes * count)
    return order.reshape(classes, count) + 1


def describe_boxes(name: str, wnid: str, sample: Sample) -> str:
    """The XML of an image's boxes, element by element as in the ILSVRC CLS-LOC release."""
    height, width, depth = sample.image.shape
    root = ElementTree.Element('annotation')
    add_texts(root, folder='val', filename=name)
    add_texts(ElementTree.SubElement(root, 'source'), database='ILSVRC_2012')
    add_texts(ElementTree.SubElement(root, 'size'), width=width, height=height, depth=depth)
    add_texts(root, segmented=0)
    for mask in sample.masks:
        entry = ElementTree.SubElement(root, 'object')
        add_texts(entry, name=wnid, pose='Unspecified', truncated=0, difficult=0)
        corners = zip(('xmin', 'ymin', 'xmax', 'ymax'), mask_box(mask), strict=True)
        add_texts(ElementTree.SubElement(entry, 'bndbox'), **dict(corners))
    ElementTree.indent(root, '\t')
    return ElementTree.tostring(root, encoding='unicode') + '\n'


def add_texts(parent: ElementTree.Element, **texts: object) -> None:
    for tag, text in texts.items():
        ElementTree.SubElement(parent, tag).text = str(text)


def write_image(path: Path, image: np.ndarray) -> None:
    quality = [] if path.suffix == '.png' else [cv2.IMWRITE_JPEG_QUALITY, 90]
    write_bytes(path, cv2.imencode(path.suffix, image, quality)[1])
