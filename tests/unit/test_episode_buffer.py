import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from components.episode_buffer import EpisodeBatch, FieldSpec, ReplayBuffer, episode_fields
from envs.base import EnvInfo, TaskInfo

LIMIT, N, M, A = 5, 2, 3, 4
INFO = EnvInfo(
    n_agents=N,
    n_actions=A,
    obs_shape=6,
    state_shape=7,
    episode_limit=LIMIT,
    tasks=TaskInfo(n_tasks=M, agent_feats=4, task_feats=3),
)
FIELDS = episode_fields(
    INFO,
    ("obs", "state", "avail_actions", "agent_alive", "task_alive", "capacity"),
    ("reward_high", "task_reward", "agent_reward"),
    {"assignment": FieldSpec((N,), torch.int64)},
)


def episodes(lengths, tag=0, truncated=True):
    """Episodes of these lengths; ``obs`` holds 100 * (tag + episode) + step wherever a step was observed."""
    batch = EpisodeBatch.zeros(FIELDS, len(lengths), LIMIT + 1, A)
    for b, length in enumerate(lengths):
        batch["filled"][b, : length + 1] = 1
        batch["obs"][b, : length + 1] = 100 * (tag + b) + torch.arange(length + 1)[:, None, None]
        batch["truncated" if truncated and length == LIMIT else "terminated"][b, length - 1] = 1
    return batch


def buffer(capacity=4, seed=0):
    return ReplayBuffer(FIELDS, capacity, LIMIT + 1, A, np.random.default_rng(seed))


