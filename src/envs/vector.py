"""Where B environments live: in this process or in workers. Results do not depend on it: each has its own seed."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from typing_extensions import override

from components.registry import Options
from envs import REGISTRY
from envs.base import Array, EnvInfo, MultiAgentEnv, StepResult, VectorEnv, check_fields

# Seconds that a worker has to close its environments, which may be programs of their own.
_CLOSING = 10.0


class SerialEnvs(VectorEnv):
    """B single environments stepped one after the other.

    Args:
        envs: the environments.
        seeds: the seed that each was made with.
        fields: which fields to observe.
    """

    def __init__(self, envs: Sequence[MultiAgentEnv], seeds: Sequence[int], fields: Sequence[str]) -> None:
        self._envs = list(envs)
        self._seeds = list(seeds)
        self.n_envs = len(self._envs)
        self.info = self._envs[0].info
        check_fields(self.info, fields)
        self._fields = tuple(fields)
        self._last: list[dict[str, Array]] = [{} for _ in self._envs]
        self.observation = {}

    @property
    @override
    def seeds(self) -> list[int]:
        return self._seeds

    @override
    def reset(self) -> None:
        self._last = [env.reset() for env in self._envs]
        self._stack()

    @override
    def step(self, actions: Array, active: Array) -> StepResult:
        reward = np.zeros(self.n_envs, dtype=np.float32)
        terminated, truncated = np.zeros((2, self.n_envs), dtype=np.bool_)
        extras: dict[str, list[Array]] = {}
        for b in np.flatnonzero(active):
            self._last[b], reward[b], terminated[b], truncated[b], extra = self._envs[b].step(actions[b])
            for name, value in extra.items():
                rows = extras.setdefault(name, [np.zeros_like(value)] * self.n_envs)
                rows[b] = value
        self._stack()
        return StepResult(reward, terminated, truncated, {name: np.stack(rows) for name, rows in extras.items()})

    def _stack(self) -> None:
        self.observation = {name: np.stack([last[name] for last in self._last]) for name in self._fields}

    @override
    def episode_metrics(self) -> dict[str, Array]:
        rows = [env.episode_metrics() for env in self._envs]
        return {name: np.array([row[name] for row in rows], dtype=np.float64) for name in rows[0]}

    @override
    def state_dict(self) -> dict[str, Any]:
        # A MultiAgentEnv cannot be asked for its observation again, so the last one is part of the state.
        return {"envs": [env.state_dict() for env in self._envs], "last": [dict(last) for last in self._last]}

    @override
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for env, saved in zip(self._envs, state["envs"], strict=True):
            env.load_state_dict(saved)
        self._last = [dict(last) for last in state["last"]]
        if all(self._last):
            self._stack()

    @override
    def close(self) -> None:
        for env in self._envs:
            env.close()


def in_process(
    name: str, options: Options, seeds: Sequence[int], fields: Sequence[str], _runner: Options | None = None
) -> VectorEnv:
    """The registered environment ``name``, once per seed, in this process."""
    part = REGISTRY[name]
    if issubclass(part, VectorEnv):
        batched: VectorEnv = part(options, seeds, fields)
        return batched
    return SerialEnvs([part(options, seed) for seed in seeds], seeds, fields)


class WorkerEnvs(VectorEnv):
    """The environments spread over worker processes, stepped at the same time.

    Args:
        make: ``make(seeds)`` builds a worker's share; must be picklable.
        seeds: one per environment.
        n_workers: processes; at most one per environment.
    """

    def __init__(self, make: Callable[[Sequence[int]], VectorEnv], seeds: Sequence[int], n_workers: int) -> None:
        self._seeds = list(seeds)
        self.n_envs = len(self._seeds)
        shares = np.array_split(np.arange(self.n_envs), min(n_workers, self.n_envs))
        self._slices = [slice(int(share[0]), int(share[-1]) + 1) for share in shares]
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._workers = []
        for where in self._slices:
            ours, theirs = context.Pipe()
            worker = context.Process(
                target=_serve, args=(theirs, make, self._seeds[where], list(sys.path)), daemon=True
            )
            worker.start()
            theirs.close()
            self._pipes.append(ours)
            self._workers.append(worker)
        self.observation = {}
        try:
            infos: list[EnvInfo] = self._receive()
        except BaseException:
            self.close()
            raise
        self.info = infos[0]

    @property
    @override
    def seeds(self) -> list[int]:
        return self._seeds

    @override
    def reset(self) -> None:
        self._join(self._ask("reset"))

    @override
    def step(self, actions: Array, active: Array) -> StepResult:
        answers = self._ask("step", *((actions[where], active[where]) for where in self._slices))
        self._join([observation for observation, _ in answers])
        results: list[StepResult] = [result for _, result in answers]
        extras = {
            name: np.concatenate([_rows(result.extras.get(name), result, like) for result in results])
            for name, like in {name: value for result in results for name, value in result.extras.items()}.items()
        }
        return StepResult(
            np.concatenate([result.reward for result in results]),
            np.concatenate([result.terminated for result in results]),
            np.concatenate([result.truncated for result in results]),
            extras,
        )

    @override
    def episode_metrics(self) -> dict[str, Array]:
        answers = self._ask("episode_metrics")
        return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"workers": self._ask("state_dict")}

    @override
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._join(self._ask("load_state_dict", *((saved,) for saved in state["workers"])))

    @override
    def close(self) -> None:
        for pipe in self._pipes:
            pipe.close()
        for worker in self._workers:
            worker.join(timeout=_CLOSING)
            worker.kill()
            worker.join()

    def _join(self, parts: list[dict[str, Array]]) -> None:
        self.observation = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _ask(self, what: str, *arguments: tuple[Any, ...]) -> list[Any]:
        given = arguments or ((),) * len(self._pipes)
        for pipe, args in zip(self._pipes, given, strict=True):
            # A worker that died is reported by _receive, which knows the exit code.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                pipe.send((what, args))
        return self._receive()

    def _receive(self) -> list[Any]:
        answers = []
        for pipe, worker, where in zip(self._pipes, self._workers, self._slices, strict=True):
            try:
                answer = pipe.recv()
            except (EOFError, ConnectionResetError) as error:
                worker.join(timeout=5)
                raise RuntimeError(
                    f"the worker of environments {where.start} to {where.stop - 1} died (exit code {worker.exitcode})"
                ) from error
            if isinstance(answer, BaseException):
                raise answer
            answers.append(answer)
        return answers


def _rows(value: Array | None, result: StepResult, like: Array) -> Array:
    """A share's extra reward, zeros when none of its environments was active."""
    return np.zeros((len(result.reward), *like.shape[1:]), dtype=like.dtype) if value is None else value


