"""Two processes with a batch in parts: in float64 their gradients and statistics equal those of one process."""

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

import utils.distributed
from models.config import load_model_config
from models.yolo import DetectionModel
from utils.datasets.batching import ShuffledBatches
from utils.distributed import (
    POLL_SECONDS,
    DistributedContext,
    _agree_on_start,
    launch_name,
    local_device,
    lost_process,
    process_group_backend,
    run_to_resume,
)
from utils.errors import ConfigError, DataError
from utils.losses.detection import DetectionLoss, LossSettings
from utils.synced_batch_norm import sync_batch_norms

pytestmark = pytest.mark.slow


def problem(config: str) -> tuple[DetectionModel, torch.Tensor, torch.Tensor]:
    """A network in float64, four images (H != W), and objects of which the first two images have most."""
    torch.manual_seed(0)
    model = DetectionModel(load_model_config(config), nc=3).double().train()
    for name, parameter in model.named_parameters():
        if "p_conv" in name:
            torch.nn.init.normal_(parameter, 0.0, 0.05)
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.uniform(size=(4, 3, 64, 96)))
    image = np.array([0, 0, 0, 0, 1, 1, 2])
    boxes = np.concatenate((rng.uniform(0.2, 0.8, (7, 2)), rng.uniform(0.1, 0.5, (7, 2))), 1)
    targets = np.concatenate((image[:, None], rng.integers(3, size=(7, 1)), boxes), 1)
    return model, images, torch.from_numpy(targets).float()


def gradients(
    model: DetectionModel, images: torch.Tensor, targets: torch.Tensor, context: DistributedContext
) -> dict[str, torch.Tensor]:
    """Losses, gradients and running statistics after one batch, summed over all processes."""
    loss = DetectionLoss(LossSettings(), anchors=model.head.anchors, num_classes=3)
    total = context.add if context.size > 1 else None
    losses = torch.stack(tuple(loss(model(images), targets, total=total).values()))
    losses.sum().backward()
    context.add_gradients(model.parameters())
    result = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    result |= {name: value.clone() for name, value in model.named_buffers() if "running" in name}
    return result | {"losses": context.add(losses.detach().double())}


