"""Networks as they are written elsewhere: torchvision, keyword spotting, mixers, other tools."""

import pytest
import torch
import torch.nn.functional as F
import torch_pruning as tp
from packing_networks import (
    check,
    kinds,
    settle,
)
from torch import nn
from torch.nn.utils import prune

from whit.packing import pack


def images(count=12, channels=3, size=32):
    return torch.randn(count, channels, size, size)


def joined(inputs, outputs, kernel=3, stride=1, groups=1, activation=nn.ReLU):
    pad = (kernel - 1) // 2
    layers = [
        nn.Conv2d(inputs, outputs, kernel, stride, pad, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, *([activation(inplace=True)] if activation else []))


class BasicBlock(nn.Module):
    expansion = 1

    def __init__(self, inputs, planes, stride=1, downsample=None):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = downsample

    def forward(self, x):
        identity = x if self.downsample is None else self.downsample(x)
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += identity
        return self.relu(out)


class Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, inputs, planes, stride=1, downsample=None):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, planes, 1, bias=False), nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, planes * 4, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * 4)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x):
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


class ResNet(nn.Module):
    """The structure of torchvision.models.ResNet, with fewer channels."""

    def __init__(self, block, classes=10, width=8):
        super().__init__()
        self.inputs = width
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1 = self._layer(block, width, 2, 1)
        self.layer2 = self._layer(block, 2 * width, 2, 2)
        self.layer3 = self._layer(block, 4 * width, 1, 2)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(4 * width * block.expansion, classes)

    def _layer(self, block, planes, blocks, stride):
        downsample = None
        if stride != 1 or self.inputs != planes * block.expansion:
            downsample = joined(self.inputs, planes * block.expansion, 1, stride, activation=None)
        layers = [block(self.inputs, planes, stride, downsample)]
        self.inputs = planes * block.expansion
        layers += [block(self.inputs, planes) for _ in range(1, blocks)]
        return nn.Sequential(*layers)

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(torch.flatten(self.avgpool(x), 1))


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_resnet(block):
    x = images()
    packed = check(settle(ResNet(block), x), x)
    assert "affine" not in kinds(packed)  # every batch norm is a part of its convolution
    assert kinds(packed).count("add") == 5


class SqueezeExcite(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1, self.fc2 = nn.Conv2d(channels, 4, 1), nn.Conv2d(4, channels, 1)
        self.activation, self.scale_activation = nn.ReLU(), nn.Hardsigmoid()

    def forward(self, x):
        scale = self.fc2(self.activation(self.fc1(self.avgpool(x))))
        return self.scale_activation(scale) * x


class InvertedResidual(nn.Module):
    def __init__(self, inputs, outputs, stride, activation, excite):
        super().__init__()
        wide = inputs * 3
        self.use_res_connect = stride == 1 and inputs == outputs
        self.block = nn.Sequential(
            joined(inputs, wide, 1, activation=activation),
            joined(wide, wide, 3, stride, groups=wide, activation=activation),
            *([SqueezeExcite(wide)] if excite else []),
            joined(wide, outputs, 1, activation=None),
        )

    def forward(self, x):
        result = self.block(x)
        return result + x if self.use_res_connect else result


@pytest.mark.parametrize(
    ("activation", "excite"), [(nn.ReLU6, False), (nn.Hardswish, True), (nn.SiLU, True)]
)
def test_mobilenet(activation, excite):
    model = nn.Sequential(
        joined(3, 8, 3, 2, activation=activation),
        InvertedResidual(8, 8, 1, activation, excite),
        InvertedResidual(8, 12, 2, activation, excite),
        InvertedResidual(12, 12, 1, activation, excite),
        joined(12, 24, 1, activation=activation),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(24, 7),
    )
    x = images()
    packed = check(settle(model, x), x)
    assert ("multiply" in kinds(packed)) == excite
    assert "affine" not in kinds(packed)


class DenseLayer(nn.Module):
    def __init__(self, inputs, growth):
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, 8, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(8), nn.Conv2d(8, growth, 3, 1, 1, bias=False)

    def forward(self, features):
        x = torch.cat(features, 1)
        return self.conv2(F.relu(self.norm2(self.conv1(F.relu(self.norm1(x))))))


class DenseNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, 2, 1)
        self.layers = nn.ModuleList([DenseLayer(6 + 4 * k, 4) for k in range(3)])
        self.transition = nn.Sequential(
            nn.BatchNorm2d(18), nn.ReLU(), nn.Conv2d(18, 9, 1), nn.AvgPool2d(2, 2)
        )
        self.classifier = nn.Linear(9, 5)

    def forward(self, x):
        features = [self.stem(x)]
        for layer in self.layers:
            features.append(layer(features))
        x = self.transition(torch.cat(features, 1))
        return self.classifier(F.adaptive_avg_pool2d(F.relu(x), (1, 1)).flatten(1))


def test_densenet():
    x = images(size=16)
    packed = check(settle(DenseNet(), x), x)
    assert kinds(packed).count("concat") == 1 + 2 + 3


class TemporalBlock(nn.Module):
    """Causal dilated convolutions: padding on the left only."""

    def __init__(self, inputs, outputs, dilation):
        super().__init__()
        self.left = 2 * dilation
        self.conv1 = nn.Conv1d(inputs, outputs, 3, dilation=dilation)
        self.conv2 = nn.Conv1d(outputs, outputs, 3, padding="same", dilation=dilation)
        self.norm = nn.BatchNorm1d(outputs)
        self.skip = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x):
        result = F.relu(self.conv1(F.pad(x, (self.left, 0))))
        return F.relu(self.norm(self.conv2(result)) + self.skip(x))


