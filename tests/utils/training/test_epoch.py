"""Batches with a non-finite loss or gradient: what is restored, when the optimizer steps, and when training ends.

Before them the guards themselves: the snapshot of batch norm statistics, and the check of gradients.
"""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from models.common import Conv
from models.config import ModelConfig
from models.modules.akconv import AKConv
from models.yolo import DetectionModel
from tests.helpers.training_runs import train_options
from utils.distributed import DistributedContext
from utils.errors import RunError
from utils.options.hyperparameters import Hyperparameters
from utils.structures import Batch
from utils.training.epoch import BatchNormSnapshot, finite_gradients
from utils.training.setup import build_trainer

BATCH_SIZE = 2
GOOD = "good"
BAD = ("image", "loss", "gradient")
MODEL = {
    "nc": 2,
    "anchors": [[10, 13, 16, 30]],
    "backbone": [[-1, 1, "Conv", [4, 3, 2]], [-1, 1, "AKConv", [8, 3, 2]]],
    "head": [[[1], 1, "Detect", ["nc", "anchors"]]],
}
NON_FINITE = [math.nan, math.inf, -math.inf]


def network():
    model = nn.Sequential(Conv(3, 4, 3, 2), AKConv(4, 5, 3), nn.Conv2d(5, 2, 1))
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
            layer.num_batches_tracked.fill_(7)
    return model


def copied(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("value", [3.0, *NON_FINITE])
def test_statistics_are_restored_exactly(value):
    model = network()
    snapshot = BatchNormSnapshot(model)
    snapshot.save()
    before = copied(model)
    images = torch.randn(2, 3, 9, 14)
    images[0, 1, 2, 3] = value
    model.train()(images)
    changed = copied(model)
    statistics = {name for name in before if name.endswith(("running_mean", "running_var"))}
    assert len(statistics) == 4
    assert all(not torch.equal(changed[name], before[name]) for name in statistics)
    assert math.isfinite(value) or any(not changed[name].isfinite().all() for name in statistics)
    snapshot.restore()
    after = model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in statistics)


def test_only_floating_point_statistics_are_restored():
    # num_batches_tracked is an integer and keeps counting; nothing reads it unless momentum is None.
    model = network()
    snapshot = BatchNormSnapshot(model)
    snapshot.save()
    before = copied(model)
    model.train()(torch.randn(2, 3, 9, 14))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    snapshot.restore()
    for name, value in model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            assert before[name] == 7 and value == 8
        elif "running" not in name:
            assert torch.equal(value, before[name] + 1)


def test_the_latest_snapshot_is_restored_any_number_of_times():
    norm = nn.BatchNorm2d(3)
    snapshot = BatchNormSnapshot(norm)
    snapshot.save()
    norm.running_mean.copy_(torch.tensor([1.0, 2.0, 3.0]))
    norm.running_var.copy_(torch.tensor([4.0, 5.0, 6.0]))
    snapshot.save()
    for value in NON_FINITE:
        norm.running_mean.fill_(value)
        norm.running_var.fill_(value)
        snapshot.restore()
        assert norm.running_mean.tolist() == [1, 2, 3]
        assert norm.running_var.tolist() == [4, 5, 6]


def test_statistics_are_restored_in_place():
    norm = nn.BatchNorm2d(3)
    buffers = [*norm.buffers()]
    snapshot = BatchNormSnapshot(norm)
    snapshot.save()
    snapshot.restore()
    assert all(a is b for a, b in zip(buffers, norm.buffers(), strict=True))


def test_without_gradients_all_are_finite():
    assert finite_gradients(network()) is True


@pytest.mark.parametrize("name", ["0.conv.weight", "1.p_conv.bias", "2.bias"])
@pytest.mark.parametrize("value", NON_FINITE)
def test_a_single_bad_element_is_found(name, value):
    model = network()
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    assert finite_gradients(model) is True
    model.get_parameter(name).grad.view(-1)[-1] = value
    assert finite_gradients(model) is False


def test_parameters_without_a_gradient_are_ignored():
    model = network()
    model[2].bias.grad = torch.tensor([1.0, 2.0])
    assert finite_gradients(model) is True
    model[2].bias.grad[0] = math.nan
    assert finite_gradients(model) is False


def test_gradients_whose_squares_overflow_are_finite():
    model = nn.Conv2d(1, 2, 1)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 3e38)
    assert finite_gradients(model) is True


def test_bad_parameters_with_finite_gradients_are_ignored():
    model = nn.Conv2d(1, 2, 1)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
        parameter.data.fill_(math.nan)
    assert finite_gradients(model) is True


