"""Tests of AVOL-Net."""
import pytest
import torch
import torch.nn.functional as F

from avdet_mm.models.backbones import AVOLNet
from avdet_mm.registry import MODELS

# Outputs of the four stages by the paper's table (Objects that Sound, Fig. 2)
SIZES = {
    (3, 224, 224): [(112, 112), (56, 56), (28, 28), (14, 14)],
    (1, 257, 99): [(129, 50), (64, 25), (32, 12), (16, 6)],
    (1, 257, 200): [(129, 100), (64, 50), (32, 25), (16, 12)],
    (1, 257, 199): [(129, 100), (64, 50), (32, 25), (16, 12)],
}


@pytest.mark.parametrize('shape', SIZES)
def test_stage_shapes(shape):
    net = AVOLNet(in_channels=shape[0], out_indices=(0, 1, 2, 3))
    assert net.out_channels == [64, 128, 256, 512]
    with torch.no_grad():
        outs = net(torch.zeros(2, *shape))
    assert [tuple(x.shape) for x in outs] == [
        (2, c, *size)
        for c, size in zip((64, 128, 256, 512), SIZES[shape])
    ]


@pytest.mark.parametrize('kwargs, size', [
    (dict(pooled_stages=(0, 1)), (28, 28)),
    (dict(pooled_stages=(0, 2)), (28, 28)),
    (dict(pooled_stages=()), (112, 112)),
    (dict(first_stride=1), (28, 28)),
    (dict(first_stride=1, pooled_stages=(0, 1)), (56, 56)),
])
def test_stride_of_the_output(kwargs, size):
    net = AVOLNet(base_channels=2, **kwargs)
    out, = net(torch.zeros(2, 3, 224, 224))
    assert out.shape == (2, 16, *size)


def test_default_width_and_parameters():
    net = AVOLNet()
    widths = [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256),
              (256, 256), (256, 512), (512, 512)]
    # 3x3 kernels without bias; weight and bias of each batch norm.
    assert sum(p.numel() for p in net.parameters()) == sum(
        9 * i * o + 2 * o for i, o in widths)


@pytest.mark.parametrize('kernel_sizes, field', [
    # 93 = 7 (two convolutions, the first with stride 2), + 2 (pool), + 16 (two
    # at stride 4), + 4 (pool), + 64 (four at stride 8).
    ((3, 3, 3, 3), 93),
    ((3, 3, 3, 1), 61),
    ((3, 3, 1, 1), 29),
])
def test_receptive_field(kernel_sizes, field):
    net = AVOLNet(base_channels=2, pooled_stages=(0, 1),
                  kernel_sizes=kernel_sizes)
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            # All weights count, and none is cut off by the ReLU.
            torch.nn.init.constant_(module.weight, 1.)
    net.eval()
    torch.manual_seed(0)
    # Max pooling passes on one pixel in four: in some image, the outermost.
    images = torch.rand(64, 3, 160, 160, requires_grad=True)
    net(images)[0][:, 0, 10, 10].sum().backward()
    rows = images.grad.abs().sum((0, 1, 3)).nonzero().flatten()
    assert rows[-1] - rows[0] + 1 == field


@pytest.mark.parametrize('kernel_sizes', [(3, 3, 3), (3, 3, 3, 2)])
def test_wrong_kernel_sizes(kernel_sizes):
    with pytest.raises(ValueError, match='must be 4 odd numbers'):
        AVOLNet(kernel_sizes=kernel_sizes)


def test_values_follow_the_topology():
    torch.manual_seed(0)
    net = AVOLNet(base_channels=3, out_indices=(1, 3))
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            module.weight.data.normal_()
            module.bias.data.normal_()
    net.eval()
    state = net.state_dict()
    image = torch.randn(2, 3, 40, 56)
    x, expected = image, []
    for i in range(1, 5):
        if i > 1:
            x = F.max_pool2d(x, kernel_size=2, stride=2)
        for j in (1, 2):
            name = f'conv{i}_{j}'
            x = F.conv2d(
                x,
                state[f'{name}.conv.weight'],
                stride=2 if name == 'conv1_1' else 1,
                padding=1)
            x = F.batch_norm(x, *(
                state[f'{name}.bn.{key}']
                for key in ('running_mean', 'running_var', 'weight', 'bias')))
            x = x.clamp(min=0)
        if i in (2, 4):
            expected.append(x)
    outs = net(image)
    assert len(outs) == 2
    for out, reference in zip(outs, expected):
        torch.testing.assert_close(out, reference)


def test_only_needed_stages_are_built():
    net = AVOLNet(base_channels=2, out_indices=(0, 1))
    assert {name.split('.')[0] for name, _ in net.named_parameters()} == {
        'conv1_1', 'conv1_2', 'conv2_1', 'conv2_2'
    }
    outs = net(torch.zeros(2, 3, 32, 32))
    assert [tuple(x.shape) for x in outs] == [(2, 2, 16, 16), (2, 4, 8, 8)]
    assert net.out_channels == [2, 4]


def test_frozen_stages():
    net = AVOLNet(base_channels=2, frozen_stages=1)
    # Before train() is called: optimizers and DDP look at it then.
    frozen = {
        name
        for name, p in net.named_parameters() if not p.requires_grad
    }
    assert {n.split('.')[0]
            for n in frozen} == {'conv1_1', 'conv1_2', 'conv2_1', 'conv2_2'}
    before = {k: v.clone() for k, v in net.state_dict().items()}
    net.train()
    optimizer = torch.optim.SGD(
        (p for p in net.parameters() if p.requires_grad), 0.1)
    net(torch.randn(2, 3, 32, 32))[0].sum().backward()
    optimizer.step()
    for name, value in net.state_dict().items():
        still = name.startswith(('conv1', 'conv2'))
        assert torch.equal(value, before[name]) == still, name


def test_norm_eval_keeps_statistics():
    net = AVOLNet(base_channels=2, norm_eval=True).train()
    assert net.training and net.conv4_2.conv.training
    before = {k: v.clone() for k, v in net.state_dict().items()}
    net(torch.randn(2, 3, 32, 32))[0].sum().backward()
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name
    # They stay trainable.
    assert net.conv4_2.bn.weight.grad is not None


def test_kaiming_by_default():
    net = MODELS.build(dict(type='avdet_mm.AVOLNet'))
    net.init_weights()
    weight = net.conv4_1.conv.weight.detach()
    # fan_out: std = sqrt(2 / (9 * 512))
    assert weight.std() == pytest.approx((2 / (9 * 512))**0.5, rel=0.02)


@pytest.mark.parametrize('kwargs, message', [
    (dict(out_indices=(4, )), 'out_indices'),
    (dict(out_indices=(-1, )), 'out_indices'),
    (dict(out_indices=()), 'out_indices'),
    (dict(frozen_stages=4), 'frozen_stages'),
    (dict(out_indices=(1, ), frozen_stages=2), 'frozen_stages'),
])
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        AVOLNet(**kwargs)


def test_outputs_are_channels_first_in_memory():
    # mmcv.ops.RoIAlign reads the memory as it is, whatever the strides say.
    net = AVOLNet(base_channels=4, out_indices=(0, 1, 2, 3))
    for out in net(torch.rand(2, 3, 32, 48)):
        assert out.is_contiguous()
