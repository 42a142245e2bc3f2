"""The ``*_official`` files against the numbers of their authors' code, as docs/algorithms has them."""

from typing import Any

import pytest

from components.config import load_config

PYMARL2 = {
    "optimizer": "adam",
    "lr": 1e-3,
    "batch_size": 128,
    "buffer_size": 5000,
    "batch_size_run": 8,
    "epsilon_anneal_time": 100_000,
    "td_lambda": 0.6,
    "target_update_interval": 200,
    "grad_norm_clip": 10,
}
PYMARL = {
    "optimizer": "rmsprop",
    "lr": 5e-4,
    "batch_size": 32,
    "buffer_size": 5000,
    "target_update_interval": 200,
    "target_update_tau": 1.0,
    "grad_norm_clip": 10,
}
OFFICIAL: dict[str, dict[str, Any]] = {
    "vdn_official": PYMARL2,
    "qmix_official": PYMARL2 | {"mixing_embed_dim": 32, "hypernet_layers": 2, "hypernet_embed": 64},
    "qplex_official": PYMARL2 | {"attention_heads": 4, "hypernet_embed": 64},
    "rode_official": PYMARL
    | {
        "n_role_clusters": 5,
        "role_interval": 5,
        "role_action_spaces_update_start": 50_000,
        "action_latent_dim": 20,
        "state_latent_dim": 32,
        "epsilon_anneal_time": 70_000,
        "epsilon_anneal_time_exp": 70_000,
    },
    "ldsa_official": PYMARL
    | {"n_subtasks": 4, "lambda_subtask_repr": 1e-3, "lambda_subtask_prob": 1e-3, "epsilon_anneal_time": 50_000},
    "hsd_official": {
        "n_skills": 6,
        "segment_length": 20,
        "decoder_obs": 10,
        "decoder_skip": 4,
        "alpha_start": 1.0,
        "alpha_finish": 0.6,
        "alpha_step": 0.05,
        "alpha_threshold": 0.5,
        "high_hidden_dim": 128,
        "mixing_embed_dim": 64,
        "lr": 1e-4,
        "target_update_tau": 0.01,
        "epsilon_start": 0.5,
    },
    "maddpg_official": {
        "lr": 1e-2,
        "critic_lr": 1e-2,
        "gamma": 0.95,
        "batch_size": 1024,
        "env_steps_per_update": 100,
        "target_update_tau": 0.01,
        "grad_norm_clip": 0.5,
        "critic_grad_norm_clip": 0.5,
        "logit_penalty": 1e-3,
    },
    "maac_official": {
        "lr": 1e-3,
        "critic_lr": 1e-3,
        "critic_weight_decay": 1e-3,
        "gamma": 0.99,
        "batch_size": 1024,
        "batch_size_run": 12,
        "target_update_tau": 1e-3,
        "reward_scale": 100,
        "attention_heads": 4,
        "hidden_dim": 128,
        "critic_hidden_dim": 128,
        "grad_norm_clip": 0.5,
        "critic_grad_norm_clip": 10,
    },
    "seac_official": {
        "lr": 3e-4,
        "optim_eps": 1e-3,
        "n_step": 5,
        "share_coef": 1.0,
        "entropy_coef": 0.01,
        "batch_size_run": 4,
        "batch_size": 20,
        "grad_norm_clip": 0.5,
    },
    "mappo_official": {
        "lr": 5e-4,
        "epochs": 15,
        "minibatches": 1,
        "eps_clip": 0.2,
        "gae_lambda": 0.95,
        "entropy_coef": 0.01,
        "batch_size_run": 8,
        "grad_norm_clip": 10,
    },
}


@pytest.mark.parametrize("algorithm", OFFICIAL)
def test_an_official_file_has_its_authors_numbers(algorithm: str) -> None:
    values = load_config(algorithm, "navigation").values
    assert {key: values[key] for key in OFFICIAL[algorithm]} == OFFICIAL[algorithm]
