#!/bin/sh
# Stage 1: a WhatsApp export -> formatted_data.jsonl. Everything typed after the name goes to load_whatsapp.py (try --help).
#
#   bash preprocess_start.sh      ./preprocess_start.sh      python3 preprocess_start.sh
#
# Both a shell script and a Python program: to a shell the next line is the command `:`, which does nothing;
# to Python it opens a string that ends after the shell's part.
''':'
project=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd) || exit 1
python="$project/.venv/bin/python"  # the environment that run_demo.sh or the README's steps made
[ -x "$python" ] || python=python3
if ! "$python" -c "import sys; sys.exit(sys.version_info < (3, 11))"; then
    echo "preprocess_start: $python: Python 3.11 or newer is needed; install it, or put it first on PATH" >&2
    exit 1
fi
exec "$python" "$project/src/data_preprocessing/load_whatsapp.py" "$@"
: <<'# end of what only Python reads'
'''
import os
import sys

os.execvp("sh", ["sh", __file__, *sys.argv[1:]])
# end of what only Python reads
