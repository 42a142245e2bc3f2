#!/usr/bin/env bash
# Installs StarCraft II 4.10 for Linux, the SMAC maps and the Python packages that --env-config=sc2 needs.
#
#   ./install_sc2.sh --accept-eula     you have read Blizzard's licence and agree to it; without it you are asked
#
# What is there already is left alone. A run that fails or is killed leaves no half installation, and the same command
# goes on where it stopped.
#
#   --accept-eula           agree to the licence: https://blzdistsc2-a.akamaihd.net/AI_AND_MACHINE_LEARNING_LICENSE.html
#   --game-archive=FILE     the game's archive, downloaded before (SC2.4.10.zip)
#   --maps-archive=FILE     the maps' archive, downloaded before (SMAC_Maps.zip)
#   --sha256-game=HASH      refuse a game archive of another SHA-256
#   --sha256-maps=HASH      refuse a maps archive of another SHA-256
#   --keep-archives         keep what was downloaded
#   --no-python             only the game and the maps
#   --only-python           only the Python packages
#   --help
#
#   SC2PATH                 where the game is or goes (~/StarCraftII); SC2PATH.install beside it holds downloads
#   LPMARL_SC2_URL, LPMARL_SMAC_MAPS_URL    mirrors of the archives
#   LPMARL_SMAC_SOURCE      what pip installs as smac: a URL, an archive or a folder
#   LPMARL_PYTHON           the interpreter that gets the packages (the active environment's, else that of .venv)
#
# The exit code is 0 when all is there, 2 for wrong arguments and for whatever is refused, and 1 when something fails.
set -euo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
game_url=${LPMARL_SC2_URL:-https://blzdistsc2-a.akamaihd.net/Linux/SC2.4.10.zip}
maps_url=${LPMARL_SMAC_MAPS_URL:-https://github.com/oxwhirl/smac/releases/download/v0.1-beta1/SMAC_Maps.zip}
licence=https://blzdistsc2-a.akamaihd.net/AI_AND_MACHINE_LEARNING_LICENSE.html
# Published by Blizzard beside the archive: whoever types it agrees to the licence.
pass_phrase=iagreetotheeula
build=Base75689 # 4.10
some_map=3m.SC2Map
# Measured in bytes where a server or an archive tells; otherwise these.
game_bytes=$((4 * 1024 * 1024 * 1024))
maps_bytes=$((16 * 1024 * 1024))
# Newer smac than PyMARL2's 26f4c4e: it runs on today's NumPy.
smac_commit=d6aab33f76abc3849c50463a8592a84f59a5ef84
smac_source=${LPMARL_SMAC_SOURCE:-https://github.com/oxwhirl/smac/archive/$smac_commit.zip}
# s2clientprotocol's generated code does not import with protobuf 4 or newer; pys2clientprotocol replaces it in place.
protocol=(pysc2==4.0.0 s2clientprotocol==5.0.17.98310.0)
overlay=pys2clientprotocol==1.0.2
imports='from s2clientprotocol import sc2api_pb2
import pysc2.maps
from smac.env import StarCraft2Env'

say() { printf 'install_sc2.sh: %s\n' "$*" >&2; }
fail() {
    say "error: $*"
    exit 1
}
refuse() {
    say "error: $*"
    exit 2
}
usage() { sed -n '2,/^set -euo/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; }
bytes_of() { stat -c %s -- "$1" 2>/dev/null || echo 0; }
readable() {
    awk -v n="$1" 'BEGIN { if (n < 1e6) print n " bytes"; else if (n < 1e9) printf "%.1f MB", n / 1e6
        else printf "%.1f GB", n / 1e9 }'
}

# What this run has begun to unpack. Kept here for the trap; after a SIGKILL the next run clears it.
unpacking=()
cleanup() { [ "${#unpacking[@]}" = 0 ] || rm -rf -- "${unpacking[@]}"; }
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

parse() {
    local argument value
    accepted=0 keep=0 do_python=1 do_game=1
    game_archive='' maps_archive='' game_hash='' maps_hash=''
    for argument in "$@"; do
        value=${argument#*=}
        case $argument in
        --accept-eula) accepted=1 ;;
        --keep-archives) keep=1 ;;
        --no-python) do_python=0 ;;
        --only-python) do_game=0 ;;
        --game-archive=*) game_archive=$value ;;
        --maps-archive=*) maps_archive=$value ;;
        --sha256-game=*) game_hash=$(hash_argument "$argument") ;;
        --sha256-maps=*) maps_hash=$(hash_argument "$argument") ;;
        -h | --help)
            usage
            exit 0
            ;;
        *) refuse "unknown argument '$argument'; --help lists them" ;;
        esac
        case $argument in --*-archive=*)
            [ -f "$value" ] && [ -r "$value" ] || refuse "$argument: there is no such file, or it cannot be read"
            ;;
        esac
    done
    [ "$do_python$do_game" != 00 ] || refuse "--no-python and --only-python together leave nothing to do"
}

