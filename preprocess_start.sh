#!/bin/sh
# Stage 1: a WhatsApp export -> formatted_data.jsonl. All arguments are passed to load_whatsapp.py (see --help).
#
#   bash preprocess_start.sh      ./preprocess_start.sh      python3 preprocess_start.sh
#
# This is a shell script and a Python program. A shell reads the next line as the command `:`, which does nothing; Python
# reads it as the start of a string that ends after the shell's part.
''':'
project=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd) || exit 1
python="$project/.venv/bin/python"  # made by run_demo.sh or by the README's steps
[ -x "$python" ] || python=python3
if ! "$python" -c "import sys; sys.exit(sys.version_info < (3, 11))"; then
    echo "preprocess_start: $python: Python 3.11 or newer is needed; install it, or put it first on PATH" >&2
    exit 1
fi
case "${BASH##*/}:$0" in  # messages that show a command show the one that was typed
    bash:*) typed="bash:$0" ;;
    *:*/*) typed=":$0" ;;
    *) typed="sh:$0" ;;
esac
PERSONALCHATBOT_STARTED_AS="${PERSONALCHATBOT_STARTED_AS:-$typed}"
export PERSONALCHATBOT_STARTED_AS
exec "$python" "$project/src/data_preprocessing/load_whatsapp.py" "$@"
: <<'# end of the Python part'
'''
import os
import sys

os.environ.setdefault("PERSONALCHATBOT_STARTED_AS", "python3:" + sys.argv[0])
os.execvp("sh", ["sh", __file__, *sys.argv[1:]])
# end of the Python part
