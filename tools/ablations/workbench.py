"""Trains and evaluates the variants of the ablation."""

from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import albumentations as A
import cv2
import numpy as np
import torch
from torch import nn

from network import CamNet, SegNet, load_checkpoint
from network.checkpoints import load_cam
from tools.ablations.variants import (
    PAPER,
    VARIANTS,
    WITHOUT_PRIOR,
    Settings,
    data_folder,
    read_metrics,
    run_folder,
)
from utils.data import cub
from utils.data.datasets import TrainImages, TrainMasks
from utils.data.images import read_stored_mask
from utils.engine.device import init_distributed_device
from utils.engine.inference import Inference, InferenceOptions
from utils.engine.trainer import Trainer, TrainingOptions, every_epoch
from utils.localization.boxes import CentreCrop
from utils.localization.losses import (
    classification_loss,
    distillation_loss,
    segmentation_loss,
)
from utils.localization.pseudo_mask import MASK_SIDE
from utils.outputs.files import write_json
from utils.outputs.results import RunFolder
from utils.stages.evaluate import EvaluationOptions, evaluate_cams, evaluate_segmentation
from utils.stages.make_masks import make_pseudo_masks, write_mask


def run_variant(out: Path, number: int, name: str, settings: Settings) -> str:
    """Train and evaluate one variant in this process, on one core; for the paper's network, the
    segmentation as well. Returns a line of text. Messages go to log.txt."""
    torch.set_num_threads(1)
    folder = run_folder(out, number, name)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / 'log.txt', 'a') as log, redirect_stdout(log), redirect_stderr(log):
        bench = Workbench(out, number, settings, init_distributed_device(settings.device, number))
        bench.train_cam(name)
        if name == PAPER:
            bench.train_segmentations()
    return f'seed {number}, {name}'


class Workbench:
    """Trains and evaluates the networks of one seed, on its data set."""

    def __init__(self, out: Path, number: int, settings: Settings, device: torch.device):
        self.out, self.seed, self.settings, self.device = out, number, settings, device
        data = data_folder(out, number, settings)
        self.train_images = cub.read_images(data, settings.train, settings.classes)
        self.val_images = cub.read_images(data, settings.val, settings.classes)
        self.crop = CentreCrop(settings.resize, settings.crop)
        self.inference = Inference(device, InferenceOptions(num_workers=1))

    def train_cam(self, name: str) -> None:
        """MFF-Net 1 as VARIANTS[name] says; its fused CAMs are evaluated, of the paper's network
        after each epoch."""
        folder, settings = run_folder(self.out, self.seed, name), self.settings
        if read_metrics(folder):
            return
        model = CamNet(settings.classes, settings.backbone, **VARIANTS[name])
        groups = [{'params': model.new_parameters()},
                  {'params': model.pretrained_parameters(), 'lr': 0.002}]

        def loss(network, batch):
            if model.auxiliary:
                return distillation_loss(*network(batch['image']), batch['label'])
            return classification_loss(network(batch['image']), batch['label'])

        self._train(model, TrainImages(self.train_images, self._transform(), self.seed), groups,
                    loss, folder, settings.cam_epochs, 0.02)
        if name == PAPER:
            self._evaluate_epochs(model, folder, settings.cam_epochs)
        self._evaluate(model, folder)

    def train_segmentations(self) -> None:
        """Pseudo masks of the paper's network, with and without the Gaussian prior, and MFF-Net 2
        trained on them."""
        cam_folder = run_folder(self.out, self.seed, PAPER)
        if not (cam_folder / 'masks.json').exists():
            checkpoint = cam_folder / f'model-{self.settings.cam_epochs}'
            self._write_masks(load_cam(checkpoint, self.settings.backbone), cam_folder)
        for target, masks in (('SPOL', 'mask'), (WITHOUT_PRIOR, 'mask-without-prior')):
            self._train_segmentation(run_folder(self.out, self.seed, target), cam_folder / masks)

    def _write_masks(self, model: CamNet, folder: Path) -> None:
        images = self.train_images
        make_pseudo_masks(model, images, MASK_SIDE, folder / 'mask',
                          self.inference, RunFolder(folder / 'masks'))
        for index in range(len(images)):
            stored = read_stored_mask(images.mask_path(folder / 'mask', index))
            cam_alone = np.zeros((*stored.shape[:2], 3), np.uint8)
            cam_alone[..., 0] = stored[..., 0]  # channel 1 is the prior
            write_mask(images.mask_path(folder / 'mask-without-prior', index), cam_alone)
        write_json(folder / 'masks.json', {'count': len(images)})

    def _train_segmentation(self, folder: Path, masks: Path) -> None:
        settings = self.settings
        if read_metrics(folder):
            return
        model = SegNet(settings.backbone)
        dataset = TrainMasks(self.train_images, self._transform(), self.seed, masks)

        def loss(network, batch):
            return segmentation_loss(network(batch['image']), batch['foreground'],
                                     batch['valid'])

        self._train(model, dataset, [{'params': model.parameters()}], loss, folder,
                    settings.seg_epochs, settings.seg_lr)
        self._evaluate_epochs(model, folder, settings.seg_epochs)
        self._evaluate(model, folder)

    def _transform(self) -> A.Compose:
        """The training transform of the stages."""
        side = self.crop.side
        return A.Compose([A.Resize(self.crop.resize, self.crop.resize,
                                   interpolation=cv2.INTER_LINEAR),
                          A.RandomCrop(side, side), A.HorizontalFlip(p=0.5)])

    def _train(self, model: nn.Module, dataset: TrainImages, groups: list[dict], loss: Callable,
               folder: Path, epochs: int, lr: float) -> None:
        options = TrainingOptions(epochs, self.settings.batch_size, lr, seed=self.seed,
                                  num_workers=0, resume='auto')
        trainer = Trainer(model, dataset, groups, loss, options, self.device, RunFolder(folder),
                          should_save=every_epoch)
        trainer.run()
        if trainer.stopped:
            raise KeyboardInterrupt

    def _evaluate_epochs(self, model: nn.Module, folder: Path, epochs: int) -> None:
        """GT-known at 0.2 after each epoch, for the learning curve; `model` ends as the last."""
        for epoch in range(1, epochs + 1):
            load_checkpoint(model, folder / f'model-{epoch}')
            if not read_metrics(folder / f'epoch-{epoch}'):
                self._evaluate(model, folder / f'epoch-{epoch}', sweep=False, metrics='paper')

    def _evaluate(self, model: nn.Module, folder: Path, sweep: bool = True, metrics: str = 'all'
                  ) -> None:
        """Write the folder's results.json."""
        where = self.val_images, self.crop, self.inference, RunFolder(folder)
        options = EvaluationOptions(sweep=sweep, metrics=metrics)
        if isinstance(model, CamNet):
            kinds = ('deep', 'fused') if model.auxiliary else ('fused',)
            evaluate_cams(self.inference.predictor(model, 'class_cams'), kinds, *where, options)
        else:
            evaluate_segmentation(self.inference.predictor(model), *where, options)
