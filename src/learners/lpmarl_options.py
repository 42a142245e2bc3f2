"""The options of LPMARL's learner."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from components.registry import Options

UNAVAILABLE = -1e7


class LpmarlLearnerOptions(Options):
    """Discounts, targets, exploration bonuses and rhythm of both levels."""

    lr: float = Field(3e-3, gt=0, description="Adam learning rate of the actor, at the start")
    low_critic_lr: float = Field(3e-3, gt=0, description="Adam learning rate of the low-level critic, at the start")
    high_critic_lr: float = Field(1e-3, gt=0, description="Adam learning rate of the high-level critic, at the start")
    lr_final: float = Field(0.03, gt=0, le=1, description="share of each rate that is left at the end (linear decay)")
    lr_hold: float = Field(0.25, ge=0, lt=1, description="share of the run before lr starts to decay")
    grad_norm_clip: float = Field(10.0, gt=0, description="gradient norm is cut to this")
    env_steps_per_update: float = Field(128, gt=0, description="environment steps gathered for each update")
    warmup_episodes: int = Field(32, ge=1, description="episodes stored before the first update")
    target_update_tau: float = Field(0.2, gt=0, le=1, description="share of the new weights in each target update")
    w_start: float = Field(0.9, ge=0, le=1, description="weight of the low-level actor loss at the start")
    w_finish: float = Field(0.1, ge=0, le=1, description="the same at the end (linear)")

    batch_size_high: int = Field(256, ge=1, description="decisions of one high-level update")
    high_interval: int = Field(2, ge=1, description="low-level updates for each high-level update")
    gamma_high: float = Field(0.95, ge=0, le=1, description="high-level discount per environment step")
    n_step_high: int = Field(
        1, ge=1, description="decisions whose rewards a high-level target adds up before a value follows"
    )
    high_target: Literal["feasible_max", "per_agent_max", "actor"] = Field(
        "feasible_max", description="next value: best feasible assignment, eq. 14 as printed, or the actor's assignment"
    )
    differentiator: str = Field("blackbox", description="gradient through the assignment LP, see docs/assignment.md")
    differentiator_args: dict[str, Any] = Field(default_factory=dict, description="options of the differentiator")
    blackbox_lambda: float = Field(
        20.0, gt=0, description="lambda of the blackbox differentiator, unless differentiator_args has lam or tau"
    )
    high_actor_weight: float = Field(
        1.0, gt=0, description="factor on the high-level actor loss: each differentiator's direction has its own size"
    )
    high_entropy_weight: float = Field(
        0.01, ge=0, description="weight of the high-level policy's entropy with high_policy: softmax"
    )
    high_advantage_floor: float = Field(
        0.05, gt=0, description="least scale that the high-level advantage is divided by"
    )

    batch_size_low: int = Field(128, ge=1, description="states of one low-level update")
    gamma_low: float = Field(0.95, ge=0, le=1, description="low-level discount per environment step")
    low_target: Literal["policy", "double_q", "max"] = Field(
        "policy", description="next value: expected under the policy, double Q, or eq. 18 as printed (max)"
    )
    low_reward_scale: float = Field(0.1, gt=0, description="factor on the task rewards")
    normalize_low_advantage: bool = Field(True, description="divide the low-level advantage by its spread")
    low_actor: Literal["projection", "policy_gradient"] = Field(
        "projection", description="fit pi to softmax(A / beta), or follow the policy gradient to the same optimum"
    )
    low_next_task: Literal["kept", "given"] = Field(
        "kept",
        description="the task that the next low-level value is for: the same while it lasts, or the one given next",
    )
    bootstrap_success: bool = Field(True, description="the low level values the future beyond success")
    low_advantage_floor: float = Field(0.01, gt=0, description="least spread that it is divided by")
    entropy_weight: float = Field(0.2, ge=0, description="weight of the low-level policy's entropy")
    relabel: float = Field(
        0.5, ge=0, le=1, description="share of low-level states whose tasks are replaced by random ones"
    )

    @model_validator(mode="after")
    def _projection_needs_a_temperature(self) -> LpmarlLearnerOptions:
        if self.low_actor == "projection" and self.entropy_weight == 0:
            raise ValueError("entropy_weight = 0 needs low_actor = 'policy_gradient': the projection divides by it")
        return self
