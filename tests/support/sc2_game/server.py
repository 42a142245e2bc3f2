"""The executable: answers SMAC's requests over a websocket until the client goes or quits."""

from __future__ import annotations

import argparse
import os
import time
import traceback
from collections.abc import Callable
from pathlib import PurePath

import numpy as np
from s2clientprotocol import common_pb2, raw_pb2
from s2clientprotocol import sc2api_pb2 as api
from support import sc2_game
from support.sc2_game.battle import Battle
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

STOP, MOVE, ATTACK = 4, 16, 23
FLAT = 127


class Game:
    """One game, from the launch on; ``answer`` takes a request and fills a response."""

    def __init__(self) -> None:
        self._battle: Battle | None = None
        self._made: tuple[str, int] | None = None
        self._status = api.launched
        self._steps = self._loops = 0
        self._requests: dict[str, Callable[[api.Request, api.Response], None]] = {
            "ping": self._ping,
            "create_game": self._create_game,
            "join_game": self._join_game,
            "game_info": self._game_info,
            "observation": self._observation,
            "action": self._action,
            "step": self._step,
            "debug": self._debug,
            "save_replay": self._save_replay,
        }

    @property
    def battle(self) -> Battle:
        """The battle that was joined."""
        if self._battle is None:
            raise ValueError("no game was joined")
        return self._battle

    def answer(self, request: api.Request) -> api.Response:
        """The response to a request; one that cannot be served has an error text."""
        response = api.Response(id=request.id)
        name = request.WhichOneof("request")
        try:
            self._requests[name](request, response)
        except (KeyError, ValueError) as error:
            response.error.append(f"{name}: {error!r}")
        response.status = self._status
        return response

    def _ping(self, _request: api.Request, response: api.Response) -> None:
        response.ping.game_version, response.ping.base_build = "4.10.0", int(sc2_game.BUILD.removeprefix("Base"))

    def _create_game(self, request: api.Request, response: api.Response) -> None:
        created = request.create_game
        self._made = (PurePath(created.local_map.map_path).stem, created.random_seed)
        self._status = api.init_game
        response.create_game.SetInParent()

    def _join_game(self, _request: api.Request, response: api.Response) -> None:
        if self._made is None:
            raise ValueError("no game was created")
        self._battle = Battle(*self._made)
        self._status = api.in_game
        response.join_game.player_id = 1

    def _game_info(self, _request: api.Request, response: api.Response) -> None:
        cells, raw = self.battle.cells, response.game_info.start_raw
        raw.map_size.x, raw.map_size.y = cells.shape
        raw.playable_area.p1.x, raw.playable_area.p1.y = cells.shape
        raw.playable_area.p0.SetInParent()
        # Lines from y = 0 on, of one bit for each x, the highest first.
        _fill(raw.pathing_grid, 1, np.packbits(cells.T, axis=1), cells.shape)
        _fill(raw.terrain_height, 8, np.full(cells.shape, FLAT, dtype=np.uint8), cells.shape)

    def _observation(self, _request: api.Request, response: api.Response) -> None:
        shown = response.observation.observation
        shown.game_loop = self._loops
        for soldier in self.battle.soldiers():
            shown.raw_data.units.add(
                display_type=raw_pb2.Visible,
                alliance=raw_pb2.Self if soldier.owner == 1 else raw_pb2.Enemy,
                tag=soldier.tag,
                unit_type=soldier.unit_type,
                owner=soldier.owner,
                pos=common_pb2.Point(x=soldier.x, y=soldier.y),
                health=soldier.life,
                health_max=soldier.max_life,
                shield=soldier.shield,
                shield_max=soldier.max_shield,
                weapon_cooldown=soldier.cooldown,
            )

    def _action(self, request: api.Request, response: api.Response) -> None:
        for action in request.action.actions:
            command = action.action_raw.unit_command
            for tag in command.unit_tags:
                if command.ability_id == MOVE:
                    place = command.target_world_space_pos
                    self.battle.move(tag, place.x, place.y)
                elif command.ability_id == ATTACK:
                    self.battle.attack(tag, command.target_unit_tag)
                elif command.ability_id == STOP:
                    self.battle.stop(tag)
                else:
                    raise ValueError(f"unknown ability {command.ability_id}")
            response.action.result.append(1)

    def _step(self, request: api.Request, response: api.Response) -> None:
        self._steps += 1
        if _falls_due(sc2_game.DIE_AT, self._steps):
            os._exit(1)
        if _falls_due(sc2_game.HANG_AT, self._steps):
            _play_dead()
        self._loops += request.step.count
        self.battle.step(request.step.count)
        response.step.simulation_loop = self._loops

    def _debug(self, request: api.Request, response: api.Response) -> None:
        for command in request.debug.debug:
            self.battle.kill(command.kill_unit.tag)
        response.debug.SetInParent()

    def _save_replay(self, _request: api.Request, response: api.Response) -> None:
        response.save_replay.data = b"no replay"


def _fill(image: common_pb2.ImageData, bits: int, values: np.ndarray, shape: tuple[int, ...]) -> None:
    image.bits_per_pixel, image.data = bits, values.tobytes()
    image.size.x, image.size.y = shape


def _falls_due(fault: str, steps: int) -> bool:
    """Whether a fault happens at this step request."""
    if steps < int(os.environ.get(fault, steps + 1)):
        return False
    once = os.environ.get(sc2_game.ONCE)
    if once is None:
        return True
    if os.path.exists(once):
        return False
    with open(once, "x"):
        return True


def _play_dead() -> None:
    """Does nothing until the process that started the game has gone."""
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


def main() -> None:
    """Listens where pysc2's arguments say."""
    if sc2_game.REFUSE in os.environ:
        _play_dead()
    parser = argparse.ArgumentParser()
    parser.add_argument("-listen")
    parser.add_argument("-port", type=int)
    given, _ = parser.parse_known_args()
    game = Game()

    def talk(connection: ServerConnection) -> None:
        try:
            # pysc2 sends its bytes as if they were text.
            while not (request := api.Request.FromString(connection.recv(decode=False))).HasField("quit"):
                connection.send(game.answer(request).SerializeToString())
        except ConnectionClosed:
            pass
        except Exception:
            traceback.print_exc()
        finally:
            # One client: the game ends with it, whatever else is under way.
            os._exit(0)

    # No pings: pysc2 answers none while it waits for nothing, and a trainer may learn for minutes between two steps.
    with serve(talk, given.listen, given.port, compression=None, max_size=None, ping_interval=None) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
