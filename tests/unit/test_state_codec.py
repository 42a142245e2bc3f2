import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.checkpoint import load_checkpoint, load_into, save_checkpoint
from components.random import load_rng_state, rng_state
from components.state_codec import decode_state, encode_state

META = {"algorithm": "qmix"}


def assert_same(ours, theirs, path="state"):
    assert type(ours) is type(theirs), path
    if isinstance(ours, dict):
        assert list(ours) == list(theirs), path
        assert [type(key) for key in ours] == [type(key) for key in theirs], path
        for key in ours:
            assert_same(ours[key], theirs[key], f"{path}.{key}")
    elif isinstance(ours, (list, tuple)):
        assert len(ours) == len(theirs), path
        for index, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            assert_same(one, other, f"{path}[{index}]")
    elif isinstance(ours, torch.Tensor):
        assert ours.dtype == theirs.dtype, path
        assert ours.shape == theirs.shape, path
        assert ours.numpy().tobytes() == theirs.numpy().tobytes(), path
    elif isinstance(ours, np.ndarray):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape), path
        assert ours.tobytes() == theirs.tobytes(), path
    elif isinstance(ours, float):
        assert struct.pack(">d", ours) == struct.pack(">d", theirs), path
    else:
        assert ours == theirs, path


DTYPES = ["?", "i1", "u2", "<i4", ">i4", "u8", "<f2", "<f4", ">f8", "g", "c8", "c16"]
arrays = st.builds(
    lambda dtype, shape: np.arange(int(np.prod(shape))).reshape(shape).astype(dtype),
    st.sampled_from(DTYPES),
    st.lists(st.integers(0, 3), max_size=3),
)
tensors = st.builds(
    lambda dtype, shape: torch.arange(int(np.prod(shape))).reshape(shape).to(dtype),
    st.sampled_from([torch.bool, torch.uint8, torch.int64, torch.float16, torch.float32, torch.float64]),
    st.lists(st.integers(0, 3), max_size=3),
)
texts = st.text(st.characters(), max_size=5) | st.sampled_from(["#", "\ud800\udc00", "a.b", "", "\ud83d"])
leaves = (
    st.none() | st.booleans() | st.integers() | st.integers(2**120, 2**130) | st.floats() | texts | arrays | tensors
)
keys = texts | st.integers(-5, 2**70)
states = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple) | st.dictionaries(keys, inner, max_size=3)
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(states)
def test_any_state_survives_json_and_back(state):
    encoded, table = encode_state(state)
    text = json.dumps(encoded, allow_nan=False)  # strict JSON, readable by any parser
    assert_same(decode_state(json.loads(text), table), state)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(states)
def test_any_state_survives_the_disk(tmp_path_factory, state):
    folder = save_checkpoint(tmp_path_factory.mktemp("c") / "ckpt", state, META)
    loaded = load_checkpoint(folder)
    assert_same(loaded.state, state)
    assert loaded.meta == META


def test_views_are_stored_small_and_aliases_come_back_apart(tmp_path):
    big = torch.zeros(500_000)
    folder = save_checkpoint(tmp_path / "ckpt", {"view": big[:3], "again": big[:3], "t": torch.eye(2).t()}, META)
    assert (folder / "tensors.pt").stat().st_size < 10_000
    state = load_checkpoint(folder).state
    state["view"] += 1
    assert state["again"].sum() == 0


def test_array_and_tensor_on_one_memory(tmp_path):
    array = np.arange(4.0)
    state = {"array": array, "tensor": torch.from_numpy(array), "frozen": np.broadcast_to(np.float32(2), (3,))}
    assert_same(load_checkpoint(save_checkpoint(tmp_path / "c", state, META)).state, state)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"learner": {"optimizer": {"param_groups": [{"foo": {1, 2}}]}}}, "learner.optimizer.param_groups[0].foo"),
        ({"a": {3: np.float64(1.0)}}, r"a\[3\].*numpy.float64.*item"),
        ({"a": np.array(["x"])}, "a: arrays of dtype <U1"),
        ({"a": {True: 1}}, "a: key True is bool"),
        ({"a": {1.5: 1}}, "a: key 1.5"),
        ({"a": torch.eye(2).to_sparse()}, "a: only dense"),
        ({"a": Path("x")}, "a: a checkpoint cannot hold pathlib"),
        (object(), "the state"),
    ],
)
def test_other_types_are_refused_with_their_path(tmp_path, state, words):
    words = words if "\\" in words or ".*" in words else words.replace("[", r"\[").replace("]", r"\]")
    with pytest.raises(TypeError, match=words):
        save_checkpoint(tmp_path / "ckpt", state, META)
    assert not list(tmp_path.iterdir())


def test_a_whole_learner_and_its_generator_continue_exactly(tmp_path):
    def learner():
        torch.manual_seed(3)
        net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 1))
        return net, torch.optim.Adam(net.parameters(), lr=0.01), np.random.Generator(np.random.PCG64(5))

    def step(net, optimizer, rng):
        loss = net(torch.tensor(rng.random((8, 3)), dtype=torch.float32)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    first = learner()
    for _ in range(3):
        step(*first)
    state = {"net": first[0].state_dict(), "optimizer": first[1].state_dict(), "rng": rng_state(first[2])}
    folder = save_checkpoint(tmp_path / "ckpt", state, META)
    wanted = [step(*first) for _ in range(3)]

    second = learner()
    loaded = load_checkpoint(folder).state
    load_into(second[0], loaded["net"], "net")
    load_into(second[1], loaded["optimizer"], "optimizer")
    load_rng_state(second[2], loaded["rng"])
    assert [step(*second) for _ in range(3)] == wanted
