"""Training and inference on CUDA, with networks that need no download.

    bash test.sh -m gpu
"""

from contextlib import contextmanager

import numpy as np
import pytest
import torch
import torch.distributed as dist
from test_trainer import Colours, TinyNet, build, equal, loss, train
from torch import nn

from network import CamNet, SegNet
from utils.engine.device import init_distributed_device
from utils.engine.distributed import synchronized
from utils.engine.graph import WARM_UP_STEPS, GraphedStep, capture_cuda, warm_up_cuda
from utils.engine.inference import Inference, InferenceOptions, Predictor
from utils.engine.precision import Precision, is_out_of_memory, supports_bf16
from utils.engine.resize import pixels_of, resized_views
from utils.engine.trainer import linear_decay
from utils.engine.transfer import Transfer, uploaded_ahead
from utils.localization.batched_pseudo_mask import pseudo_masks
from utils.localization.boxes import CentreCrop, iou, largest_box
from utils.localization.pseudo_mask import pseudo_mask, scaled_cam, seg_target

pytestmark = [pytest.mark.gpu,
              pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')]
CPU = torch.device('cpu')


@pytest.fixture
def cuda():
    return init_distributed_device('cuda', seed=0, test=True)


class Shades(Colours):
    """Dark images of one class and light ones of the other, which any network can tell apart."""

    def __getitem__(self, key):
        _, index = key
        return {'image': torch.full((8, 8, 3), 200 * (index % 2) + index, dtype=torch.uint8),
                'label': index % 2}


@pytest.mark.parametrize('amp', ['fp16', 'bf16', 'off'])
def test_training_steps_lower_the_loss(cuda, tmp_path, amp):
    if amp == 'bf16' and not supports_bf16(cuda):
        pytest.skip('this GPU has no bf16')
    trainer = build(tmp_path, dataset=Shades(), device=cuda, amp=amp, epoch=20)
    trainer.run()
    assert trainer.log.losses['total'] < 0.3  # a guess has 0.69
    assert {value.dtype for value in trainer.model.state_dict().values()} == {torch.float32,
                                                                              torch.int64}


@pytest.mark.parametrize('schedule', [None, linear_decay])
def test_steps_by_a_graph_are_the_eager_ones_but_for_rounding(cuda, tmp_path, schedule):
    """With the dropout of each step's seed, a smaller last batch, and rates that change."""
    def weights(folder, graphs):
        trainer = build(folder, device=cuda, epoch=6, schedule=schedule)
        assert isinstance(trainer.graphed_step, GraphedStep)
        if not graphs:
            trainer.graphed_step = None
        trainer.run()
        assert not graphs or not trainer.graphed_step._eager
        return trainer.model.state_dict()

    eager, graphed = weights(tmp_path / 'eager', False), weights(tmp_path / 'graph', True)
    for name, value in eager.items():
        torch.testing.assert_close(graphed[name], value, rtol=1e-3, atol=1e-4)


def test_dropout_of_a_replay_is_that_of_its_seed(cuda):
    def step(batch, size):
        return {'total': nn.functional.dropout(batch['image'], 0.5)}

    batch = {'image': torch.ones(1000, device=cuda)}
    torch.manual_seed(1)
    warm_up_cuda(step, batch, 4)
    replay = capture_cuda(step, batch, 4)
    for seed in (3, 4, 3):
        torch.manual_seed(seed)
        expected = step(batch, 4)['total']
        torch.manual_seed(seed)
        assert torch.equal(replay(batch)['total'], expected)


def test_a_step_that_cannot_be_captured_runs_eagerly(cuda, tmp_path, capsys):
    def waits(model, batch):
        result = loss(model, batch)
        result['total'].item()
        return result

    state = train(tmp_path, waits, device=cuda, epoch=4)
    assert 'no CUDA graph' in capsys.readouterr().err
    assert all(value.isfinite().all() for value in state.values())


def test_auto_is_bf16_where_the_gpu_has_it(cuda):
    assert Precision('auto', cuda).name == ('bf16' if supports_bf16(cuda) else 'fp16')


def test_a_first_fp16_step_that_overflows_does_no_harm(cuda):
    """Nesterov's first step of gradient 1: -0.1 * (1 + 0.9) = -0.19."""
    parameter = nn.Parameter(torch.zeros(1000, device=cuda))
    precision = Precision('fp16', cuda)
    optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9, nesterov=True,
                                fused=precision.allows_fused_sgd)
    for factor in (1e38, 1.0):
        optimizer.zero_grad()
        precision.backward((parameter * factor).sum(), optimizer)
        precision.step(optimizer)
    torch.testing.assert_close(parameter.detach(), torch.full((1000,), -0.19, device=cuda))