def _serve(pipe: Connection, make: Callable[[Sequence[int]], VectorEnv], seeds: Sequence[int], path: list[str]) -> None:
    """Worker loop: answers calls on its share of the environments until the pipe closes."""
    sys.path[:] = path
    # A signal to the whole group is the parent's to answer: it saves the state of these environments, then closes.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with contextlib.closing(make(seeds)) as envs:
            pipe.send(envs.info)
            while True:
                what, args = pipe.recv()
                answer = getattr(envs, what)(*args)
                if what in ("reset", "load_state_dict"):
                    answer = envs.observation
                elif what == "step":
                    answer = (envs.observation, answer)
                pipe.send(answer)
    except (EOFError, BrokenPipeError, ConnectionResetError):  # the parent closed the pipe, or was killed
        return
    except Exception as error:
        pipe.send(error)


class _Make:
    """Picklable ``in_process`` with everything but the seeds given."""

    def __init__(self, name: str, options: Options, fields: Sequence[str]) -> None:
        self.name, self.options, self.fields = name, options, tuple(fields)

    def __call__(self, seeds: Sequence[int]) -> VectorEnv:
        return in_process(self.name, self.options, seeds, self.fields)


def in_workers(name: str, options: Options, seeds: Sequence[int], fields: Sequence[str], runner: Any) -> VectorEnv:
    """The registered environment ``name``, once per seed, in ``runner.n_workers`` processes."""
    return WorkerEnvs(_Make(name, options, fields), seeds, runner.n_workers)
