#!/usr/bin/env bash
# Runs src/main.py of this checkout in a container; the first call builds the image.
#
#   docker/run.sh [OPTIONS] [ARGUMENTS OF src/main.py]
#
#   --cuda       on NVIDIA GPUs
#   --build      build the image anew
#   --dry-run    only print the commands
#   --help       this; docker/run.sh -- --help is that of src/main.py
#
# The checkout is mounted read-only and results/ writable, so that what runs is what you see, at the commit that git
# names. A game at SC2PATH (~/StarCraftII) is mounted read-only at /game. LPMARL_IMAGE names an image of your own, which
# is not built. The exit code is that of src/main.py; 2 for wrong settings, 1 when the image cannot be built.
set -euo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf 'docker/run.sh: %s\n' "$*" >&2; }
fail() {
    say "error: ${*:2}"
    exit "$1"
}

kind=cpu dockerfile=docker/Dockerfile gpus=() build=0 dry=0
while [ $# -gt 0 ]; do
    case $1 in
    --cuda) kind=cuda dockerfile=docker/Dockerfile.cuda gpus=(--gpus all) ;;
    --build) build=1 ;;
    --dry-run) dry=1 ;;
    -h | --help)
        sed -n '2,/^set -euo/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
        exit 0
        ;;
    --)
        shift
        break
        ;;
    *) break ;;
    esac
    shift
done

show() {
    printf '%q ' "$@"
    echo
}

# A container's root could write anywhere in what is mounted, so root's runs belong to user 1000.
uid=$(id -u)
[ "$uid" != 0 ] || uid=1000
# Another set of packages is another image.
stamp=$(cat -- "$root/requirements.txt" "$root/install_sc2.sh" "$root/$dockerfile" - <<<"$uid" | sha256sum)
image=${LPMARL_IMAGE:-lpmarl:$kind-${stamp:0:12}}

if [ "$dry" = 0 ]; then
    command -v docker >/dev/null || fail 1 "docker is not installed: https://docs.docker.com/engine/install/"
    docker info >/dev/null 2>&1 || fail 1 "docker's daemon does not answer. Is it running, and may you use it?"
fi

build_command=(docker build --file "$root/$dockerfile" --build-arg "USER_ID=$uid" --tag "$image" "$root")
if [ -z "${LPMARL_IMAGE:-}" ] && { [ "$build" = 1 ] || ! docker image inspect "$image" >/dev/null 2>&1; }; then
    if [ "$dry" = 1 ]; then
        show "${build_command[@]}"
    else
        say "building $image"
        "${build_command[@]}" >&2 || fail 1 "the image could not be built (docker's messages are above)"
    fi
fi

# Docker would make a missing folder root's.
[ "$dry" = 1 ] || mkdir -p -- "$root/results"
mounts=(
    --mount "type=bind,source=$root,target=/lpmarl,readonly"
    --mount "type=bind,source=$root/results,target=/lpmarl/results"
    --mount "type=volume,source=lpmarl-cache-$uid,target=/home/lpmarl/.cache"
)
game=$(realpath -m -- "${SC2PATH:-$HOME/StarCraftII}")
if compgen -G "$game/Versions/Base*/SC2_x64" >/dev/null; then
    mounts+=(--mount "type=bind,source=$game,target=/game,readonly")
elif [ -n "${SC2PATH:-}" ]; then
    fail 2 "SC2PATH=$SC2PATH holds no game (Versions/Base*/SC2_x64); install_sc2.sh installs it"
fi
case "$root$game" in *,*) fail 2 "docker cannot mount a folder with a comma in its name: $root, $game" ;; esac

terminal=()
if [ -t 0 ] && [ -t 1 ]; then terminal=(--interactive --tty); fi

# --init passes signals on and buries the games that workers leave. A stopped run gets time to save itself.
run_command=(docker run --rm --init --stop-timeout 120 --cap-drop ALL --security-opt no-new-privileges
    "${gpus[@]}" "${terminal[@]}" "${mounts[@]}" "$image" "$@")
if [ "$dry" = 1 ]; then
    show "${run_command[@]}"
    exit 0
fi
if [ "$(id -u)" = 0 ]; then
    say "note: the run is of user $uid, who must be allowed to write into results/ (chown -R $uid results)"
fi
exec "${run_command[@]}"
