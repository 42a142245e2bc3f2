import numpy as np
import pytest
from pydantic import ValidationError

from components.config import load_config
from components.errors import UserError
from envs.matrix_games import CLIMBING, MatrixGame, MatrixGameOptions, TwoStepGame, TwoStepGameOptions

CELLS = [(row, column) for row in range(3) for column in range(3)]


@pytest.mark.parametrize("actions", CELLS)
def test_the_payoff_is_the_entry_of_row_agent_0_and_column_agent_1(actions):
    payoff = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]
    game = MatrixGame(MatrixGameOptions(payoff=payoff), 0)
    game.reset()
    _, reward, terminated, truncated, extras = game.step(np.array(actions))
    assert reward == payoff[actions[0]][actions[1]]
    assert (terminated, truncated, extras) == (True, False, {})
    assert game.episode_metrics() == {"success": float(actions == (2, 2))}


def test_the_default_is_the_climbing_game_and_its_optimum_is_8():
    game = MatrixGame(MatrixGameOptions(), 0)
    game.reset()
    assert game.payoff.tolist() == CLIMBING == [[8, -12, -12], [-12, 0, 0], [-12, 0, 0]]
    assert game.step(np.array([0, 0]))[1] == 8
    assert game.episode_metrics() == {"success": 1.0}


def test_the_number_of_actions_is_the_matrix_size():
    game = MatrixGame(MatrixGameOptions(payoff=[[1.0, 0.0], [0.0, 1.0]]), 0)
    assert game.info.n_actions == 2
    assert game.reset()["avail_actions"].shape == (2, 2)


@pytest.mark.parametrize("payoff", [[], [[1.0, 2.0]], [[1.0, 2.0], [3.0]], [[1.0], [2.0]]])
def test_a_payoff_that_is_not_square_is_refused(payoff):
    with pytest.raises(ValidationError, match="square matrix"):
        MatrixGameOptions(payoff=payoff)


def test_a_bad_payoff_is_named_with_its_key():
    with pytest.raises(UserError, match=r"^env_args\.payoff = .*square matrix"):
        load_config("vdn", "matrix_game", ["env_args.payoff=[[1, 2]]"])


TWO_STEPS = [
    (0, (0, 0), 7), (0, (0, 1), 7), (0, (1, 0), 7), (0, (1, 1), 7),
    (1, (0, 0), 0), (1, (0, 1), 1), (1, (1, 0), 1), (1, (1, 1), 8),
]  # fmt: skip


@pytest.mark.parametrize("bystander", [0, 1])
@pytest.mark.parametrize(("first", "second", "reward"), TWO_STEPS)
def test_the_two_step_game(first, second, reward, bystander):
    game = TwoStepGame(TwoStepGameOptions(), 0)
    assert game.reset()["state"].tolist() == [1, 0, 0]
    observation, earned, *ended, _ = game.step(np.array([first, bystander]))
    assert (earned, ended) == (0, [False, False])
    assert observation["state"].tolist() == [0, first == 0, first == 1]
    assert observation["obs"].tolist() == [observation["state"].tolist()] * 2
    _, earned, *ended, _ = game.step(np.array(second))
    assert (earned, ended) == (reward, [True, False])
    assert game.episode_metrics() == {"success": float(reward == 8)}
    assert game.reset()["state"].tolist() == [1, 0, 0]