hash_argument() {
    local hash=${1#*=}
    hash=${hash,,}
    [[ $hash =~ ^[0-9a-f]{64}$ ]] || refuse "$1: a SHA-256 has 64 hexadecimal digits"
    printf '%s\n' "$hash"
}

require_tools() {
    local tool missing=()
    for tool in unzip sha256sum flock; do
        command -v "$tool" >/dev/null || missing+=("$tool")
    done
    if [ -z "$game_archive" ] || [ -z "$maps_archive" ]; then
        command -v curl >/dev/null || command -v wget >/dev/null || missing+=(curl)
    fi
    [ "${#missing[@]}" = 0 ] ||
        fail "missing: ${missing[*]}. On Debian and Ubuntu: apt install unzip coreutils util-linux curl"
}

has_game() { compgen -G "$1/Versions/Base*/SC2_x64" >/dev/null; }
is_empty() { [ -d "$1" ] && [ -z "$(ls -A -- "$1")" ]; }

check_target() {
    [ "$(uname -s)" = Linux ] ||
        fail "Blizzard's package 4.10 is for Linux; on other systems install the game from Battle.net"
    # The folder itself is replaced, not a link to it.
    target=$(realpath -m -- "${SC2PATH:-$HOME/StarCraftII}")
    maps=$target/Maps/SMAC_Maps
    work=$target.install
    need_game=1 need_maps=1
    if has_game "$target"; then
        need_game=0
        say "the game is there: $target"
        [ -e "$target/Versions/$build" ] ||
            say "note: its version is $(cd -- "$target/Versions" && echo Base*), not 4.10 ($build);" \
                "results of two versions do not compare"
    elif [ -e "$target" ] && ! is_empty "$target"; then
        refuse "$target is not empty, but holds no game (Versions/Base*/SC2_x64). Move it away," \
            "or name another folder: SC2PATH=FOLDER"
    fi
    if [ -e "$maps/$some_map" ]; then
        need_maps=0
        say "the maps are there: $maps"
    elif [ -e "$maps" ] && ! is_empty "$maps"; then
        refuse "$maps is not empty, but holds no $some_map. Move it away, then run this again"
    fi
}

agree() {
    local answer=''
    [ "$accepted" = 0 ] || return 0
    say "StarCraft II for Linux stands under Blizzard's AI and Machine Learning License. Read it: $licence"
    if [ -t 0 ]; then
        read -r -p "install_sc2.sh: do you agree to it? Type yes or no: " answer || true
        [ "$answer" != yes ] || return 0
        refuse "without your agreement the game is not installed"
    fi
    refuse "if you agree to it, run this again with --accept-eula"
}

# Nobody else may unpack into the same folder. The lock ends with the last process that holds it, so that an unzip
# whose script was killed is waited for.
lock() {
    mkdir -p -- "$work" 2>/dev/null && [ -w "$work" ] ||
        fail "$work cannot be written to. Name another folder for the game: SC2PATH=FOLDER"
    exec 9>"$work/lock"
    flock -n 9 || fail "another install_sc2.sh is at work on $target, or what a killed one started; wait for its end"
    rm -rf -- "$work/unpacking"
}

require_space() { # folder, bytes, for what
    local place=$1 free
    while [ ! -d "$place" ]; do place=$(dirname -- "$place"); done
    free=$(df -Pk -- "$place" | awk 'END { print $4 }')
    [[ $free =~ ^[0-9]+$ ]] || fail "df does not tell how much room there is in $place"
    [ $((free * 1024)) -ge "$2" ] ||
        fail "no room for $3: $place has $(readable $((free * 1024))) free, $(readable "$2") are needed." \
            "Make room, or name another folder: SC2PATH=FOLDER"
}

# Prints the size that the server names, or nothing.
remote_bytes() {
    local headers
    if command -v curl >/dev/null; then
        headers=$(curl --head --location --fail --silent --connect-timeout 15 --max-time 60 "$1") || return 0
    else
        headers=$(wget --spider --server-response --timeout=30 --tries=1 "$1" 2>&1) || return 0
    fi
    # After redirections the last answer counts.
    awk 'tolower($1) == "content-length:" { size = $2 + 0 } END { if (size) printf "%.0f\n", size }' \
        <<<"${headers//$'\r'/}"
}

# One connection; goes on after what the file holds. Returns 75 where another try can help.
fetch() { # URL, file
    local code=0 status quiet=(--silent --show-error) only=()
    if command -v curl >/dev/null; then
        [ ! -t 2 ] || quiet=(--progress-bar)
        # A redirection must not lead away from TLS.
        case $1 in https:*) only=(--proto-redir '=https') ;; esac
        status=$(curl --fail --location "${only[@]}" "${quiet[@]}" --connect-timeout 30 --speed-limit 1 \
            --speed-time 60 --continue-at - --output "$2" --write-out '%{http_code}' "$1") || code=$?
        # Nothing is left to send: the file was complete. wget knows that itself.
        [ "$status" != 416 ] || code=0
        case $code in
        0) return 0 ;;
        33) rm -f -- "$2" ;; # the server cannot go on in the middle
        3 | 22) return 1 ;;  # no URL; the server refuses
        esac
        return 75
    fi
    quiet=(--no-verbose)
    [ ! -t 2 ] || quiet=(--quiet --show-progress)
    wget --continue "${quiet[@]}" --timeout=60 --tries=1 --output-document="$2" "$1" >&2 || code=$?
    case $code in
    0) return 0 ;;
    4) return 75 ;; # the network
    *) return 1 ;;
    esac
}

