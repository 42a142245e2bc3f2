#!/usr/bin/env bash
# Trains or tests lpmarl; the first call installs what that needs.
#
#   ./run.sh                    trains the default job: LPMARL on constrained navigation
#   ./run.sh ARGUMENTS          python src/main.py ARGUMENTS (try --help)
#   ./run.sh test [ARGUMENTS]   the tests: pytest -n 2 ARGUMENTS
#
# Packages go into the active virtual or conda environment; in a container into its Python; elsewhere into .venv
# beside this file. LPMARL_PYTHON names another interpreter. The exit code is 1 when the set-up fails, otherwise
# the program's own.
set -euo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
venv=$root/.venv
# Stands in an environment while pip works: if it is still there at the next call, that pip was killed halfway.
unfinished=lpmarl-unfinished

say() { printf 'run.sh: %s\n' "$*" >&2; }
fail() {
    say "error: $*"
    exit 1
}

fits() { "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1; }
makes_venvs() { "$1" -c 'import ensurepip, venv' >/dev/null 2>&1; }
version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }
in_container() { [ -e /.dockerenv ] || [ -e /run/.containerenv ]; }
# Distributions forbid pip in their own Python (PEP 668).
is_managed() {
    "$1" -c 'import os, sys, sysconfig as s
marker = os.path.join(s.get_path("stdlib"), "EXTERNALLY-MANAGED")
sys.exit(not (sys.prefix == sys.base_prefix and os.path.exists(marker)))'
}

require_fitting() { # interpreter, how to name it, what to do about it
    local found
    fits "$1" && return
    found=$(version "$1") || fail "$2 cannot be run. $3"
    fail "$2 is Python $found; 3.10 to 3.13 is needed. $3"
}

# Prints the first interpreter that fits and passes the test $1.
find_python() {
    local test=$1 candidate
    shift
    for candidate in "$@"; do
        if command -v "$candidate" >/dev/null 2>&1 && fits "$candidate" && "$test" "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

# Prints the interpreter that makes .venv.
base_python() {
    local names=(python3.13 python3.12 python3.11 python3.10 python3 python) found
    if [ -n "${LPMARL_PYTHON:-}" ]; then
        require_fitting "$LPMARL_PYTHON" "LPMARL_PYTHON=$LPMARL_PYTHON" "Name an interpreter that fits."
        names=("$LPMARL_PYTHON")
    fi
    find_python makes_venvs "${names[@]}" && return
    found=$(find_python true "${names[@]}") ||
        fail "no Python 3.10 to 3.13 found. Install one, or name it: LPMARL_PYTHON=/path/to/python ./run.sh"
    fail "$found cannot make virtual environments: its venv or ensurepip module is missing. On Debian and Ubuntu:" \
        "apt install python$(version "$found")-venv"
}

# Makes .venv, or makes it anew where it is broken.
prepare_venv() {
    local base
    if [ -x "$venv/bin/python" ] && [ ! -e "$venv/$unfinished" ] && fits "$venv/bin/python"; then
        if [ -z "${LPMARL_PYTHON:-}" ] || [ "$(version "$LPMARL_PYTHON")" = "$(version "$venv/bin/python")" ]; then
            return
        fi
    fi
    base=$(base_python)
    if [ -e "$venv" ]; then
        say "$venv is incomplete or of another Python version: making it anew"
    else
        say "making $venv with Python $(version "$base")"
    fi
    "$base" -m venv --clear "$venv" >&2 || fail "$base could not make $venv (its messages are above)"
}

# Sets `python` to the interpreter that runs the program.
choose_python() {
    local prefix=${VIRTUAL_ENV:-${CONDA_PREFIX:-}}
    if [ -n "$prefix" ]; then
        python=${LPMARL_PYTHON:-$prefix/bin/python}
        require_fitting "$python" "the active environment's $python" "Deactivate it, or activate one that fits."
        return
    fi
    if in_container && [ ! -x "$venv/bin/python" ]; then
        python=${LPMARL_PYTHON:-$(find_python true python3 python python3.13 python3.12 python3.11 python3.10)} ||
            fail "no Python 3.10 to 3.13 found in this container. Install one, or name it: LPMARL_PYTHON=PATH ./run.sh"
        require_fitting "$python" "LPMARL_PYTHON=$python" "Name an interpreter that fits."
        is_managed "$python" || return 0
        say "pip may not change this container's Python: using a virtual environment"
    fi
    prepare_venv
    python=$venv/bin/python
}

# Installs a requirements file, unless this very content of it is installed already.
install() {
    local facts prefix hash stamp failed=0
    facts=$("$python" -c 'import hashlib, sys
print(sys.prefix)
print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())' "$root/$1") || fail "$root/$1 cannot be read"
    prefix=${facts%$'\n'*}
    hash=${facts##*$'\n'}
    stamp=$prefix/lpmarl-${1%.txt}.sha256
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$hash" ]; then
        return
    fi
    "$python" -m pip --version >/dev/null 2>&1 || "$python" -m ensurepip >/dev/null 2>&1 ||
        fail "$python has no pip. Install pip there, or name another interpreter with LPMARL_PYTHON"
    say "installing $1 into $prefix"
    touch "$prefix/$unfinished" 2>/dev/null || true
    "$python" -m pip install --disable-pip-version-check -r "$root/$1" >&2 || failed=1
    rm -f "$prefix/$unfinished"
    [ "$failed" = 0 ] ||
        fail "pip could not install $1 (its messages are above). Is there a network connection, and room on the disk?"
    # Where the environment is read-only pip has used the user's folder; pip then looks again at every call.
    printf '%s\n' "$hash" 2>/dev/null >"$stamp" || true
}

choose_python
install requirements.txt
if [ "${1:-}" != test ]; then
    exec "$python" "$root/src/main.py" "$@"
fi
shift
install requirements-dev.txt
cd -- "$root"
export OMP_NUM_THREADS=1
exec "$python" -m pytest -n 2 "$@"