def train_rank(rank: int, port: int, config: str, out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    model, images, targets = problem(config)
    sync_batch_norms(model)
    indices = torch.arange(rank, 4, 2)
    targets = targets[torch.isin(targets[:, 0].long(), indices)].clone()
    targets[:, 0] = targets[:, 0] // 2
    torch.save(gradients(model, images[indices], targets, DistributedContext(rank=rank, size=2)), f"{out}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("config", ["yolov5n.yaml", "yolov5n-AKConv.yaml"])
def test_two_processes_have_the_gradients_of_one(config: str, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(train_rank, args=(port, config, str(tmp_path)), nprocs=2)
    alone = gradients(*problem(config), DistributedContext())
    shared = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    assert len(alone) > 200
    for name, value in alone.items():
        assert (shared[0][name] - value).norm() <= 1e-8 * value.norm() + 1e-12, name
        assert torch.equal(shared[0][name], shared[1][name]), name


def test_the_parts_of_two_processes_make_up_each_batch() -> None:
    common = {"batch_size": 4, "image_size": 64, "seed": 3}
    whole = list(ShuffledBatches(11, **common))
    parts = [list(ShuffledBatches(11, **common, rank=rank, world_size=2)) for rank in range(2)]
    assert len(parts[0]) == len(parts[1]) == len(whole) == 3
    for batch, first, second in zip(whole, *parts, strict=True):
        assert sorted(r.index for r in batch) == sorted(r.index for r in (*first, *second))
        assert abs(len(first) - len(second)) <= 1
    odd = [ShuffledBatches(9, **common, rank=rank, world_size=2) for rank in range(2)]
    assert [len(list(part)) for part in odd] == [2, 2] == [len(part) for part in odd]


def test_an_epoch_can_be_resumed_at_a_batch() -> None:
    plan = ShuffledBatches(11, batch_size=4, image_size=64, seed=3, close_mosaic_epoch=5)
    plan.set_epoch(4)
    whole = list(plan)
    plan.set_epoch(4, start=2)
    assert list(plan) == whole[2:] and whole[0][0].allow_mosaic
    plan.set_epoch(5)
    assert not any(key.allow_mosaic for batch in plan for key in batch)
    plan.set_epoch(4, weights=np.eye(11)[7] + 1e-12)
    assert {key.index for batch in plan for key in batch} == {7}


def test_each_start_gets_one_name_in_all_processes_whatever_earlier_starts_left_in_the_store() -> None:
    store = dist.HashStore()
    names = []
    for size in (3, 3, 2, 4, 3):  # the same launch, with nodes that leave and join
        with ThreadPoolExecutor(size) as pool:
            others = [pool.submit(_agree_on_start, store, rank, size) for rank in range(1, size)]
            time.sleep(3 * POLL_SECONDS)  # before the main process starts, they see only what earlier starts have left
            found = {_agree_on_start(store, 0, size), *(other.result() for other in others)}
        assert len(found) == 1
        names += found
    assert len(set(names)) == 5


def test_a_start_that_lacks_a_process_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("utils.distributed.RENDEZVOUS_TIMEOUT", timedelta(seconds=0.3))
    errors: list[Exception] = []

    def start() -> None:
        try:
            _agree_on_start(dist.HashStore(), 0, 2)
        except RuntimeError as error:
            errors.append(error)

    waiting = threading.Thread(target=start, daemon=True)
    waiting.start()
    waiting.join(20)
    assert len(errors) == 1


def test_a_launch_keeps_its_name_when_the_store_ends_with_the_main_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def name(folder: str, attempt: int, store: dist.Store) -> str:
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", f"{folder}/attempt_{attempt}/0/error.json" if folder else "")
        return launch_name(store)

    first, second = dist.HashStore(), dist.HashStore()
    assert name("/tmp/e/id_x1", 0, first) == name("/tmp/e/id_x1", 1, second) != name("/tmp/e/id_y2", 0, first)
    assert name("", 0, first) == name("", 0, first) != name("", 0, second)  # no logs: the store is torchrun's


def test_the_run_of_a_launch_is_found_by_its_mark(tmp_path: Path) -> None:
    for name, launch in (("exp", "a1"), ("exp2", "b2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / ".launch").write_text(launch)
    assert run_to_resume(str(tmp_path), "b2") == tmp_path / "exp2"
    assert run_to_resume(str(tmp_path), "c3") is None
    assert run_to_resume(str(tmp_path), "") is None


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer"), True),
        (dist.DistBackendError("NCCL error: remote process exited"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("gloo"), False),
    ],
)
def test_a_lost_process_is_distinguished_from_other_errors(error: Exception, lost: bool) -> None:
    assert lost_process(error) is lost


@pytest.mark.parametrize(
    ("gpus", "device", "backend"),
    [
        (0, "", "gloo"),
        (2, "", "cpu:gloo,cuda:nccl"),
        (2, "0,1", "cpu:gloo,cuda:nccl"),
        (2, "cpu", "gloo"),
        (2, " CPU", "gloo"),
        (2, "mps", "gloo"),
    ],
)
def test_gradients_on_gpus_go_through_nccl_and_everything_else_through_gloo(
    gpus: int, device: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    assert process_group_backend(device) == backend


@pytest.mark.parametrize(("device", "own"), [("", "1"), ("0,1", "1"), ("2, 3", "3"), ("5", "1"), ("cpu", "cpu")])
def test_each_process_uses_the_gpu_of_its_rank_on_its_machine(
    device: str, own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("RANK", "7")
    assert local_device(device) == own


def agree_rank(rank: int, port: int, out: str) -> None:
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    context = DistributedContext(rank=rank, size=2)
    printed = [Path(out, f"printed by {each}") for each in range(2)]

    def report(line: str) -> None:
        time.sleep(0.5 * rank)
        printed[rank].write_text(line)

    utils.distributed.report_error = report

    def failing(rank_that_fails: int) -> int:
        if rank == rank_that_fails:
            raise DataError("set.yaml", f"rank {rank} lacks it", fix="copy it")
        return rank

    assert context.agree(lambda: failing(-1)) == rank
    assert context.from_main(lambda: failing(-1)) == 0
    context.require_same({"--epochs": 3, "the data": "same"}, "train.py")
    raised = []
    for call in (
        lambda: context.agree(lambda: failing(1)),
        lambda: context.from_main(lambda: failing(0)),
        lambda: context.require_same({"--epochs": 3 + rank, "the data": "same"}, "train.py"),
    ):
        try:
            call()
        except (ConfigError, DataError) as error:
            lines = [path.read_text() for path in printed]  # none ends before all have printed it
            raised.append((type(error).__name__, str(error), lines == [f"error: {error}"] * 2))
            context.barrier()
            printed[rank].unlink()
    layer = torch.nn.BatchNorm2d(2)
    torch.nn.init.constant_(layer.weight, rank + 1.0)
    layer.running_mean.fill_(rank + 2.0)  # type: ignore[union-attr]
    context.broadcast_state(layer)
    values = [layer.weight.tolist(), layer.running_mean.tolist()]  # type: ignore[union-attr]
    Path(out, f"{rank}.json").write_text(json.dumps([raised, values]))
    context.close()


def test_an_error_in_one_process_is_the_same_error_in_all(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(agree_rank, args=(port, str(tmp_path)), nprocs=2)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first == second
    (raised, values) = first
    assert all(printed for _, _, printed in raised)
    assert [each[0] for each in raised] == ["DataError", "DataError", "ConfigError"]
    assert "rank 1" in raised[0][1] and "rank 0" in raised[1][1] and socket.gethostname() in raised[0][1]
    assert "--epochs" in raised[2][1] and "the data" not in raised[2][1]
    assert values == [[1.0, 1.0], [2.0, 2.0]]