download() { # URL, file, the option that names a file instead, bytes if unknown
    local part=$2.part size before after tries=0 code
    size=$(remote_bytes "$1")
    before=$(bytes_of "$part")
    # As much again is needed to unpack it; the archive itself tells exactly, later.
    require_space "$work" $((2 * ${size:-$4} - before)) "$(basename -- "$2") and what it holds"
    [ "$before" = 0 ] || say "going on after the first $(readable "$before")"
    say "downloading $1${size:+ ($(readable "$size"))}"
    while :; do
        code=0
        before=$(bytes_of "$part")
        fetch "$1" "$part" || code=$?
        [ "$code" != 0 ] || break
        after=$(bytes_of "$part")
        tries=$((tries + 1))
        [ "$after" -le "$before" ] || tries=0
        if [ "$code" != 75 ] || [ "$tries" -ge 3 ]; then
            fail "$1 could not be downloaded; $(readable "$after") are there, and the next run goes on after them." \
                "Without a network: download it elsewhere and name the file with $3=FILE"
        fi
        say "the connection ended after $(readable "$after"): trying again"
        sleep 1
    done
    after=$(bytes_of "$part")
    if [ -n "$size" ] && [ "$after" != "$size" ]; then
        rm -f -- "$part"
        refuse "$1 gave $after bytes instead of $size; they are removed, run this again"
    fi
    mv -- "$part" "$2"
}

# Refuses `archive`. One that was downloaded is put aside, so that the next run downloads it again.
refuse_archive() {
    if [ "$downloaded" = 1 ]; then
        mv -f -- "$archive" "$archive.refused"
        refuse "$archive $*. It is now $archive.refused; run this again to download it anew"
    fi
    refuse "$archive $*"
}