def test_temporal_convolutions():
    model = nn.Sequential(
        TemporalBlock(5, 8, 1), TemporalBlock(8, 8, 2), TemporalBlock(8, 12, 4),
        nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(12, 6),
    )  # fmt: skip
    x = torch.randn(10, 5, 40)
    check(settle(model, x), x)


def test_keyword_spotting_with_depthwise_convolutions():
    layers = [nn.Conv1d(10, 16, 9, stride=2, padding=4), nn.BatchNorm1d(16), nn.ReLU()]
    for _ in range(2):
        layers += [nn.Conv1d(16, 16, 5, padding=2, groups=16, bias=False), nn.BatchNorm1d(16)]
        layers += [nn.ReLU(), nn.Conv1d(16, 16, 1, bias=False), nn.BatchNorm1d(16), nn.ReLU()]
    layers += [nn.MaxPool1d(2), nn.AvgPool1d(3), nn.Flatten(), nn.Linear(16 * 4, 12)]
    x = torch.randn(10, 10, 49)
    model = nn.Sequential(*layers)
    packed = check(settle(model, x), x)
    assert "affine" not in kinds(packed)


class MixerBlock(nn.Module):
    def __init__(self, tokens, channels):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.tokens = nn.Sequential(nn.Linear(tokens, 12), nn.GELU(), nn.Linear(12, tokens))
        self.channels = nn.Sequential(
            nn.Linear(channels, 20), nn.GELU(), nn.Dropout(0.1), nn.Linear(20, channels)
        )

    def forward(self, x):
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norm2(x))


class Mixer(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, stride=4)
        self.blocks = nn.Sequential(MixerBlock(16, 16), MixerBlock(16, 16))
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 5)

    def forward(self, x):
        x = self.patches(x).flatten(2).permute(0, 2, 1)
        return self.head(self.norm(self.blocks(x)).mean(dim=1))


def test_mlp_mixer():
    packed = check(Mixer().eval(), images(size=16))
    assert {"transpose", "layer_norm", "reduce"} <= set(kinds(packed))


class TextNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(50, 12, padding_idx=0)
        self.convs = nn.ModuleList([nn.Conv1d(12, 8, size) for size in (2, 3, 4)])
        self.head = nn.Linear(24, 4)

    def forward(self, tokens):
        x = self.embedding(tokens).permute(0, 2, 1)
        x = torch.cat([F.relu(conv(x)).max(dim=2)[0] for conv in self.convs], dim=1)
        return self.head(x)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_embedding_and_convolutions_over_text(dtype):
    tokens = torch.randint(0, 50, (20, 15), dtype=dtype)
    packed = check(TextNetwork().eval(), tokens)
    assert packed.program.input.dtype == "int32"
    assert kinds(packed)[0] == "embedding"


def channel_shuffle(x, groups):
    batch, channels, height, width = x.size()
    x = x.view(batch, groups, channels // groups, height, width)
    return torch.transpose(x, 1, 2).contiguous().view(batch, -1, height, width)


class ShuffleUnit(nn.Module):
    def __init__(self, channels, shuffle):
        super().__init__()
        self.shuffle = shuffle
        self.first = joined(channels, channels, 1, groups=4)
        self.second = joined(channels, channels, 3, groups=channels, activation=None)
        self.third = joined(channels, channels, 1, groups=4, activation=None)

    def forward(self, x):
        return F.relu(x + self.third(self.second(self.shuffle(self.first(x), 4))))


@pytest.mark.parametrize("shuffle", [channel_shuffle, F.channel_shuffle])
def test_channel_shuffle(shuffle):
    model = nn.Sequential(joined(3, 16, 3, 2), ShuffleUnit(16, shuffle), ShuffleUnit(16, shuffle))
    model = nn.Sequential(*model, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(16, 5))
    x = images(size=16)
    check(settle(model, x), x)


def test_group_norms_and_slopes():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding="same", dilation=2), nn.GroupNorm(4, 8), nn.PReLU(8),
        nn.Conv2d(8, 8, (3, 1), stride=(2, 1), padding=(1, 0)), nn.InstanceNorm2d(8, affine=True),
        nn.LeakyReLU(0.1), nn.ZeroPad2d((1, 0, 2, 1)), nn.Conv2d(8, 4, 1), nn.ELU(), nn.Softplus(),
        nn.Flatten(), nn.Linear(4 * 11 * 17, 5), nn.LogSoftmax(dim=1),
    )  # fmt: skip
    check(model.eval(), images(size=16))


def test_masks_of_torch_prune():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5))
    prune.l1_unstructured(model[0], "weight", 0.5)
    prune.ln_structured(model[3], "weight", 0.4, n=2, dim=1)
    packed = check(model, images(size=8))
    assert packed.layers[0].format == "mask_float32"
    assert packed.layers[1].after_bytes < 0.65 * packed.layers[1].before_bytes


def test_structured_pruning_of_torch_pruning():
    x = images(size=16)
    model = settle(ResNet(BasicBlock), x)
    before = pack(model, x)
    pruner = tp.pruner.MagnitudePruner(
        model,
        x[:2],
        importance=tp.importance.MagnitudeImportance(p=2),
        pruning_ratio=0.5,
        ignored_layers=[model.fc],
    )
    pruner.step()
    packed = check(model, x)
    channels = [layer.operator.weight.rows for layer in packed.program.steps if layer.cost.macs]
    assert channels[0] == 4
    assert packed.nbytes < 0.35 * before.nbytes
