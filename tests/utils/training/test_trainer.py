"""Batches without a finite loss or gradient: what the trainer restores, which steps it takes, and when it gives up."""

import json
import math
from types import SimpleNamespace

import pytest
import torch

from models.config import ModelConfig
from models.yolo import DetectionModel
from utils.errors import RunError
from utils.options import TrainOptions
from utils.options.hyperparameters import Hyperparameters
from utils.structures import Batch
from utils.training.trainer import Trainer

BATCH_SIZE = 2
GOOD = "good"
BAD = ("image", "loss", "gradient")
MODEL = {
    "nc": 2,
    "anchors": [[10, 13, 16, 30]],
    "backbone": [[-1, 1, "Conv", [4, 3, 2]], [-1, 1, "AKConv", [8, 3, 2]]],
    "head": [[[1], 1, "Detect", ["nc", "anchors"]]],
}


class Course:
    """The batches of an epoch, of given kinds; notes the run's state before each of them, and after the last."""

    def __init__(self, kinds, folder, *, value=math.nan, batches_per_step=1):
        self.kinds, self.kind, self.value, self.states = kinds, "", value, []
        images = torch.randint(256, (BATCH_SIZE, 3, 32, 48), dtype=torch.uint8)
        targets = torch.tensor([[0, 0, 0.5, 0.5, 0.3, 0.5], [1, 1, 0.3, 0.6, 0.25, 0.3]])
        self.batch = Batch(images=images, targets=targets, indices=[2, 0])
        self.trainer = Trainer(
            options=TrainOptions(batch_size=BATCH_SIZE, epochs=1, noplots=True, device="cpu"),
            hyperparameters=Hyperparameters(nbs=BATCH_SIZE * batches_per_step, warmup_epochs=0, lr0=0.05),
            model=DetectionModel(ModelConfig.from_dict(MODEL, name="small.yaml")),
            data=SimpleNamespace(
                names=("ring", "cross"),
                train=SimpleNamespace(paths=["images/a.png", "images/b.png", "images/c.png"]),
                sampler=self,
                train_batches=self,
            ),
            run_dir=folder,
            device=torch.device("cpu"),
            image_size=48,
        )
        model = self.trainer.model
        model.register_forward_pre_hook(self.spoil_images)
        model.register_forward_hook(self.spoil_output)
        model.model[0].conv.weight.register_hook(self.spoil_gradient)

    def __len__(self):
        return len(self.kinds)

    def set_epoch(self, *_, **__):
        """Stand for the sampler: there is one order only."""

    def __iter__(self):
        for kind in self.kinds:
            self.kind = kind
            self.note()
            yield self.batch

    def spoil_images(self, _, inputs):
        return (inputs[0] * self.value,) if self.kind == "image" else None

    def spoil_output(self, _, __, output):
        return [level * self.value for level in output] if self.kind == "loss" else None

    def spoil_gradient(self, gradient):
        return gradient * self.value if self.kind == "gradient" else None

    def note(self):
        trainer = self.trainer
        tensors = {name: value.clone() for name, value in trainer.model.state_dict().items()}
        averages = {name: value.clone() for name, value in trainer.ema.model.state_dict().items()}
        momenta = [state["momentum_buffer"].clone() for state in trainer.optimizer.state.values()]
        gradients = [p.grad.clone() for p in trainer.model.parameters() if p.grad is not None]
        self.states.append(
            SimpleNamespace(
                weights=[tensors[name] for name, _ in trainer.model.named_parameters()],
                statistics=[value for name, value in tensors.items() if "running" in name],
                averages=[*averages.values()],
                momenta=momenta,
                gradients=gradients,
                skipped=trainer.progress.skipped,
                counted=trainer.progress.counted,
                means={**trainer.progress.means},
            )
        )

    def run(self):
        """Train until the trainer gives up; return the error."""
        with pytest.raises(RunError) as caught:
            self.trainer.train()
        self.note()
        return caught.value


def equal(one, other):
    return len(one) == len(other) and all(map(torch.equal, one, other))


def finite(tensors):
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("kind", BAD)
def test_bad_batches_change_nothing_that_is_learned(kind, value, tmp_path):
    course = Course([GOOD, *[kind] * 10], tmp_path, value=value)
    course.run()
    start, before, *_, after = course.states
    assert not equal(start.weights, before.weights)  # the good batch made a step
    assert equal(before.weights, after.weights)
    assert equal(before.averages, after.averages)
    assert equal(before.momenta, after.momenta) and len(after.momenta) > 0
    assert after.gradients == []
    assert finite(after.statistics)
    # Finite images have finite statistics, which stay when only the gradient is bad.
    assert equal(before.statistics, after.statistics) is (kind != "gradient")


@pytest.mark.parametrize("kind", BAD)
def test_means_leave_bad_batches_out(kind, tmp_path):
    course = Course([GOOD, kind, kind, GOOD, *[kind] * 10], tmp_path)
    course.run()
    assert [state.counted for state in course.states] == [0, 1, 1, 1, 2, *[2] * 10]
    assert course.states[1].means == course.states[3].means
    assert course.states[4].means == course.states[-1].means
    assert all(math.isfinite(value) and value > 0 for value in course.states[-1].means.values())


def test_ten_in_a_row_end_the_run_and_a_good_batch_begins_the_count_anew(tmp_path):
    course = Course([*["loss"] * 9, GOOD, *["gradient", "image"] * 5, GOOD], tmp_path)
    error = course.run()
    assert [state.skipped for state in course.states] == [*range(10), 0, *range(1, 11)]
    assert error.exit_code == 1
    note = json.loads((tmp_path / "skipped_batch.json").read_text())
    assert (note["epoch"], note["batch"], note["seed"]) == (0, 19, 0)
    assert note["images"] == ["c.png", "a.png"]


def steps(course):
    """Whether the weights changed, per batch."""
    return [not equal(one.weights, other.weights) for one, other in zip(course.states, course.states[1:], strict=False)]


def test_a_bad_loss_keeps_the_gradients_gathered_so_far(tmp_path):
    course = Course([GOOD, "loss", GOOD, *["loss"] * 10], tmp_path, batches_per_step=2)
    course.run()
    assert equal(course.states[1].gradients, course.states[2].gradients) and course.states[1].gradients
    assert steps(course)[:3] == [False, False, True]


def test_a_bad_gradient_begins_to_gather_anew(tmp_path):
    course = Course([GOOD, "gradient", GOOD, GOOD, *["loss"] * 10], tmp_path, batches_per_step=2)
    course.run()
    assert course.states[1].gradients and course.states[2].gradients == []
    assert steps(course)[:4] == [False, False, False, True]


def test_training_goes_on_as_if_a_bad_loss_had_not_been(tmp_path):
    torch.manual_seed(5)
    plain = Course([GOOD, GOOD, *["loss"] * 10], tmp_path)
    torch.manual_seed(5)
    spoilt = Course([GOOD, "image", "loss", GOOD, *["loss"] * 10], tmp_path)
    plain.run()
    spoilt.run()
    assert equal(plain.states[2].weights, spoilt.states[4].weights)
    assert equal(plain.states[2].statistics, spoilt.states[4].statistics)
    assert plain.states[2].means == spoilt.states[4].means