# Sets `unpacked_bytes`; nothing is written.
check_members() {
    local names totals evil code=0
    names=$(unzip -Z1 -- "$archive" 2>/dev/null) || code=$?
    # 1 is a warning.
    if [ "$code" -gt 1 ] || [ -z "$names" ]; then
        refuse_archive "is truncated, or no zip archive ($(bytes_of "$archive") bytes)"
    fi
    if evil=$(grep -E -m 1 '^[/\]|^[A-Za-z]:|(^|[/\])\.\.([/\]|$)' <<<"$names"); then
        refuse_archive "has a member that leads out of its folder: $evil"
    fi
    totals=$(unzip -Zt -- "$archive" 2>/dev/null) || true
    unpacked_bytes=$(sed -n 's/.* \([0-9][0-9]*\) bytes uncompressed.*/\1/p' <<<"$totals")
    [ -n "$unpacked_bytes" ] || refuse_archive "does not tell how large its content is"
}

# Compares with --sha256-... and with what an earlier run recorded beside the archive. Sets `size` and `hash`.
check_content() { # record, the hash that is asked for, its option
    local known_hash='' known_size=''
    size=$(bytes_of "$archive")
    if [ -f "$1" ]; then
        known_hash=$(awk '!/^#/ { print $1; exit }' "$1")
        known_size=$(awk '/^# bytes/ { print $3; exit }' "$1")
    fi
    if [ -n "$known_size" ] && [ "$known_size" != "$size" ]; then
        refuse_archive "has $size bytes; an earlier run recorded $known_size in $1 (remove that if the change is right)"
    fi
    hash=$(sha256sum <"$archive")
    hash=${hash%% *}
    [ -z "$2" ] || [ "$2" = "$hash" ] || refuse_archive "has the SHA-256 $hash; $3 asks for $2"
    if [ -n "$known_hash" ] && [ "$known_hash" != "$hash" ]; then
        refuse_archive "has the SHA-256 $hash; an earlier run recorded $known_hash in $1" \
            "(remove that if the change is right)"
    fi
    [ -n "$2$known_hash" ] ||
        say "note: $(basename -- "$archive") has the SHA-256 $hash. There is nothing to compare it with;" \
            "it is recorded for the next run"
}

# Written only after everything was unpacked, which checks every member's CRC: a damaged download is never the measure.
record() { # record
    [ ! -f "$1" ] || return 0
    if printf '# bytes %s\n%s  %s\n' "$size" "$hash" "$(basename -- "$archive")" 2>/dev/null >"$1.new"; then
        mv -- "$1.new" "$1"
    else
        say "note: $1 cannot be written: the next run compares only with --sha256-game and --sha256-maps"
    fi
}