class Course:
    """The batches of one epoch, of given kinds; records the training state before each batch and after the last."""

    def __init__(self, kinds, folder, *, value=math.nan, batches_per_step=1):
        self.kinds, self.kind, self.value, self.records = kinds, "", value, []
        images = torch.randint(256, (BATCH_SIZE, 3, 32, 48), dtype=torch.uint8)
        targets = torch.tensor([[0, 0, 0.5, 0.5, 0.3, 0.5], [1, 1, 0.3, 0.6, 0.25, 0.3]])
        self.batch = Batch(images=images, targets=targets, indices=[2, 0])
        options = train_options(folder, folder, batch_size=BATCH_SIZE, epochs=1)
        hyperparameters = Hyperparameters(nbs=BATCH_SIZE * batches_per_step, warmup_epochs=0, lr0=0.05)
        paths = ["images/a.png", "images/b.png", "images/c.png"]
        self.trainer = build_trainer(
            options,
            hyperparameters,
            model=DetectionModel(ModelConfig.from_dict(MODEL, name="small.yaml")),
            data=SimpleNamespace(
                image_size=48,
                stride=4,
                names=("ring", "cross"),
                train=SimpleNamespace(paths=paths, fingerprint=lambda: "fingerprint"),
                sampler=self,
                train_loader=self,
            ),
            run_dir=folder,
            device=torch.device("cpu"),
            context=DistributedContext(),
        )
        self.state = self.trainer.state
        model = self.state.model
        model.register_forward_pre_hook(self.corrupt_images)
        model.register_forward_hook(self.corrupt_output)
        model.model[0].conv.weight.register_hook(self.corrupt_gradient)

    def __len__(self):
        return len(self.kinds)

    def set_epoch(self, *_, **__):
        """Stand in for the sampler, which has one order only."""

    def __iter__(self):
        for kind in self.kinds:
            self.kind = kind
            self.record()
            yield self.batch

    def corrupt_images(self, _, inputs):
        return (inputs[0] * self.value,) if self.kind == "image" else None

    def corrupt_output(self, _, __, output):
        return [level * self.value for level in output] if self.kind == "loss" else None

    def corrupt_gradient(self, gradient):
        return gradient * self.value if self.kind == "gradient" else None

    def record(self):
        state = self.state
        tensors = {name: value.clone() for name, value in state.model.state_dict().items()}
        averages = {name: value.clone() for name, value in state.ema.model.state_dict().items()}
        self.records.append(
            SimpleNamespace(
                weights=[tensors[name] for name, _ in state.model.named_parameters()],
                statistics=[value for name, value in tensors.items() if "running" in name],
                averages=[*averages.values()],
                momenta=[entry["momentum_buffer"].clone() for entry in state.optimizer.state.values()],
                gradients=[p.grad.clone() for p in state.model.parameters() if p.grad is not None],
                skipped=state.progress.skipped,
                counted=state.progress.counted,
                means={**state.progress.means},
            )
        )

    def run(self):
        """Train until training gives up; return the error."""
        with pytest.raises(RunError) as caught:
            self.trainer.train()
        self.record()
        return caught.value


def equal(one, other):
    return len(one) == len(other) and all(map(torch.equal, one, other))


def finite(tensors):
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("kind", BAD)
def test_bad_batches_change_no_learned_state(kind, value, tmp_path):
    course = Course([GOOD, *[kind] * 10], tmp_path, value=value)
    course.run()
    start, before, *_, after = course.records
    assert not equal(start.weights, before.weights)  # the good batch took a step
    assert equal(before.weights, after.weights)
    assert equal(before.averages, after.averages)
    assert equal(before.momenta, after.momenta) and len(after.momenta) > 0
    assert after.gradients == []
    assert finite(after.statistics)
    # With finite images the statistics are finite; they are kept if only the gradient is bad.
    assert equal(before.statistics, after.statistics) is (kind != "gradient")


def test_each_step_moves_the_averaged_model(tmp_path):
    course = Course([GOOD, GOOD, *["loss"] * 10], tmp_path)
    course.run()
    start, after_one, after_two, *_ = course.records
    assert not equal(start.averages, after_one.averages) and not equal(after_one.averages, after_two.averages)


@pytest.mark.parametrize("kind", BAD)
def test_mean_losses_exclude_bad_batches(kind, tmp_path):
    course = Course([GOOD, kind, kind, GOOD, *[kind] * 10], tmp_path)
    course.run()
    assert [record.counted for record in course.records] == [0, 1, 1, 1, 2, *[2] * 10]
    assert course.records[1].means == course.records[3].means
    assert course.records[4].means == course.records[-1].means
    assert all(math.isfinite(value) and value > 0 for value in course.records[-1].means.values())


def test_ten_bad_batches_in_a_row_end_the_run_and_a_good_one_resets_the_count(tmp_path):
    course = Course([*["loss"] * 9, GOOD, *["gradient", "image"] * 5, GOOD], tmp_path)
    error = course.run()
    assert [record.skipped for record in course.records] == [*range(10), 0, *range(1, 11)]
    assert error.exit_code == 1
    note = json.loads((tmp_path / "skipped_batch.json").read_text())
    assert (note["epoch"], note["batch"], note["seed"]) == (0, 19, 0)
    assert note["images"] == ["c.png", "a.png"]


def steps(course):
    """For each batch, whether it changed the weights."""
    return [
        not equal(one.weights, other.weights) for one, other in zip(course.records, course.records[1:], strict=False)
    ]


def test_a_bad_loss_keeps_the_accumulated_gradients(tmp_path):
    course = Course([GOOD, "loss", GOOD, *["loss"] * 10], tmp_path, batches_per_step=2)
    course.run()
    assert equal(course.records[1].gradients, course.records[2].gradients) and course.records[1].gradients
    assert steps(course)[:3] == [False, False, True]


def test_a_bad_gradient_restarts_the_accumulation(tmp_path):
    course = Course([GOOD, "gradient", GOOD, GOOD, *["loss"] * 10], tmp_path, batches_per_step=2)
    course.run()
    assert course.records[1].gradients and course.records[2].gradients == []
    assert steps(course)[:4] == [False, False, False, True]


def test_training_after_a_bad_loss_equals_training_without_it(tmp_path):
    torch.manual_seed(5)
    clean = Course([GOOD, GOOD, *["loss"] * 10], tmp_path)
    torch.manual_seed(5)
    corrupted = Course([GOOD, "image", "loss", GOOD, *["loss"] * 10], tmp_path)
    clean.run()
    corrupted.run()
    assert equal(clean.records[2].weights, corrupted.records[4].weights)
    assert equal(clean.records[2].statistics, corrupted.records[4].statistics)
    assert clean.records[2].means == corrupted.records[4].means
