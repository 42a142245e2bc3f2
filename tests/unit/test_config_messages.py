from __future__ import annotations

from pathlib import Path

import pytest
from support.fake_parts import config_errors, write_config_folder


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("lr=abc", "lr = 'abc' (command line): expected a number > 0, not a text"),
        ("lr=-1", "lr = -1 (command line): expected a number > 0"),
        ("lr=true", "lr = True (command line): expected a number > 0, not true or false"),
        ("lr=.inf", "lr = inf (command line): expected a number > 0"),
        ("lr=1e30", "lr = 1e+30 (command line): expected numbers up to 1e+18"),
        ("t_max=1e30", "t_max = 1e+30 (command line): expected numbers up to 1e+18"),
        ("layers=[8, 1e30]", "layers = [8, 1e+30] (command line): expected numbers up to 1e+18"),
        ("gamma=1.5", "gamma = 1.5 (command line): expected a number >= 0 and <= 1"),
        ("seed=1.5", "seed = 1.5 (command line): expected an integer >= 0 and <= 4294967295, not a number"),
        ("seed=-1", "seed = -1 (command line): expected an integer >= 0 and <= 4294967295"),
        ("seed=true", "seed = True (command line): expected an integer >= 0 and <= 4294967295, not true or false"),
        ("seed='1'", "seed = '1' (command line): expected an integer >= 0 and <= 4294967295, not a text"),
        ("t_max=0", "t_max = 0 (command line): expected an integer > 0"),
        ("use_cuda=1", "use_cuda = 1 (command line): expected true or false, not an integer"),
        ("use_cuda=yes", "use_cuda = 'yes' (command line): expected true or false, not a text"),
        ("optimizer=sgd", "optimizer = 'sgd' (command line): expected one of 'adam', 'rmsprop'"),
        ("mixer=3", "mixer = 3 (command line): expected a text or null, not an integer"),
        ("env=null", "env = None (command line): expected a text, not null"),
        ("env_args=3", "env_args = 3 (command line): expected a mapping (key: value), not an integer"),
        ("env_args.size=[]", "env_args.size = [] (command line): expected a number > 0, not a list"),
        ("lr.x=1", "lr = {'x': 1} (command line): expected a number > 0, not a mapping"),
        ("layers=[8, 0]", "layers = [8, 0] (command line): expected a list (each item an integer >= 1)"),
        ("layers=[8, a]", "layers = [8, 'a'] (command line): expected a list (each item an integer >= 1)"),
        ("layers=8", "layers = 8 (command line): expected a list (each item an integer >= 1), not an integer"),
        (
            "target_update_interval=0",
            "target_update_interval = 0 (command line): expected an integer >= 1 or null",
        ),
        ("warmup=soon", "warmup = 'soon' (command line): expected an integer or 'auto'"),
        ("epsilon_finish=2", "learner 'q_learner': epsilon_finish must not exceed epsilon_start"),
        (
            "label=a/b",
            "label = 'a/b' (command line): expected letters, digits and _ . - only, not starting with a dot",
        ),
        (
            "name=../up",
            "name = '../up' (command line): expected letters, digits and _ . - = + only, not starting with a dot",
        ),
        ("name=", "name = '' (command line): expected a text of length >= 1 and of length <= 100"),
        ("lr", "'lr' (command line): expected key=value after 'with', such as lr=0.001 or env_args.n=3"),
        ("=3", "'=3' (command line): expected key=value after 'with', such as lr=0.001 or env_args.n=3"),
        ("a..b=3", "'a..b=3' (command line): expected key=value after 'with', such as lr=0.001 or env_args.n=3"),
        ("lrr=1", "lrr (command line): unknown key; did you mean 'lr'?"),
        ("zzzzzz=1", "zzzzzz (command line): unknown key; print_config lists all keys"),
        ("env_args.n_agent=2", "env_args.n_agent (command line): unknown key; did you mean 'env_args.n_agents'?"),
        ("n_agents=2", "n_agents (command line): unknown key; did you mean 'env_args.n_agents'?"),
        ("env_args.seed=2", "env_args.seed (command line): unknown key; did you mean 'seed'?"),
        ("env_arg.size=2", "env_arg (command line): unknown key; did you mean 'env_args'?"),
        (
            "mixing_embed_dim=2",
            "mixing_embed_dim (command line): belongs to mixer 'nmix', 'qmix'; this run has mixer: null",
        ),
        (
            "critic_lr=2",
            "critic_lr (command line): belongs to learner 'critic_learner'; this run has learner: 'q_learner'",
        ),
        (
            "env_args.map_name=3m",
            "env_args.map_name (command line): belongs to env 'battle'; this run has env: 'navigation'",
        ),
        (
            "mixer=qmx",
            "mixer = 'qmx' (command line): unknown mixer 'qmx'; did you mean 'qmix'? Known: broken, nmix, qmix",
        ),
        (
            "mac=odd_mac",
            "gamma: default of mac 'odd_mac' is 0.5 but default of learner 'q_learner' is 0.99; give it a value",
        ),
    ],
)
def test_one_line_for_each_mistake(tmp_path: Path, override: str, message: str) -> None:
    assert config_errors(write_config_folder(tmp_path), override) == [message]