unpack() { # folder
    local code=0 link written
    require_space "$1" "$unpacked_bytes" "what $(basename -- "$archive") holds"
    unpacking+=("$1")
    rm -rf -- "$1"
    mkdir -p -- "$1" || fail "$1 cannot be made"
    say "unpacking $archive ($(readable "$unpacked_bytes"))"
    unzip -qq -o -P "$pass_phrase" -d "$1" -- "$archive" >&2 </dev/null || code=$?
    # 1 is a warning; unzip also ends with it where it has left out some of the files.
    if [ "$code" = 1 ]; then
        written=$(find "$1" \( -type f -o -type l \) -printf '%s\n' | awk '{ sum += $1 } END { printf "%.0f\n", sum }')
        [ "$written" != "$unpacked_bytes" ] || code=0
    fi
    case $code in
    0) ;;
    50) fail "the disk is full; nothing was installed" ;;
    *) refuse_archive "cannot be unpacked: it is damaged or has another pass phrase (unzip's messages are above)" ;;
    esac
    while IFS= read -r -d '' link; do
        case $(realpath -m -- "$link") in
        "$1"/*) ;;
        *) refuse_archive "has a link that leads out of its folder: ${link#"$1"/}" ;;
        esac
    done < <(find "$1" -type l -print0)
}

# Sets `archive`, checked, and `downloaded`.
obtain() { # file or nothing, URL, hash, game or maps, bytes if unknown
    archive=$1
    downloaded=0
    if [ -z "$archive" ]; then
        archive=$work/$(basename -- "${2%%[?#]*}")
        downloaded=1
        if [ -f "$archive" ]; then
            say "using $archive, which an earlier run downloaded"
        else
            download "$2" "$archive" "--$4-archive" "$5"
        fi
    fi
    check_members
    check_content "$archive.sha256" "$3" "--sha256-$4"
}

finish() {
    record "$archive.sha256"
    if [ "$downloaded" = 1 ] && [ "$keep" = 0 ]; then
        rm -f -- "$archive" "$archive.refused"
    fi
}

install_game() {
    local folder=$work/unpacking
    obtain "$game_archive" "$game_url" "$game_hash" game "$game_bytes"
    unpack "$folder"
    [ -f "$folder/StarCraftII/Versions/$build/SC2_x64" ] ||
        refuse_archive "is not StarCraft II 4.10 for Linux: it has no StarCraftII/Versions/$build/SC2_x64"
    chmod u+x -- "$folder/StarCraftII/Versions/$build/SC2_x64"
    if [ -e "$target" ]; then
        rmdir -- "$target" 2>/dev/null ||
            fail "$target cannot be replaced (is it a mount point?). Name a folder in it: SC2PATH=$target/StarCraftII"
    fi
    # Within one file system this happens at once or not at all.
    mv -T -- "$folder/StarCraftII" "$target"
    rm -rf -- "$folder"
    finish
    say "installed the game: $target"
}

install_maps() {
    local folder=$target/Maps/.lpmarl-unpacking content
    obtain "$maps_archive" "$maps_url" "$maps_hash" maps "$maps_bytes"
    unpack "$folder"
    content=$folder/SMAC_Maps
    [ -d "$content" ] || content=$folder
    [ -f "$content/$some_map" ] || refuse_archive "does not hold SMAC's maps: it has no SMAC_Maps/$some_map"
    [ ! -e "$maps" ] || rmdir -- "$maps"
    mv -T -- "$content" "$maps"
    rm -rf -- "$folder"
    finish
    say "installed $(find "$maps" -name '*.SC2Map' | wc -l) maps: $maps"
}

# Sets `python`.
choose_python() {
    local prefix=${VIRTUAL_ENV:-${CONDA_PREFIX:-}} version
    if [ -n "${LPMARL_PYTHON:-}" ]; then
        python=$LPMARL_PYTHON
    elif [ -n "$prefix" ]; then
        python=$prefix/bin/python
    elif [ -x "$root/.venv/bin/python" ]; then
        python=$root/.venv/bin/python
    elif [ -e /.dockerenv ] || [ -e /run/.containerenv ]; then
        python=python3
    else
        fail "there is no environment for the packages yet. Make it with ./run.sh --help, or name an interpreter with" \
            "LPMARL_PYTHON, or leave the packages out with --no-python"
    fi
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])') || fail "$python cannot be run"
    say "Python packages go to $python (Python $version)"
}

pip() {
    "$python" -m pip install --disable-pip-version-check "$@" >&2 ||
        fail "pip could not install ${*: -1} (its messages are above). Run this again with a network connection," \
            "or leave the packages out with --no-python"
}

install_python() {
    choose_python
    if "$python" -c "$imports" >/dev/null 2>&1; then
        say "the Python packages are there"
        return
    fi
    # The constraint keeps what lpmarl itself has installed.
    pip --constraint "$root/requirements.txt" "${protocol[@]}"
    pip --no-deps --force-reinstall "$overlay"
    # --no-deps: smac asks for a protobuf older than OR-Tools can use, but works with the newer one. The package that
    # PyPI calls smac is another program.
    pip --no-deps "$smac_source"
    "$python" -c "$imports" >/dev/null ||
        fail "the packages are installed, but cannot be imported (the reason is above)"
    say "installed the Python packages: ${protocol[*]} $overlay, smac from $smac_source"
}

parse "$@"
if [ "$do_game" = 1 ]; then
    require_tools
    check_target
    [ "$need_game" = 0 ] || agree
    [ "$need_game$need_maps" = 00 ] || lock
    [ "$need_game" = 0 ] || install_game
    [ "$need_maps" = 0 ] || install_maps
fi
[ "$do_python" = 0 ] || install_python
if [ "$do_game" = 1 ]; then
    say "done. Next:"
    [ "$target" = "$HOME/StarCraftII" ] || say "    export SC2PATH=$target"
    say "    python src/main.py --config=lpmarl --env-config=sc2 with env_args.map_name=3m"
fi
