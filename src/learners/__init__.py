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
REGISTRY.add("hsd_learner", "learners.hsd_learner:HsdLearner", "learners.hsd_learner:HsdLearnerOptions")
