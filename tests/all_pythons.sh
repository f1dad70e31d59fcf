#!/usr/bin/env bash
# Installs the project into a fresh virtual environment of every supported CPython found here, and runs the tests in it.
#   tests/all_pythons.sh [PYTEST ARGUMENT ...]
# Looks on PATH and in ~/.pyenv/versions. One summary line for each version at the end; fails if any of them fails.
set -uo pipefail
cd "$(dirname "$0")/.."

# Prints the first interpreter of a version (3.11, ...) that runs and is that version; pyenv's shims exist but may refuse.
find_python() {
    local candidate
    for candidate in $(type -aP "python$1") "$HOME"/.pyenv/versions/"$1".*/bin/python; do
        if "$candidate" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$1')" 2>/dev/null; then
            echo "$candidate"
            return 0
        fi
    done
    return 1
}

# A copy of the tree for each version: the virtual environments must not import what was built in place for another.
prepare() {
    local python=$1 tree=$2 part
    mkdir -p "$tree"
    for part in cython_ext spectral_alloc tests tools demos docs benchmarks setup.py pyproject.toml README.md LICENSE; do
        rm -rf "${tree:?}/$part"
        cp -a "$part" "$tree/" || return 1
    done
    rm -f "$tree"/spectral_alloc/*.so
    [ -x "$tree/venv/bin/python" ] || "$python" -m venv "$tree/venv" || return 1
    cd "$tree" || return 1
    venv/bin/python -m pip install --quiet --upgrade pip "setuptools>=77" "cython>=3.3" || return 1
    venv/bin/python -m pip install --quiet --no-build-isolation --editable ".[test]"
}

summary=() failed=0
for version in 3.11 3.12 3.13; do
    if ! python=$(find_python "$version"); then
        summary+=("$version  not installed here")
        continue
    fi
    tree=$PWD/build/python-$version
    log=$tree/tests.log
    echo "== $version ($python)"
    if ! (prepare "$python" "$tree"); then
        summary+=("$version  FAILED to install")
        failed=1
    elif (cd "$tree" && venv/bin/python -m pytest -q -p no:cacheprovider "$@") 2>&1 | tee "$log"; then
        summary+=("$version  $(tail -1 "$log")")
    else
        summary+=("$version  FAILED: $(tail -1 "$log")")
        failed=1
    fi
done

printf '%s\n' "" "${summary[@]}"
exit $failed
