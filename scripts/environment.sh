# Makes the Python environment of this checkout: .venv at its root, with Heliostat and what it needs. To be sourced:
#
#     source scripts/environment.sh EXTRAS       EXTRAS as in pip's "heliostat[EXTRAS]": test, or test,gpu, or ''
#
# Does nothing when .venv is up to date. Installs when pyproject.toml has changed or an extra is wanted that .venv lacks,
# and starts afresh when the checkout has moved or the Python of .venv is gone. When only the set of source files
# has changed it refreshes the links to them, without a download; an edited file needs nothing, Heliostat is
# installed as links to its sources. pip is used as it is configured on this machine.

_python_version='import sys; print("%d.%d" % sys.version_info[:2]); sys.exit(sys.version_info < (3, 11))'

# Prints the path of the first Python that is new enough, outside of any virtual environment.
_find_python() {
    local name
    for name in python3 python3.13 python3.12 python3.11 python; do
        if "$name" -c "$_python_version" >/dev/null 2>&1; then
            "$name" -c 'import sys; print(getattr(sys, "_base_executable", sys.executable))'
            return
        fi
    done
    echo "Heliostat needs Python 3.11 or newer; python3 here: $(python3 --version 2>&1 || true)" >&2
    echo "Install one, such as: sudo apt install python3.12 python3.12-venv" >&2
    return 1
}

_make_venv() {
    local root=$1 python
    python=$(_find_python) || return
    if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
        echo "$python cannot make virtual environments: its modules venv and ensurepip are missing." >&2
        echo "On Debian and Ubuntu: sudo apt install python3-venv" >&2
        return 1
    fi
    echo "environment: making $root/.venv with $("$python" --version), $python"
    "$python" -m venv --clear "$root/.venv"
}

# Where .venv is and which Python it has.
_place() { echo "$1 $("$1/.venv/bin/python" -c "$_python_version" 2>/dev/null)"; }
# The files that are linked.
_files() { (cd "$1" && find cluster data trainer scripts \( -name '*.py' -o -name py.typed \) | LC_ALL=C sort); }

# Whether the links are there: they are in build/, which is easily removed.
_linked() { (cd / && "$1/.venv/bin/python" -c 'import heliostat.scripts' 2>/dev/null); }

# Both lists of extras as one, without repetition.
_union() { tr ',' '\n' <<<"$1,$2" | sed '/^$/d' | LC_ALL=C sort -u | paste -sd, -; }

# Installs the checkout $1 with the extras $2; more arguments are pip's.
_install() {
    local root=$1 extras=$2
    shift 2
    # Without isolation pip builds with the tools in .venv, so that refreshing the links needs no download.
    (cd "$root" && .venv/bin/python -m pip --disable-pip-version-check install --no-build-isolation "$@" \
        --config-settings editable_mode=strict --editable ".${extras:+[$extras]}")
}

_install_build_tools() {
    local tools
    tools=$("$1/.venv/bin/python" -c 'import sys, tomllib
print(*tomllib.load(open(sys.argv[1], "rb"))["build-system"]["requires"], sep="\n")' "$1/pyproject.toml") || return
    "$1/.venv/bin/python" -m pip --disable-pip-version-check install --quiet -r /dev/stdin <<<"$tools"
}

# Brings .venv of the checkout $1 up to date, with the extras $2 and those that it has.
_update() {
    local root=$1 kept=$1/.venv/.heliostat began=$SECONDS extras files
    if [[ ! -e $kept/place || "$(cat "$kept/place")" != "$(_place "$root")" ]]; then
        _make_venv "$root" && mkdir -p "$kept" && _place "$root" >"$kept/place" || return
    fi
    extras=$(_union "$(cat "$kept/extras" 2>/dev/null)" "$2")
    files=$(_files "$root")
    if [[ "$(cat "$kept/extras" 2>/dev/null)" != "$extras" ]] || ! cmp -s "$root/pyproject.toml" "$kept/pyproject.toml"; then
        echo "environment: installing Heliostat${extras:+ with the extras $extras} and its dependencies into $root/.venv"
        echo "environment: (TensorFlow is the large download; only the first time)"
        rm -f "$kept/pyproject.toml"
        _install_build_tools "$root" && _install "$root" "$extras" || return
        echo "$extras" >"$kept/extras"
        cp "$root/pyproject.toml" "$kept/pyproject.toml"
    elif [[ "$(cat "$kept/files" 2>/dev/null)" != "$files" ]] || ! _linked "$root"; then
        echo "environment: source files came or went, refreshing the links to them"
        _install "$root" "" --no-deps --quiet || return
    else
        return 0
    fi
    echo "$files" >"$kept/files"
    echo "environment: ready after $((SECONDS - began)) s"
}

_prepare() {
    local root extras=${1:-} status=0 lock
    root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P) || return
    # Sourced without an argument this file sees the arguments of the script that sources it.
    if [[ ! $extras =~ ^[a-z,]*$ ]]; then
        echo "environment.sh: '$extras' is no list of extras; give test, or '' for none" >&2
        return 2
    fi
    # One script at a time: two would install into each other's way.
    mkdir -p "$root/.cache"
    exec {lock}>"$root/.cache/environment.lock"
    if command -v flock >/dev/null && ! flock --nonblock "$lock"; then
        echo "environment: waiting for another script that prepares $root/.venv"
        flock "$lock"
    fi
    _update "$root" "$extras" || status=$?
    exec {lock}>&-
    if ((status)); then
        echo "environment: $root/.venv could not be prepared, see above; remove it to start afresh" >&2
    fi
    return "$status"
}

_prepare "$@"
