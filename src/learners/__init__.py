"""Learners by name."""

from components.registry import Registry

REGISTRY = Registry("learner")
REGISTRY.add("q_learner", "learners.q_learner:QLearner", "learners.q_learner:QLearnerOptions")
REGISTRY.add("lpmarl_learner", "learners.lpmarl_learner:LpmarlLearner", "learners.lpmarl_options:LpmarlLearnerOptions")
REGISTRY.add(
    "dec_lpmarl_learner",
    "learners.dec_lpmarl_learner:DecLpmarlLearner",
    "learners.dec_lpmarl_learner:DecLpmarlLearnerOptions",
)
REGISTRY.add("ppo_learner", "learners.ppo_learner:PpoLearner", "learners.ppo_learner:PpoOptions")
REGISTRY.add("seac_learner", "learners.seac_learner:SeacLearner", "learners.seac_learner:SeacOptions")
REGISTRY.add(
    "maddpg_learner", "learners.maddpg_learner:MaddpgLearner", "learners.actor_critic_learner:ActorCriticOptions"
)
REGISTRY.add("maac_learner", "learners.maac_learner:MaacLearner", "learners.maac_learner:MaacOptions")
REGISTRY.add("hsd_learner", "learners.hsd_learner:HsdLearner", "learners.hsd_learner:HsdLearnerOptions")
REGISTRY.add("rode_learner", "learners.rode_learner:RodeLearner", "learners.rode_learner:RodeLearnerOptions")
REGISTRY.add("ldsa_learner", "learners.ldsa_learner:LdsaLearner", "learners.ldsa_learner:LdsaLearnerOptions")
