#!/usr/bin/env bash
# Make the project's own virtual environment, .venv, and install the requirements files given as arguments.
# Used by the demo and the tests; returns at once when the same files are installed already.
#   bash src/demo/set_up_venv.sh requirements.txt
# PYTHON names the interpreter (default: python3, or python3.14 ... python3.11 where that is another version); pip reads
# its own settings (PIP_INDEX_URL, ...) as usual.
set -euo pipefail
case "${1-}" in
    -h | --help)
        sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" # the comment above
        exit 0
        ;;
esac
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
candidates=("${PYTHON:-python3}")
[ -n "${PYTHON-}" ] || candidates+=(python3.14 python3.13 python3.12 python3.11)

# The name contains the file's checksum, so that changed requirements are installed again.
stamp_of() { echo ".venv/.installed-$(cksum <"$1" | tr ' ' '-')"; }

is_complete() {
    local file
    .venv/bin/python -c "" 2>/dev/null || return 1
    for file in "$@"; do [ -e "$(stamp_of "$file")" ] || return 1; done
}

# The versions for which the pinned torch is built.
is_suitable() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null; }

if is_complete "$@"; then exit 0; fi
if [ -e .venv ] && ! [ -w .venv ] || ! [ -e .venv ] && ! [ -w . ]; then
    echo "set_up_venv: $PWD: permission denied to make .venv; copy the project to a folder of your own" >&2
    exit 1
fi
if [ "$(uname -sm)" = "Darwin x86_64" ]; then
    echo "set_up_venv: the pinned torch has no build for a Mac with an Intel processor (or a terminal under Rosetta)" >&2
    exit 1
fi

has_venv=false
if .venv/bin/python -c "" 2>/dev/null; then
    has_venv=true
    is_suitable .venv/bin/python || {
        echo "set_up_venv: .venv: was made by another Python than 3.11 to 3.14; remove it (rm -r .venv) and run this again" >&2
        exit 1
    }
fi
python=
for candidate in "${candidates[@]}"; do
    if is_suitable "$candidate"; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ] && ! $has_venv; then
    echo "set_up_venv: ${candidates[0]}: Python 3.11 to 3.14 is needed; name one with PYTHON=/path/to/python3" >&2
    exit 1
fi
trap 'echo "set_up_venv: the installation did not finish (see above); check the network and the disk, then run this again" >&2' ERR
echo "Setting up .venv (once); torch and the libraries are some gigabytes, so this takes some minutes"
if $has_venv; then
    # An environment made by another tool may lack pip.
    .venv/bin/python -m pip --version >/dev/null 2>&1 || .venv/bin/python -m ensurepip
else
    "$python" -m venv --clear .venv || {
        trap - ERR
        echo "set_up_venv: .venv could not be made; on Debian and Ubuntu: sudo apt install python3-venv" >&2
        exit 1
    }
fi
quiet=$([ -t 1 ] || echo "--quiet")
for file in "$@"; do
    [ -e "$(stamp_of "$file")" ] && continue
    # torch first, in its own step: the other packages must accept this build rather than install another.
    torch=$(grep -E '^torch==' "$file" || true)
    if [ -n "$torch" ]; then
        .venv/bin/python -m pip install --disable-pip-version-check $quiet "$torch"
    fi
    .venv/bin/python -m pip install --disable-pip-version-check $quiet -r "$file"
    touch "$(stamp_of "$file")"
done
