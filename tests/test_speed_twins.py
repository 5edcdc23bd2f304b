"""The fast paths and their slow twins where other tests do not compare them already."""

import json

import bench
import plain_step
import pytest
import torch
import torch.nn.functional as F
from test_networks import excite

from maelib import config, model
from maelib.data import dataset
from maelib.measure import evaluation, sampling
from maelib.nets import layers
from maelib.nets.pixelcnn import PixelCNN
from maelib.nets.pixelcnnpp import SmallPixelCNN
from maelib.training.loop import draw_batch
from maelib.training.state import start
from maelib.training.step import Step, train_step

CPU = torch.device("cpu")


def effective(net):
    """What the layers compute with; along its own direction a weight's length does not matter."""
    return [part for layer in layers.layers(net) for part in (whole(layer), layer.bias)]


def whole(layer):
    """The layer's weight, with the hidden rows of a masked kernel that only the plain twin has."""
    hidden = layer.kernel - layer.weight.shape[2] if hasattr(layer, "kernel") else 0
    return F.pad(layer.weight, (0, 0, 0, hidden)) if hidden else layer.weight


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    # In float32 a gradient near Adam's epsilon of 1e-8 is round-off, and moves by parts of lr.
    [(torch.float64, 1e-9), (torch.float32, 1e-4)],
)
def test_fast_and_plain_training_steps_give_the_same_weights(dtype, tolerance):
    c = config.resolve("smoke", "digits")
    images = dataset.load("digits").train.first(100).images
    fast = start(c, images, CPU)
    for net in (fast.model, fast.averaged):
        net.to(dtype)
    plain = plain_step.begin(fast, c)
    how = Step(fast.model, c.objective, c.training, total=100)
    before = [part.detach().clone() for part in effective(plain.model)]
    for step in range(4):
        x, eps = (part.to(dtype) for part in draw_batch(c, images[:20], step))
        train_step(fast, how, x, eps)
        plain_step.plain_step(plain, c, x, eps, 100)
    after = effective(plain.model)
    assert all((a != b).any() for a, b in zip(before, after, strict=True))
    torch.testing.assert_close(effective(fast.model), after, atol=tolerance, rtol=tolerance)
    averages = effective(fast.averaged), effective(plain.averaged)
    torch.testing.assert_close(*averages, atol=tolerance, rtol=tolerance)
    totals = list(plain.totals.values())
    torch.testing.assert_close(fast.totals.sums.tolist(), totals, atol=1e-3, rtol=tolerance)


def test_cached_logits_are_the_teacher_forced_ones_in_float32(monkeypatch):
    decoder = excite(PixelCNN(8, 16))
    z, x, seen = torch.randn(2, 8), torch.rand(2, 1, 28, 28).round(), []
    head = decoder.head
    monkeypatch.setattr(decoder, "head", lambda *a: seen.append(head(*a)) or seen[-1])
    assert sampling.decode_pixels(decoder, z, 1 - x).equal(x)  # sigmoid > 1 - x forces x
    monkeypatch.undo()
    cached = torch.cat(seen, 3).view_as(x)
    torch.testing.assert_close(cached, decoder(z, x).detach(), atol=1e-4, rtol=0)


def test_window_outputs_are_the_teacher_forced_ones_in_float32(monkeypatch):
    decoder = excite(SmallPixelCNN(2, 16, 2, 2))
    monkeypatch.setattr(decoder, "shape", (3, 5, 32))  # the first rows
    z, x, seen = torch.randn(2, 128), 2 * torch.rand(2, 3, 5, 32) - 1, []

    def force(output, *_):
        row, column = divmod(len(seen), 32)
        seen.append(output)
        return x[:, :, row : row + 1, column : column + 1]

    monkeypatch.setattr(sampling, "draw_from_mixture", force)
    sampling.decode_window(decoder, z, torch.rand(2, 4, 5, 32))
    windowed = torch.cat(seen, 3).unflatten(3, (5, 32))[:, :, 0]
    *_, features = decoder.pyramid(z)
    forced = decoder.given_features(x, features[:, :, :5]).detach()
    torch.testing.assert_close(windowed, forced, atol=1e-4, rtol=0)


def test_a_reference_stops_after_so_many_pixels():
    net = excite(PixelCNN(8, 4, size=9))
    z, uniform = torch.randn(3, 8), torch.rand(3, 1, 9, 9)
    whole = sampling.decode_pixels_reference(net, z, uniform).flatten(1)
    part = sampling.decode_pixels_reference(net, z, uniform, pixels=40).flatten(1)
    assert part[:, :40].equal(whole[:, :40])
    assert not part[:, 40:].any()


def test_the_posterior_may_be_known_already():
    net = model.build(config.resolve("smoke", "digits").network)
    x, eps = torch.rand(3, 1, 28, 28).round(), torch.randn(5, 3, 32)
    known = evaluation.log_weights(net, x, eps, net.encode(x))
    assert known.equal(evaluation.log_weights(net, x, eps))


def test_benchmark_prints_and_writes_what_it_measured(tmp_path, capsys):
    path = tmp_path / "new" / "results.json"
    rows = ["flow", "pairs", "curve", "nll-precision"]
    bench.main(["--quick", "--rows", *rows, "--device", "cpu", "--json", str(path)])
    printed = capsys.readouterr().out
    content = json.loads(path.read_text())
    assert {"commit", "torch", "hardware", "threads"} <= set(content["provenance"])
    for row in content["rows"]:
        assert row["row"] in printed
        assert all(seconds > 0 for runs in row["timings"].values() for seconds in runs)
    assert content["rows"][0]["more"]["passes"] <= content["rows"][0]["more"]["dimensions"]