def tags(batch):
    """Which episodes a batch holds, by their mark."""
    return [int(value) // 100 for value in batch["obs"][:, 0, 0, 0]]


PYMARL = {
    "obs": ((N, 6), torch.float32),
    "state": ((7,), torch.float32),
    "avail_actions": ((N, A), torch.int32),
    "actions": ((N, 1), torch.int64),
    "reward": ((1,), torch.float32),
    "terminated": ((1,), torch.uint8),
    "filled": ((1,), torch.int64),
}
OURS = {
    "agent_alive": ((N,), torch.bool),
    "task_alive": ((M,), torch.bool),
    "capacity": ((M,), torch.int64),
    "truncated": ((1,), torch.uint8),
    "reward_high": ((1,), torch.float32),
    "task_reward": ((N, M), torch.float32),
    "agent_reward": ((N,), torch.float32),
    "assignment": ((N,), torch.int64),
}


@pytest.mark.parametrize(("field", "shape", "dtype"), [(name, *spec) for name, spec in (PYMARL | OURS).items()])
def test_layout_of_a_field(field, shape, dtype):
    batch = episodes([2, 5])
    assert field in batch
    assert batch[field].shape == (2, LIMIT + 1, *shape)
    assert batch[field].dtype == dtype


def test_the_fields_are_exactly_those_asked_for():
    assert set(FIELDS) == set(PYMARL | OURS)
    flat = EnvInfo(n_agents=N, n_actions=A, obs_shape=6, state_shape=7, episode_limit=LIMIT)
    always = {"actions", "reward", "terminated", "truncated", "filled"}
    assert set(episode_fields(flat, ("obs",), (), {})) == {"obs"} | always
    assert "capacity" not in EpisodeBatch.zeros(episode_fields(flat, ("obs",), (), {}), 1, 2, A)


def test_sizes_and_device():
    batch = episodes([2, 3, 1])
    assert (batch.batch_size, batch.max_seq_length, batch.max_t_filled()) == (3, LIMIT + 1, 4)
    assert batch.lengths().tolist() == [2, 3, 1]
    assert batch.device == torch.device("cpu")
    assert batch.to("cpu") is batch
    assert batch.to("meta").device == torch.device("meta")
    assert batch.device == torch.device("cpu")


SLICES = [
    np.s_[:, :-1],
    np.s_[:, : LIMIT - 1],
    np.s_[1:],
    np.s_[torch.tensor([1, 0])],
    np.s_[[1]],
    np.s_[:, 1:3],
]


@pytest.mark.parametrize("key", SLICES, ids=str)
def test_slices_are_batches_of_the_sliced_fields(key):
    batch = episodes([2, 5])
    part = batch[key]
    assert isinstance(part, EpisodeBatch)
    for name, tensor in batch.data.items():
        torch.testing.assert_close(part[name], tensor[key])
    assert part["actions_onehot"].shape[-1] == A


def test_max_t_filled_cuts_the_padding_away():
    batch = episodes([2, 3])
    cut = batch[:, : batch.max_t_filled()]
    assert cut.max_seq_length == 4
    assert cut["filled"].sum() == batch["filled"].sum()


def test_actions_onehot():
    batch = episodes([2])
    batch["actions"][0, 1, :, 0] = torch.tensor([3, 1])
    onehot = batch["actions_onehot"]
    assert onehot.shape == (1, LIMIT + 1, N, A)
    assert onehot.dtype == torch.float32
    assert onehot[0, 1].tolist() == [[0, 0, 0, 1], [0, 1, 0, 0]]
    assert (onehot.sum(-1) == 1).all()


@pytest.mark.parametrize(
    ("length", "truncated", "mask"),
    [
        (2, False, [1, 1, 0, 0, 0]),
        (LIMIT, True, [1, 1, 1, 1, 1]),
        (LIMIT, False, [1, 1, 1, 1, 1]),
        (1, False, [1, 0, 0, 0, 0]),
    ],
)
def test_the_mask_holds_transitions_up_to_the_last_and_no_padding(length, truncated, mask):
    batch = episodes([length], truncated=truncated)
    assert batch.mask().shape == (1, LIMIT, 1)
    assert batch.mask().dtype == torch.float32
    assert batch.mask()[0, :, 0].tolist() == mask
    # PyMARL's learners mask by themselves, with terminated and filled: the same transitions.
    theirs = batch["filled"][:, :-1].float()
    theirs[:, 1:] *= 1 - batch["terminated"][:, :-2].float()
    ended_by_time = length == LIMIT and truncated
    assert theirs[0, :length, 0].tolist() == [1] * length
    assert torch.equal(theirs, batch.mask()) or ended_by_time
    assert batch["terminated"].sum() == (0 if ended_by_time else 1)
    assert batch["truncated"].sum() == (1 if ended_by_time else 0)


def test_the_buffer_keeps_the_last_episodes_in_a_ring():
    kept = buffer(capacity=4)
    assert len(kept) == 0
    for tag, count, size in ((0, 3, 3), (3, 3, 4), (6, 1, 4)):
        kept.insert(episodes([2] * count, tag))
        assert len(kept) == size
    assert sorted(tags(kept.sample(4))) == [3, 4, 5, 6]


def test_more_episodes_than_the_capacity_leave_the_last():
    kept = buffer(capacity=4)
    kept.insert(episodes([1], tag=50))
    kept.insert(episodes([2, 3, 4, 5, 1, 2], tag=10))
    assert sorted(tags(kept.sample(4))) == [12, 13, 14, 15]
    ids = torch.arange(4)
    marks = [int(value) // 100 for value in kept.episodes("obs", ids)[:, 0, 0, 0]]
    assert dict(zip(marks, kept.lengths(ids).tolist(), strict=True)) == {12: 4, 13: 5, 14: 1, 15: 2}


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.lists(st.lists(st.integers(1, LIMIT), min_size=1, max_size=7), min_size=1, max_size=6))
def test_the_ring_holds_the_last_episodes_whatever_comes(capacity, batches):
    kept, everything = buffer(capacity), []
    for lengths in batches:
        kept.insert(episodes(lengths, tag=len(everything)))
        everything += lengths
    last = dict(list(enumerate(everything))[-capacity:])
    sample = kept.sample(len(kept))
    assert dict(zip(tags(sample), sample.lengths().tolist(), strict=True)) == last


def test_an_overwritten_episode_leaves_nothing_behind():
    kept = buffer(capacity=1)
    kept.insert(episodes([LIMIT]))
    kept.insert(episodes([1], tag=7))
    stored = {name: kept.episodes(name, torch.tensor([0])) for name in FIELDS}
    for name, tensor in episodes([1], tag=7).data.items():
        torch.testing.assert_close(stored[name], tensor)


def test_samples_are_different_episodes_cut_to_the_longest():
    kept = buffer(capacity=6)
    kept.insert(episodes([1, 2, 3, 1, 2, 3]))
    seen = set()
    for _ in range(60):
        sample = kept.sample(3)
        assert len(set(tags(sample))) == 3
        assert sample.max_seq_length == sample.max_t_filled()
        seen |= set(tags(sample))
    assert seen == set(range(6))
    with pytest.raises(ValueError, match=r"larger sample than population|Cannot take"):
        kept.sample(7)


def test_samples_are_copies():
    kept = buffer(capacity=1)
    inserted = episodes([LIMIT])
    kept.insert(inserted)
    inserted["obs"].fill_(-1)
    sample = kept.sample(1)
    sample["obs"].fill_(-2)
    assert kept.sample(1)["obs"].min() >= 0


def test_sampled_steps_are_uniform_over_transitions_and_never_padding():
    lengths = [1, 5, 2, 3]
    kept = buffer(capacity=8)
    kept.insert(episodes(lengths))
    count = 22_000
    index = kept.sample_steps(count)
    assert (index.step < kept.lengths(index.episode)).all()
    places, counts = np.unique(np.stack([index.episode, index.step]), axis=1, return_counts=True)
    assert places.T.tolist() == [[b, t] for b, length in enumerate(lengths) for t in range(length)]
    expected = count / sum(lengths)
    # Chi-square with 10 degrees of freedom exceeds 29.6 once in a thousand; the stream is fixed.
    assert ((counts - expected) ** 2 / expected).sum() < 29.6
    assert (kept.at("filled", index) == 1).all()
    assert (kept.at("filled", index, 1) == 1).all()
    marks = kept.at("obs", index, 1)[:, 0, 0]
    assert torch.equal(marks, (100 * index.episode + index.step + 1).float())


def test_sampled_steps_follow_the_ring():
    kept = buffer(capacity=2)
    kept.insert(episodes([5, 5]))
    kept.insert(episodes([1], tag=9))
    index = kept.sample_steps(500)
    at_first = index.episode == 0
    assert set(index.step[at_first].tolist()) == {0}
    assert set(index.step[~at_first].tolist()) == set(range(5))
    assert (kept.at("obs", index)[at_first] == 900).all()


@pytest.mark.parametrize("counts", [(3,), (3, 3), (4, 1)])
def test_a_restored_buffer_goes_on_with_the_same_samples(counts):
    kept, other = buffer(seed=1), buffer(seed=2)
    for tag, count in enumerate(counts):
        kept.insert(episodes([2, 4, 5, 1][:count], 10 * tag))
    kept.sample(2)
    other.insert(episodes([3, 3], tag=70))
    state = kept.state_dict()

    def go_on(which):
        out = []
        for tag in (30, 40):
            index = which.sample_steps(20)
            out += [which.sample(3).data, {"episode": index.episode, "step": index.step}]
            which.insert(episodes([1, 5], tag))
        return [*out, which.sample(len(which)).data]

    first = go_on(kept)
    # Taken before, so what came after must not have changed it.
    other.load_state_dict(state)
    for ours, theirs in zip(first, go_on(other), strict=True):
        for name, value in ours.items():
            torch.testing.assert_close(theirs[name], value, rtol=0, atol=0, msg=name)


def test_the_newest_episodes_are_the_last_inserted_the_oldest_first():
    kept = buffer(capacity=4)
    kept.insert(episodes([2, 3, 1]))
    assert tags(kept.newest(2)) == [1, 2]
    kept.insert(episodes([4, 2], tag=3))
    newest = kept.newest(3)
    assert tags(newest) == [2, 3, 4]
    assert newest.max_seq_length == 5
    assert tags(kept.newest(9)) == [1, 2, 3, 4]
    assert kept.drawn.tolist() == [1, 2, 3, 0]