def test_float32_is_not_tf32(cuda):
    """TF32 keeps 10 bits of the mantissa: 1 + 2^-12 becomes 1."""
    value = torch.full((64, 64), 1 + 2**-12, device=cuda)
    assert (value @ torch.eye(64, device=cuda) - value).abs().max() == 0
    conv = nn.Conv2d(64, 64, 1, bias=False, device=cuda)
    nn.init.dirac_(conv.weight)
    images = torch.full((1, 64, 32, 32), 1 + 2**-12, device=cuda)
    assert (conv(images) - images).abs().max() == 0


@pytest.mark.parametrize(('amp', 'tolerance'), [('off', 1e-4), ('auto', 0.05)])
def test_networks_give_what_they_give_on_the_cpu(cuda, amp, tolerance):
    """The mean error is within `tolerance` of the mean value. The largest error is not: a product
    of three maps of random weights has extreme values."""
    torch.manual_seed(0)
    images = torch.rand(4, 128, 128, 3)
    for model in (CamNet(5, pretrained='none'), SegNet(pretrained='none')):
        model.eval()
        expected = Predictor(model, CPU)(images)
        found = Predictor(model, cuda, amp)(images).float().cpu()
        assert (found - expected).abs().mean() <= tolerance * expected.abs().mean()


@pytest.mark.parametrize('amp', ['off', 'auto'])
def test_masks_and_boxes_are_those_of_the_cpu(cuda, amp):
    """What precision may not change: the foreground of pseudo masks, and the boxes of CAMs."""
    torch.manual_seed(0)
    model, images, labels = CamNet(2, pretrained='none'), smooth_images(8), torch.zeros(8).long()
    mask_ious, box_ious = [], []
    cams = [Predictor(model, device, name, method='class_cams')(images, labels)[1].float().cpu()
            for device, name in ((CPU, 'off'), (cuda, amp))]
    for expected, found in zip(*(cam.numpy() for cam in cams), strict=True):
        masks = [seg_target(pseudo_mask(cam, (128, 128)))[0] for cam in (expected, found)]
        mask_ious.append((masks[0] & masks[1]).sum() / max(1, (masks[0] | masks[1]).sum()))
        boxes = [largest_box(scaled_cam(cam, 128), 0.2) for cam in (expected, found)]
        box_ious.append(iou(np.array(boxes[:1], float), np.array(boxes[1:], float)).item())
    assert np.mean(mask_ious) >= 0.98
    assert np.mean(box_ious) >= 0.98


def smooth_images(count):
    small = torch.rand(count, 3, 5, 5)
    return nn.functional.interpolate(small, (128, 128), mode='bicubic').clamp(0, 1).permute(
        0, 2, 3, 1).contiguous()


def test_a_compiled_network_gives_what_it_gives_uncompiled(cuda):
    torch.manual_seed(0)
    model, images = SegNet(pretrained='none'), torch.rand(4, 96, 96, 3)
    expected = Predictor(model, cuda, batch_size=4)(images)
    found = Predictor(model, cuda, batch_size=4, compile=True)(images)
    assert (found - expected).abs().max() <= 1e-3 * expected.abs().max()


def test_a_run_is_resumed(cuda, tmp_path):
    """CUDA kernels may add in another order: near, not equal."""
    whole = train(tmp_path / 'whole', device=cuda)
    train(tmp_path / 'part', device=cuda, max_steps=5)
    resumed = train(tmp_path / 'part', device=cuda, resume='yes')
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, rtol=1e-3, atol=1e-4)


def test_a_checkpoint_of_the_gpu_is_read_on_the_cpu(cuda, tmp_path):
    state = train(tmp_path, device=cuda, epoch=1)
    loaded = torch.load(tmp_path / 'model-1', map_location='cpu', weights_only=True)
    assert equal(loaded, {name: value.cpu() for name, value in state.items()})


