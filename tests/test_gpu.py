"""Training and inference on CUDA, with networks that need no download: bash test.sh -m gpu"""


import cv2
import numpy as np
import pytest
import torch
import torch.distributed as dist
from conftest import TRAIN_NAMES
from test_training import TinyNet, equal, interrupt_in_step, run
from torch import nn

from network import CamNet, SegNet, load_checkpoint
from utils.boxes import CentreCrop, iou, largest_box
from utils.device import init_device
from utils.distributed import data_parallel
from utils.inference import Predictor
from utils.losses import segmentation_probability
from utils.pseudo_mask import pseudo_mask

pytestmark = [pytest.mark.gpu,
              pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')]
CPU = torch.device('cpu')


@pytest.fixture
def cuda():
    return init_device('cuda', seed=0, test=True)


# ---------------------------------------------------------------- training


def test_a_step_whose_gradient_overflows_is_skipped_and_training_goes_on(cuda, tmp_path):
    """In fp16, by the GradScaler; also the first step, whose momentum is not yet set."""
    seen = []

    def loss(model, batch):
        seen.append(model.head.weight.detach().clone())
        factor = 1e38 if len(seen) in (1, 5) else 1.0
        logits = model(batch['image']).float()
        return {'total': nn.functional.cross_entropy(logits, batch['label']) * factor}

    state = run(tmp_path, loss, device=cuda, amp='fp16')
    assert [torch.equal(a, b) for a, b in zip(seen, seen[1:], strict=False)] == [
        number in (1, 5) for number in range(1, len(seen))]
    assert all(value.isfinite().all() for value in state.values())
    scaler = torch.load(tmp_path / 'last.ckpt', weights_only=True)['scaler']
    assert scaler['scale'] == 2**16 / 4


def test_a_run_is_resumed(cuda, tmp_path):
    """CUDA kernels may add in another order: near, not equal."""
    whole = run(tmp_path / 'whole', device=cuda)
    with pytest.raises(SystemExit):
        run(tmp_path / 'part', interrupt_in_step(5), device=cuda)
    resumed = run(tmp_path / 'part', device=cuda, resume='yes')
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, rtol=1e-3, atol=1e-4)
    loaded = torch.load(tmp_path / 'whole' / 'model-4', map_location='cpu', weights_only=True)
    assert equal(loaded, {name: value.cpu() for name, value in whole.items()})


def test_batch_norm_is_synchronized_under_nccl(cuda, tmp_path, monkeypatch):
    monkeypatch.setattr('utils.distributed.world_size', lambda: 2)
    dist.init_process_group('nccl', init_method=f'file://{tmp_path}/store', rank=0, world_size=1)
    try:
        model = data_parallel(TinyNet().to(cuda), cuda)
        assert any(isinstance(m, nn.SyncBatchNorm) for m in model.modules())
        model(torch.rand(4, 3, 8, 8, device=cuda)).sum().backward()
        assert all(p.grad is not None for p in model.parameters())
    finally:
        dist.destroy_process_group()


# ---------------------------------------------------------------- inference


@pytest.fixture(scope='module')
def released(released_state, tmp_path_factory):
    """Networks whose weights are like the authors'."""
    folder = tmp_path_factory.mktemp('released')
    models = {'cam': CamNet(20, pretrained='none'), 'seg': SegNet(pretrained='none')}
    for kind, model in models.items():
        torch.save(released_state(kind, 20 if kind == 'cam' else None), folder / kind)
        load_checkpoint(model, folder / kind)
    return models


def views(golden, crop):
    pictures = golden('pictures')
    return torch.from_numpy(np.stack([crop.view(pictures[f'image{k}']) for k in range(4)]))


def test_pseudo_masks_are_those_of_the_cpu(cuda, golden, released):
    """At most 1 level in 0.1 % of the pixels."""
    images, labels = views(golden, CentreCrop(256)), torch.tensor([0, 5, 10, 19])
    cams = [Predictor(released['cam'], device, method='class_cams')(images, labels)[1].cpu().numpy()
            for device in (CPU, cuda)]
    for expected, found in zip(*cams, strict=True):
        one, other = (pseudo_mask(cam, (375, 500)).astype(int) for cam in (expected, found))
        assert np.abs(one - other).max() <= 1
        assert (one != other).mean() <= 1e-3


@pytest.mark.parametrize(('amp', 'least'), [('off', 0.98), ('auto', 0.9)])
def test_boxes_are_those_of_the_cpu(cuda, golden, released, amp, least):
    images = views(golden, CentreCrop(256, 224))
    maps = [segmentation_probability(Predictor(released['seg'], device, name)(images).float(), 224)
            .cpu().numpy() for device, name in ((CPU, 'off'), (cuda, amp))]
    boxes = [[largest_box(probability, 0.2) for probability in of_device] for of_device in maps]
    assert iou(*np.array(boxes, float)).min() >= least


def test_stages_run_on_the_gpu_and_give_the_masks_of_the_cpu(cuda, stage, project):
    masks = []
    for device in ('cpu', 'cuda'):
        code, _, err = stage('cam', 'test', '--device', device)
        assert code == 0, err
        masks.append([cv2.imread(str((project / 'data' / 'mask' / name).with_suffix('.png')))
                      .astype(int) for name in TRAIN_NAMES])
    for one, other in zip(*masks, strict=True):
        assert np.abs(one - other).max() <= 1
        assert (one != other).mean() <= 1e-3
    for name, kind in (('cam', 'train'), ('seg', 'train'), ('seg', 'test'), ('cls', 'test')):
        code, _, err = stage(name, kind, '--device', 'cuda')
        assert code == 0, err