def test_batch_norm_is_synchronized_under_nccl(cuda, tmp_path):
    dist.init_process_group('nccl', init_method=f'file://{tmp_path}/store', rank=0, world_size=1)
    try:
        model = TinyNet().to(cuda)
        wrapped = synchronized(model, cuda)
        assert any(isinstance(m, nn.SyncBatchNorm) for m in wrapped.modules())
        wrapped(torch.rand(4, 3, 8, 8, device=cuda)).sum().backward()
        assert all(p.grad is not None for p in model.parameters())
    finally:
        dist.destroy_process_group()


def test_out_of_memory_is_recognised(cuda):
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50, dtype=torch.uint8, device=cuda)
    assert is_out_of_memory(caught.value)


def test_the_device_of_a_name_with_a_number_is_current():
    last = torch.cuda.device_count() - 1
    assert init_distributed_device(f'cuda:{last}', seed=0) == torch.device('cuda', last)
    assert torch.cuda.current_device() == last


@contextmanager
def no_waiting():
    """Blocking copies and reads raise."""
    torch.cuda.set_sync_debug_mode('error')
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode('default')


def smooth_cams(count):
    torch.manual_seed(0)
    small = torch.rand(count, 1, 7, 7) ** 2
    return nn.functional.interpolate(small, (28, 28), mode='bicubic')[:, 0].relu()


def test_tensors_come_back_from_the_gpu_as_they_were(cuda):
    """From several threads, whose copies run beside the others' kernels."""
    transfer = Transfer(cuda)

    def there_and_back(number):
        tensor = torch.full((64, 256, 256), float(number))
        return transfer.download(transfer.upload(tensor) * 2).unique().tolist()

    results = Inference(cuda, InferenceOptions(num_workers=4)).in_threads(there_and_back, range(40))
    assert list(results) == [[2 * number] for number in range(40)]


def test_pseudo_masks_are_those_of_the_cpu(cuda):
    """Equal to one grey level in 0.1 % of the bytes; nothing waits for other batches."""
    cams, sizes = smooth_cams(6), [(375, 500), (500, 333), (64, 64)] * 2
    transfer = Transfer(cuda)
    with no_waiting():
        masks = list(pseudo_masks(transfer.upload(cams), sizes, transfer))
    for mask, cam, size in zip(masks, cams.numpy(), sizes, strict=True):
        difference = np.abs(mask.astype(int) - pseudo_mask(cam, size))
        assert difference.max() <= 1
        assert (difference > 0).mean() <= 1e-3


def test_inference_does_not_wait_for_the_gpu(cuda):
    """Threads queue batches while it computes: no blocking copy before the result is fetched."""
    predict = Predictor(SegNet(pretrained='none'), cuda)
    images = torch.rand(4, 96, 96, 3)
    expected = predict(images).cpu()  # allocates
    with no_waiting():
        found = predict.transfer.download(predict(images))
    torch.testing.assert_close(found, expected)


def test_training_does_not_wait_for_the_gpu_in_each_step(cuda, tmp_path):
    """No blocking copy or read in a step; PyTorch raises where there is one."""
    trainer = build(tmp_path, device=cuda, amp='off')
    batch = next(iter(trainer.loader))
    def step():
        pinned = {name: value.pin_memory() for name, value in batch.items()}
        for uploaded in uploaded_ahead([pinned], trainer.transfer):
            trainer.graphed_step(uploaded, 4)

    for _ in range(WARM_UP_STEPS + 1):
        step()  # allocates, and captures
    with no_waiting():
        step()


def test_views_resized_on_the_gpu_are_those_of_opencv(cuda):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*size, 3), np.uint8) for size in ((375, 500), (30, 40), (1, 1))]
    view = CentreCrop(256, 224)
    sizes = np.array([image.shape[:2] for image in images])
    views = resized_views(pixels_of(images), sizes, {'image': view}, Transfer(cuda))
    found = views['image'].cpu().numpy()
    for image, resized in zip(images, found, strict=True):
        np.testing.assert_allclose(resized, view.view(image), rtol=0, atol=5e-5)
